"""A model for somebody else: an adapter melted into its base, by name."""

from __future__ import annotations

from pathlib import Path

from chat_app.config.settings import Paths
from chat_app.errors import ModelError
from chat_app.inference.model_manager import load_words
from chat_app.models.lora_merge import write_merged
from chat_app.tokenization.chat_formats import get_format
from chat_app.tokenization.encoder import Encoder


def merge(adapter: str | Path, out: Path, paths: Paths, *, precision: str | None = None, card: str = "") -> None:
    """Write an ordinary model folder from an adapter and its base model.

    Args:
        adapter: a folder with adapter_config.json.
        out: the new folder; what is there is replaced.
        precision: "float32", "bfloat16" or "float16" for the file; None keeps the base's.
        card: the text of README.md; default the adapter's own.

    Raises:
        ModelError: it is no adapter, or does not fit its base.
    """
    tokenizer, files, recognised = load_words(str(adapter), paths)
    if files.adapter is None or files.folder is None:
        raise ModelError("There is no adapter to merge.", where=str(adapter), advice="The model is whole already.")
    encoder = Encoder(tokenizer, get_format(recognised.format), files.window)
    own = files.adapter.folder / "README.md"
    text = card or (own.read_text(encoding="utf-8") if own.is_file() else "")
    write_merged(files.adapter, files.folder, out, encoder, text, precision)
