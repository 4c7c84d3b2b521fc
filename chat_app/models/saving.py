"""Saves model folders, atomically: the files of Hugging Face, and the chat format the model was trained with."""

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

# How the tokenizer was loaded here, which transformers saves as if it were a setting of the tokenizer.
_OF_THIS_COMPUTER = ("is_local", "local_files_only", "name_or_path")


def save_model_folder(folder: Path, model: Any, encoder: Encoder, card: str = "", precision: str | None = None) -> None:
    """Save a model to a folder, replacing what is there once everything is written.

    Args:
        model: a transformers model; it is saved as safetensors.
        encoder: its tokenizer and its format.
        card: the text of README.md.
        precision: "float32", "bfloat16" or "float16" for the file; None keeps the model's own.
    """
    replace_folder(folder, lambda temporary: _write(temporary, model, encoder, card, precision))


def replace_folder(folder: Path, write: Callable[[Path], Any]) -> None:
    """Replace `folder` atomically by a new one, which `write` fills."""
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
    write_tokenizer_files(folder, encoder, card)


def generation_config(encoder: Encoder) -> transformers.GenerationConfig:
    """The generation config for other programs: the tokens that end a reply."""
    ends = sorted(encoder.end_ids)
    return transformers.GenerationConfig(
        bos_token_id=encoder.tokenizer.bos_token_id,
        eos_token_id=ends[0] if len(ends) == 1 else ends,
        pad_token_id=encoder.tokenizer.pad_token_id,
        do_sample=True,
    )


def finish_config(folder: Path, precision: str | None) -> None:
    """Set the dtype and the use of the KV cache in config.json, which transformers does not know."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["use_cache"] = True  # Training switches it off; a saved model is for generating.
    if precision:
        config["dtype"] = precision
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_tokenizer_files(folder: Path, encoder: Encoder, card: str) -> None:
    """Write the tokenizer, the chat format and the model card."""
    if encoder.format.render is not None:  # Otherwise the template is the format. None removes another one.
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
    """Cast tensors; tied ones still share memory afterwards, so that each is saved once."""
    done: dict[tuple[int, Any], Any] = {}
    cast = {}
    for name, value in state.items():
        place = (value.data_ptr(), value.shape)
        if place not in done:
            done[place] = value.to(dtype) if value.is_floating_point() else value
        cast[name] = done[place]
    return cast


def _swap(new: Path, folder: Path) -> None:
    """Rename `new` to `folder`. Not every system can exchange folders in one step, so the old one is renamed first."""
    if not folder.exists():
        os.replace(new, folder)
        return
    aside = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(folder, aside)
    os.replace(new, folder)
    shutil.rmtree(aside, ignore_errors=True)
