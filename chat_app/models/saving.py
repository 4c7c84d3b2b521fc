"""Writing a model folder: ordinary Hugging Face files, and the format the model talks in. Whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers

from chat_app.tokenization.encoder import Encoder
from chat_app.tokenization.format_detection import write_chat_format

# How the tokenizer was loaded here; transformers writes that down as if it were the tokenizer's own.
_OF_THIS_COMPUTER = ("is_local", "local_files_only", "name_or_path")


def save_model_folder(folder: Path, model: Any, encoder: Encoder, card: str = "", precision: str | None = None) -> None:
    """Put a model into a folder, replacing what is there once everything is written.

    Args:
        model: a transformers model; it is saved as safetensors.
        encoder: its tokenizer and its format.
        card: the text of README.md.
        precision: "float32", "bfloat16" or "float16" for the file; None keeps the model's own.
    """
    replace_folder(folder, lambda temporary: _write(temporary, model, encoder, card, precision))


def replace_folder(folder: Path, write: Callable[[Path], Any]) -> None:
    """Put what `write` writes into an empty folder in the place of `folder`, once everything is written."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    temporary.mkdir()
    try:
        write(temporary)
        _swap(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(folder: Path, model: Any, encoder: Encoder, card: str, precision: str | None) -> None:
    import torch

    state = _cast(model.state_dict(), getattr(torch, precision)) if precision else None
    model.generation_config = generation_config(encoder)
    model.save_pretrained(folder, state_dict=state, safe_serialization=True)
    finish_config(folder, precision)
    write_words(folder, encoder, card)


def generation_config(encoder: Encoder) -> transformers.GenerationConfig:
    """How replies end, for other programs."""
    ends = sorted(encoder.end_ids)
    return transformers.GenerationConfig(
        bos_token_id=encoder.tokenizer.bos_token_id,
        eos_token_id=ends[0] if len(ends) == 1 else ends,
        pad_token_id=encoder.tokenizer.pad_token_id,
        do_sample=True,
    )


def finish_config(folder: Path, precision: str | None) -> None:
    """Put into config.json what transformers does not know of the numbers and of what the model is for."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["use_cache"] = True  # A training switches it off; whoever loads this model wants to chat.
    if precision:
        config["dtype"] = precision
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_words(folder: Path, encoder: Encoder, card: str) -> None:
    """Everything of a model folder but the weights and their shape: the tokenizer, the format, the card."""
    if encoder.format.render is not None:  # Else the template is the format. None: others must not use one left over.
        encoder.tokenizer.chat_template = encoder.format.chat_template
    encoder.tokenizer.save_pretrained(folder, save_jinja_files=False)
    about = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    kept = {name: value for name, value in about.items() if name not in _OF_THIS_COMPUTER}
    kept["model_max_length"] = encoder.window
    (folder / "tokenizer_config.json").write_text(
        json.dumps(kept, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    write_chat_format(folder, encoder.format, encoder.special_tokens)
    if card:
        (folder / "README.md").write_text(card, encoding="utf-8")


def _cast(state: dict[str, Any], dtype: Any) -> dict[str, Any]:
    """The tensors in another precision; those that share memory still do, so that each is written once."""
    done: dict[tuple[int, Any], Any] = {}
    cast = {}
    for name, value in state.items():
        place = (value.data_ptr(), value.shape)
        if place not in done:
            done[place] = value.to(dtype) if value.is_floating_point() else value
        cast[name] = done[place]
    return cast


def _swap(new: Path, folder: Path) -> None:
    """Put `new` in the place of `folder`. Folders cannot be exchanged in one step everywhere: the old one steps
    aside."""
    if not folder.exists():
        os.replace(new, folder)
        return
    aside = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(folder, aside)
    os.replace(new, folder)
    shutil.rmtree(aside, ignore_errors=True)
