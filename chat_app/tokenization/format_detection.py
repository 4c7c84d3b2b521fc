"""Detects the chat format that a checkpoint was trained with, from its chat_format.json, its tokenizer and its config.

Loads no model and no tokenizer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chat_app.errors import FormatError, ModelError
from chat_app.tokenization.chat_formats import FORMATS, ChatFormat
from chat_app.tokenization.chat_tokenizer import ChatTokenizer
from chat_app.tokenization.template_renderer import render_template

FILE = "chat_format.json"
VERSION = 1
_MOST_BYTES = 64 * 1024
_GPT2_VOCABULARY = 50257
# Published checkpoints that come with GPT-2's own tokenizer: number of additional embedding rows -> format.
_PUBLISHED_WITHOUT_TOKENS = {3: "speaker", 5: "roles-spaced"}


@dataclass(frozen=True)
class DetectedFormat:
    """A chat format and the reason for it.

    Attributes:
        format: its name.
        certain: False for a guess that a person should confirm.
        because: the reason, as the end of a sentence.
    """

    format: str
    certain: bool
    because: str


def detect_format(folder: Path | None, tokenizer: ChatTokenizer, config: Any) -> DetectedFormat:
    """Detect the format of a checkpoint.

    Args:
        folder: the folder of its files, if there is one.
        tokenizer: its tokenizer, before special tokens are added.
        config: the config of transformers, or the contents of config.json.

    Raises:
        ModelError: its chat_format.json is nonsense.
    """
    settings: Mapping[str, Any] = config if isinstance(config, Mapping) else config.to_dict()
    if folder is not None and (folder / FILE).exists():
        note = read_chat_format(folder)
        return DetectedFormat(note["format"], True, f"its {FILE} says so")
    if _is_dialogpt(tokenizer, settings):
        return DetectedFormat("eos", True, "it joins turns with the end-of-text token, as DialoGPT does")
    if _knows(tokenizer, "<sp1>", "<sp2>"):
        return DetectedFormat("speaker", True, "it knows the tokens <sp1> and <sp2>")
    if _knows(tokenizer, "<|USER|>", "<|ASSISTANT|>", "<|End|>"):
        return DetectedFormat("roles-spaced", True, "it knows the tokens <|USER|>, <|ASSISTANT|> and <|End|>")
    if _knows(tokenizer, "[SEP]", "[CLS]"):
        return DetectedFormat("pair", True, "it knows the tokens [SEP] and [CLS]")
    if _knows(tokenizer, "<sep>") or tokenizer.sep_token is not None:
        return DetectedFormat("sep", True, "it has a separator token")
    if getattr(tokenizer, "chat_template", None):
        return DetectedFormat("template", True, "it brings a chat template")
    added = settings.get("vocab_size", 0) - _GPT2_VOCABULARY
    if len(tokenizer) == _GPT2_VOCABULARY and added in _PUBLISHED_WITHOUT_TOKENS:
        return DetectedFormat(_PUBLISHED_WITHOUT_TOKENS[added], True, f"it has {added} tokens more than GPT-2")
    return DetectedFormat("eos", False, "it is a plain language model that has not learned to chat")


def _knows(tokenizer: ChatTokenizer, *tokens: str) -> bool:
    """Whether a tokenizer has all of these tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return bool(set(tokens) <= tokenizer.get_vocab().keys())
    return all(backend.token_to_id(one) is not None for one in tokens)  # Faster than listing the vocabulary.


def _is_dialogpt(tokenizer: ChatTokenizer, settings: Mapping[str, Any]) -> bool:
    tasks = settings.get("task_specific_params")
    if isinstance(tasks, Mapping) and "conversational" in tasks:
        return True
    if "dialogpt" in str(settings.get("_name_or_path", "")).lower():
        return True
    return _joins_with_end(tokenizer)


def _joins_with_end(tokenizer: ChatTokenizer) -> bool:
    """Whether the chat template writes each message with the end-of-text token after it, and nothing else."""
    if not getattr(tokenizer, "chat_template", None) or not tokenizer.eos_token:
        return False
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    try:
        text = render_template(tokenizer, messages)
    except FormatError:  # Then it is not this one.
        return False
    return bool(text == f"a{tokenizer.eos_token}b{tokenizer.eos_token}")


def write_chat_format(folder: Path, chat_format: ChatFormat, special_tokens: Mapping[str, str]) -> None:
    """Write chat_format.json beside a model: the format and the spelling of its special tokens."""
    note = {"format": chat_format.name, "version": VERSION, "tokens": dict(special_tokens)}
    temporary = folder / f".{FILE}.new"
    temporary.write_text(json.dumps(note, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, folder / FILE)


def read_chat_format(folder: Path) -> dict[str, Any]:
    """Read the chat_format.json beside a model: "format", "version" and "tokens".

    Raises:
        ModelError: it cannot be read, or it has a format or a version that this program does not know.
    """
    file = folder / FILE
    advice = f"Correct or delete {FILE}; the format can be chosen by hand, too."
    try:
        with file.open("rb") as stream:
            content = stream.read(_MOST_BYTES + 1)
        note = json.loads(content) if len(content) <= _MOST_BYTES else None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{FILE} cannot be read ({error}).", where=str(file), advice=advice) from error
    if not isinstance(note, dict) or not isinstance(note.get("format"), str):
        raise ModelError(f"{FILE} names no format.", where=str(file), advice=advice)
    if note["format"] not in FORMATS:
        raise ModelError(f"The format '{note['format'][:60]}' is unknown.", where=str(file), advice=advice)
    if note.get("version") != VERSION:
        raise ModelError(
            f"{FILE} is of version {str(note.get('version'))[:20]}; this program knows version {VERSION}.",
            where=str(file),
            advice="Use a newer version of this program.",
        )
    tokens = note.setdefault("tokens", {})
    if not isinstance(tokens, dict) or not all(isinstance(spelling, str) for spelling in tokens.values()):
        raise ModelError(f"The tokens in {FILE} are not names and spellings.", where=str(file), advice=advice)
    return note
