"""Pretraining: from text to a new tokenizer (byte-level BPE), and to a new model with random weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chat_app.data.readers import iterate_conversations
from chat_app.data.text_corpus import is_plain_text, iterate_chunks
from chat_app.errors import SettingError
from chat_app.models.building import building
from chat_app.runs.run import Run
from chat_app.tokenization.chat_formats import DEFAULT_FORMAT, get_format
from chat_app.tokenization.chat_tokenizer import ChatTokenizer
from chat_app.tokenization.encoder import Encoder

END_OF_TEXT = "<|endoftext|>"
PRETRAIN_DEFAULTS: Mapping[str, Any] = {
    "learn": "all",
    "epochs": 6.0,
    "learning_rate": 0.003,
    "optimizer": "muon",
    "weight_decay": 0.05,
    "batch_size": 16,
    "schedule": "linear",
    "warmup": 0.05,
    "valid_share": 0.01,
    "overlap": 0.0,
    "patience": 0,
}
"""Where learning a language from scratch wants other settings than teaching a model that knows one."""


@dataclass(frozen=True, slots=True)
class Size:
    """The shape of a GPT-2: width, layers, heads and window."""

    width: int
    layers: int
    heads: int
    window: int


SIZES: Mapping[str, Size] = {
    "nano": Size(128, 2, 1, 256),
    "mini": Size(384, 6, 3, 512),
    "compact": Size(512, 8, 4, 512),
    "small": Size(768, 12, 12, 1024),
    "medium": Size(1024, 24, 16, 1024),
}


def train_tokenizer(files: Sequence[Path], vocab_size: int, out: Path) -> int:
    """Learn a byte-level BPE from what is said in the files and write it as a tokenizer folder, format `roles`
    included.

    Args:
        vocab_size: tokens in all: 256 bytes, 5 special tokens, and merges.

    Returns:
        How many tokens it has, which is less than asked for where there is too little text.

    Raises:
        DataError: nothing to read. SettingError: a vocabulary too small for the bytes.
    """
    return learn_tokenizer(read_texts(files), vocab_size, out)


def learn_tokenizer(texts: Iterable[str], vocab_size: int, out: Path) -> int:
    """The same from texts, which may come one by one.

    Raises:
        SettingError: a vocabulary too small for the bytes.
    """
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPT2Tokenizer

    special_tokens = list(get_format(DEFAULT_FORMAT).special_tokens.values())
    if not 256 + len(special_tokens) < vocab_size <= 200_000:
        raise SettingError("vocab-size", f"{vocab_size} is out of range.", advice="Give 300 to 200000.")
    bpe = ByteLevelBPETokenizer(add_prefix_space=False)
    special = [END_OF_TEXT, *special_tokens]
    bpe.train_from_iterator(texts, vocab_size=vocab_size, min_frequency=2, special_tokens=special)
    tokenizer = GPT2Tokenizer(
        tokenizer_object=bpe,
        bos_token=END_OF_TEXT,
        eos_token=get_format(DEFAULT_FORMAT).special_tokens["end"],
        unk_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        additional_special_tokens=special_tokens[:-1],
    )
    tokenizer.chat_template = get_format(DEFAULT_FORMAT).chat_template
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(out, save_jinja_files=False)
    return len(tokenizer)


def read_texts(files: Sequence[Path]) -> Iterator[str]:
    """What is said in files of conversations, turn by turn; plain text in pieces.

    Raises:
        DataError: a file cannot be read at all.
    """
    for file in files:
        if is_plain_text(file):
            yield from iterate_chunks(file)
        else:
            yield from (message.text for one in iterate_conversations(file) for message in one.messages)


def new_model(tokenizer: ChatTokenizer, size: str, seed: int = 0) -> Any:
    """A GPT-2 of that size with random weights for this tokenizer.

    Raises:
        SettingError: no such size.
    """
    from transformers import GPT2Config, GPT2LMHeadModel, set_seed

    check_size(size)
    shape = SIZES[size]
    set_seed(seed)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=shape.window,
        n_embd=shape.width,
        n_layer=shape.layers,
        n_head=shape.heads,
        activation_function="gelu_pytorch_tanh",  # GPT-2's own function, as one operation instead of eight.
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with building():
        return GPT2LMHeadModel(config)


def check_size(size: str) -> None:
    """Whether there is such a size.

    Raises:
        SettingError: there is none.
    """
    if size not in SIZES:
        raise SettingError("size", f"There is no size '{size}'.", advice=f"Choose one of {', '.join(SIZES)}.")


def add_new_model(run: Run, tokenizer_folder: Path, size: str, seed: int) -> None:
    """Let a prepared run begin with a new model, which is put into its folder under `start`."""
    from chat_app.models.saving import save_model_folder
    from chat_app.models.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(tokenizer_folder)
    model = new_model(tokenizer, size, seed)
    encoder = Encoder(tokenizer, get_format(DEFAULT_FORMAT), SIZES[size].window)
    save_model_folder(run.folder / "start", model, encoder, precision="float32")
    run.change(model=str(run.folder / "start"))
