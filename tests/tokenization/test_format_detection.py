"""Which format a checkpoint has, told from what published checkpoints look like."""

from __future__ import annotations

import json

import pytest
from transformers import PreTrainedTokenizerFast

from chat_app.errors import ModelError
from chat_app.tokenization.chat_formats import FORMATS, get_format
from chat_app.tokenization.encoder import Encoder
from chat_app.tokenization.format_detection import FILE, detect_format, read_chat_format, write_chat_format

DIALOGPT_TEMPLATE = "{% for message in messages %}{{ message.content }}{{ eos_token }}{% endfor %}"
OTHER_TEMPLATE = "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{% endfor %}"


def with_tokens(tokenizer, *tokens: str):
    tokenizer.add_special_tokens({"additional_special_tokens": list(tokens)})
    return tokenizer


def test_a_plain_model_is_a_guess(tiny_tokenizer, tiny_model):
    found = detect_format(None, tiny_tokenizer, tiny_model.config)
    assert (found.format, found.certain) == ("eos", False)
    assert "plain language model" in found.because


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (("<bos>", "<sp1>", "<sp2>"), "speaker"),
        (("[PAD]", "<|End|>", "<|USER|>", "<|SYSTEM|>", "<|ASSISTANT|>"), "roles-spaced"),
        (("[SEP]", "[CLS]"), "pair"),
        (("<sep>",), "sep"),
    ],
)
def test_the_tokens_of_published_models(tiny_tokenizer, tokens, expected):
    found = detect_format(None, with_tokens(tiny_tokenizer, *tokens), {"model_type": "gpt2"})
    assert (found.format, found.certain) == (expected, True)


def test_a_separator_token(tiny_tokenizer):
    tiny_tokenizer.add_special_tokens({"sep_token": "<separator>"})
    assert detect_format(None, tiny_tokenizer, {}).format == "sep"


@pytest.mark.parametrize(
    "config",
    [{"task_specific_params": {"conversational": {"max_length": 1000}}}, {"_name_or_path": "microsoft/DialoGPT-small"}],
)
def test_dialogpt_by_its_settings(tiny_tokenizer, config):
    found = detect_format(None, tiny_tokenizer, config)
    assert (found.format, found.certain) == ("eos", True)


def test_gpt2s_own_task_is_not_a_chat(tiny_tokenizer):
    assert not detect_format(None, tiny_tokenizer, {"task_specific_params": {"text-generation": {}}}).certain


def test_templates(tiny_tokenizer):
    tiny_tokenizer.chat_template = DIALOGPT_TEMPLATE
    assert detect_format(None, tiny_tokenizer, {}).format == "eos"
    tiny_tokenizer.chat_template = OTHER_TEMPLATE
    assert detect_format(None, tiny_tokenizer, {}).format == "template"
    tiny_tokenizer.chat_template = "{{ broken"
    assert detect_format(None, tiny_tokenizer, {}).format == "template"


@pytest.mark.parametrize(("rows", "expected"), [(50260, "speaker"), (50262, "roles-spaced"), (50257, "eos")])
def test_more_rows_than_gpt2_has_tokens(rows, expected):
    class Gpt2(PreTrainedTokenizerFast):
        """Only its size matters here."""

        def __init__(self):
            pass

        sep_token = eos_token = None
        chat_template = None

        def get_vocab(self):
            return {}

        def __len__(self):
            return 50257

    assert detect_format(None, Gpt2(), {"vocab_size": rows}).format == expected


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "template"])
def test_the_note_wins(tmp_path, tiny_tokenizer, name):
    encoder = Encoder(tiny_tokenizer, get_format(name), 64)
    with_tokens(tiny_tokenizer, "<sp1>", "<sp2>")
    write_chat_format(tmp_path, encoder.format, encoder.special_tokens)
    note = read_chat_format(tmp_path)
    assert note == {"format": name, "version": 1, "tokens": dict(encoder.special_tokens)}
    found = detect_format(tmp_path, tiny_tokenizer, {})
    assert (found.format, found.certain) == (name, True)
    assert [file.name for file in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'"roles"',
        b'{"format": 3}',
        b'{"format": "nonsense", "version": 1}',
        b'{"format": "roles"}',
        b'{"format": "roles", "version": 2}',
        b'{"format": "roles", "version": 1, "tokens": ["a"]}',
        b'{"format": "roles", "version": 1, "tokens": {"end": 5}}',
        b"[" * 60_000,
        json.dumps({"format": "roles", "version": 1, "tokens": {"x": "y" * 100_000}}).encode(),
    ],
)
def test_nonsense_is_a_sentence(tmp_path, tiny_tokenizer, content):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ModelError, match=FILE):
        detect_format(tmp_path, tiny_tokenizer, {})
