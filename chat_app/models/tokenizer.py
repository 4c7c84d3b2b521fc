"""Loads a model's tokenizer, its context window and its chat format, without its weights.

Importing this is cheap: what needs transformers imports it.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from chat_app.config.paths import Paths
from chat_app.errors import ModelError
from chat_app.models.resolver import DEFAULT_WINDOW, ModelFiles, check_weights, download, find
from chat_app.models.validation import read_config, size_of
from chat_app.tokenization.chat_tokenizer import ChatTokenizer
from chat_app.tokenization.format_detection import DetectedFormat, detect_format

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.txt", "sentencepiece.bpe.model")
_MOST_BYTES = 64 << 20  # Of one file. Gemma's, of 262,000 tokens, has 33 MB.
_GPT2_FILES = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))


def load_without_weights(name: str, paths: Paths) -> tuple[ChatTokenizer, ModelFiles, DetectedFormat]:
    """Load a model's tokenizer, its files and its format, without its weights (which are checked, and downloaded).

    Raises:
        ModelError: it cannot be found or trusted.
    """
    files = download(find(name, paths))
    check_weights(files)
    tokenizer = read_tokenizer_files(files.tokenizer_folder, files.gguf)
    return tokenizer, files, detect_format(files.tokenizer_folder, tokenizer, files.config)


def load_tokenizer(name: str | Path, paths: Paths | None = None) -> ChatTokenizer:
    """Load the tokenizer in a folder (which needs no model), or of a model.

    Raises:
        ModelError: there is none.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return read_tokenizer_files(folder, None)
    files = download(find(str(name), paths or Paths.default()))
    return read_tokenizer_files(files.tokenizer_folder, files.gguf)


def read_window(name: str | Path, paths: Paths | None = None) -> int:
    """The context window of a model; 1024, as GPT-2, for a folder that has only a tokenizer.

    Raises:
        ModelError: there is no such model.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return find(str(name), paths or Paths.default()).window
    config = read_config(folder) if (folder / "config.json").exists() else {}
    return size_of(config, "n_positions", "max_position_embeddings", "n_ctx") or DEFAULT_WINDOW


def load_backend(name: str | Path, paths: Paths) -> Any:
    """Load what cuts text into tokens in a model's tokenizer, of the library tokenizers: without transformers where the
    model has it in a file of its own.

    Raises:
        ModelError: there is none.
    """
    folder, gguf = Path(name).expanduser(), None
    if not folder.is_dir():
        files = download(find(str(name), paths))
        folder, gguf = files.tokenizer_folder, files.gguf
    if gguf is None and (folder / "tokenizer.json").is_file():
        _check_sizes(folder)
        from tokenizers import Tokenizer

        try:
            backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # The library raises a plain Exception.
            raise ModelError(f"The tokenizer cannot be read ({error}).", where=str(folder)) from error
        backend.no_truncation()
        backend.no_padding()
        return backend
    return read_tokenizer_files(folder, gguf).backend_tokenizer


def read_tokenizer_files(folder: Path | None, gguf: str | None) -> ChatTokenizer:
    """Load the tokenizer of a folder, or the one in a GGUF file of it.

    Raises:
        ModelError: there is none, or it cannot be read.
    """
    import transformers

    from chat_app.models.gpt2_fast_loading import read_tokenizer
    from chat_app.models.library_calls import call_library

    assert folder is not None, "downloaded before"
    _check_sizes(folder)
    if gguf:
        from_gguf = transformers.AutoTokenizer.from_pretrained
        tokenizer: ChatTokenizer = call_library(from_gguf, folder, gguf_file=gguf, local_files_only=True)
        return tokenizer
    pairs = [(folder / one, folder / other) for one, other in _GPT2_FILES]
    pair = next((pair for pair in pairs if all(file.is_file() for file in pair)), None)
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        if pair is None:
            raise ModelError("There is no tokenizer.", where=str(folder), advice="It needs a tokenizer.json.")
        known = (folder / "config.json").exists() or (folder / "tokenizer_config.json").exists()
        if pair[0].name == "encoder.json" or not known:
            tokenizer = call_library(transformers.GPT2Tokenizer, vocab=str(pair[0]), merges=str(pair[1]))
            return tokenizer
    with contextlib.suppress(ModelError):  # transformers' own way may load it; otherwise it raises the same error.
        fast: ChatTokenizer | None = call_library(read_tokenizer, folder)
        if fast is not None:
            return fast
    tokenizer = call_library(
        transformers.AutoTokenizer.from_pretrained, folder, trust_remote_code=False, local_files_only=True
    )
    return tokenizer


def _check_sizes(folder: Path) -> None:
    for name in (*_TOKENIZER_FILES, "tokenizer_config.json", *(one for pair in _GPT2_FILES for one in pair)):
        file = folder / name
        if file.is_file() and file.stat().st_size > _MOST_BYTES:
            raise ModelError(f"{name} is larger than {_MOST_BYTES >> 20} MiB, so it was not read.", where=str(folder))
