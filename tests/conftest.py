"""Real, tiny models: a byte-level BPE trained in a moment and a GPT-2 of two layers."""

from __future__ import annotations

import copy
import gc
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from chat_app.config.paths import Paths
from chat_app.config.training import TrainConfig
from chat_app.conversation import Conversation
from chat_app.data.readers import Reading
from chat_app.runs.run import Run
from chat_app.tokenization.chat_formats import get_format
from chat_app.tokenization.encoder import Encoder
from chat_app.tokenization.format_detection import write_chat_format
from chat_app.training.prepare import write_run

SENTENCES = [
    "Hello, how are you today? I am fine, thank you.",
    "What do you like to do? I like to read books and to walk in the park.",
    "Where is the shop? The shop is in the old town, next to the station.",
    "When do you open? We open at nine and close at six, every day but Sunday.",
    "Thank you very much! You are welcome. See you soon, goodbye!",
]
WINDOW = 128


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with the mark `slow_file` start first, so that no worker ends alone; everything else keeps its order."""
    items.sort(key=lambda item: item.get_closest_marker("slow_file") is None)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def _what_is_imported_stays() -> None:
    """Looked through again and again, the objects of all the libraries would cost every collection a third of a second:
    each model that is unloaded, and each training, asks for one."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def _trained_tokenizer() -> Any:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>"],
        show_progress=False,
    )
    backend.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|endoftext|>", eos_token="<|endoftext|>", unk_token="<|endoftext|>"
    )


@pytest.fixture
def tiny_tokenizer(_trained_tokenizer: Any) -> Any:
    """A byte-level BPE of about 400 tokens with GPT-2's end-of-text token. Marks that are added stay in the test."""
    return copy.deepcopy(_trained_tokenizer)


def build_model(vocabulary: int, width: int = 32, seed: int = 0, window: int = WINDOW) -> GPT2LMHeadModel:
    """A GPT-2 of two layers whose scores are far enough apart that rounding decides nothing."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=vocabulary,
        n_embd=width,
        n_layer=2,
        n_head=2,
        n_positions=window,
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=0.3,
    )
    return GPT2LMHeadModel(config).eval()


@pytest.fixture
def make_model() -> Callable[..., GPT2LMHeadModel]:
    """Makes tiny models: make_model(vocabulary, width=32, seed=0, window=128)."""
    return build_model


@pytest.fixture
def tiny_model(tiny_tokenizer: Any) -> GPT2LMHeadModel:
    """A GPT-2 with a row for each token of `tiny_tokenizer`."""
    return build_model(len(tiny_tokenizer))


@pytest.fixture(scope="session")
def _saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Saved model folders to copy, each made once."""
    made: dict[tuple[Any, ...], Path] = {}

    def saved(tokenizer: Any, format_name: str, width: int, note: bool) -> Path:
        encoder = Encoder(tokenizer, get_format(format_name), WINDOW)
        what = (format_name, width, note, tuple(tokenizer.get_added_vocab()))
        if what not in made:
            made[what] = folder = tmp_path_factory.mktemp("saved") / "model"
            build_model(len(tokenizer), width).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            if note:
                write_chat_format(folder, encoder.format, encoder.special_tokens)
        return made[what]

    return saved


@pytest.fixture
def make_folder(tmp_path: Path, tiny_tokenizer: Any, _saved: Callable[..., Path]) -> Callable[..., Path]:
    """Makes saved model folders: make_folder(name, format, width=32)."""

    def make(name: str = "model", format_name: str = "roles", width: int = 32, note: bool = True) -> Path:
        torch.manual_seed(0)  # As where it is made anew.
        saved = _saved(tiny_tokenizer, format_name, width, note)
        return Path(shutil.copytree(saved, tmp_path / name, dirs_exist_ok=True))

    return make


@pytest.fixture(scope="session")
def saved_folder(_saved: Callable[..., Path], _trained_tokenizer: Any) -> Path:
    """A folder as `tiny_folder`, for many tests: nobody writes into it."""
    return _saved(copy.deepcopy(_trained_tokenizer), "roles", 32, True)


@pytest.fixture
def tiny_folder(make_folder: Callable[..., Path]) -> Path:
    """A saved model folder in the format roles."""
    return make_folder()


CONFIG = TrainConfig(
    epochs=2,
    batch_size=4,
    learning_rate=3e-3,
    patience=0,
    precision="float32",
    device="cpu",
    threads=1,
    wordings="off",
    valid_share=0.2,
    rehearse="off",
)


def reading_of(count: int = 20) -> Reading:
    places = ["shop", "park", "school", "station", "museum"]
    conversations = [
        Conversation.from_turns([f"Where is the {places[index % 5]} {index}?", f"It is in street {index}."])
        for index in range(count)
    ]
    return Reading(conversations, [], list(range(1, count + 1)), "tsv", "utf-8")


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "home")


@pytest.fixture
def prepare(paths: Paths, make_folder: Callable[..., Path]) -> Callable[..., Run]:
    """Makes prepared runs of the same data: prepare("a", epochs=3)."""
    model = make_folder("start")

    def make(name: str, **changes: Any) -> Run:
        config = replace(CONFIG, model=str(model), **changes)
        return write_run(config, reading_of(), paths, folder=paths.runs / name)

    return make
