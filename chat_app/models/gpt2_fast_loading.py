"""A GPT-2's files, read without detours: what transformers makes of them, in a fraction of the time.

transformers reads any model in one way, which looks at much that a GPT-2 does not have. Whatever is not quite as in
every GPT-2 is left to that way, and so are all complaints. Judging the files is `model_checks`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from chat_app.errors import ModelError
from chat_app.models.validation import MASKS, read_object, tensor_shapes, weight_files

_PREFIX = "transformer."
_HEAD = "lm_head.weight"
_MATRICES = ("c_attn.weight", "c_proj.weight", "c_fc.weight", "wte.weight", _HEAD)
_PRECISIONS = (torch.float32, torch.bfloat16, torch.float16)
_BEGINNING = 1 << 16  # Letters.
_BEFORE_ADDED = re.compile(
    r'\s*\{\s*"version"\s*:\s*"[\d.]+"\s*,\s*"truncation"\s*:\s*null\s*,\s*"padding"\s*:\s*null\s*,\s*"added_tokens"\s*:\s*(?=\[)'
)
_OTHERS = ("special_tokens_map.json", "added_tokens.json")  # Where tokens stood in older folders.
_CLASSES = (None, "GPT2Tokenizer", "GPT2TokenizerFast")


def read_weights(empty: Any, folder: Path, precision: torch.dtype, device: str, *, keep: bool) -> Any | None:
    """Fill a model that has no numbers yet with those of its folder.

    Args:
        empty: what `model_files.check_weights` gives.
        precision, device: of all tensors, unless `keep` is False.
        keep: whether the large matrices will stay what they are, and so need memory of their own. Else somebody will
            move them into another form at once. They are as precise as in the file then, and left there, mapped into
            memory: should the file be cut short before they are moved, reading them would end the process.

    Returns:
        The model, which is `empty`; None where the files are not quite what is usual.

    Raises:
        OSError, SafetensorError: a file cannot be read.
    """
    if type(empty) is not transformers.GPT2LMHeadModel or any(True for _ in empty.buffers()):
        return None
    places = _places(empty, weight_files(folder))
    if places is None:
        return None
    numbers: dict[str, Tensor] = {}
    for file, names in places.items():
        with safe_open(file, "pt") as stored:
            numbers |= {name: stored.get_tensor(stored_name) for name, stored_name in names.items()}
    if any(one.dtype not in _PRECISIONS for one in numbers.values()):
        return None
    for name, one in numbers.items():
        if keep or not _is_moved(name, one):
            numbers[name] = one.to(device, precision, copy=True)
    missing = {_HEAD} - set(numbers)
    empty.load_state_dict(numbers, strict=False, assign=True)
    empty.tie_weights(missing_keys=missing, recompute_mapping=False)
    empty.config.dtype = precision
    empty.config.name_or_path = empty.name_or_path = str(folder)
    empty.generation_config = _generation_config(folder)
    return empty


def _places(empty: Any, files: Iterable[Path]) -> dict[Path, dict[str, str]] | None:
    """Which file has which of the model's tensors, by their names in the model and in the file.

    None if there is any other tensor, one is missing, or has another shape. Files of old have GPT-2's masks, too, and
    call tensors as a model without its head does.
    """
    needed = {name: tuple(one.shape) for name, one in empty.state_dict().items()}
    places: dict[Path, dict[str, str]] = {}
    found: set[str] = set()
    for file in files:
        places[file] = {}
        for stored_name, shape in tensor_shapes(file).items():
            if stored_name.endswith(MASKS):
                continue
            name = stored_name if stored_name in needed else _PREFIX + stored_name
            if name in found or needed.get(name) != shape:
                return None
            found.add(name)
            places[file][name] = stored_name
    tied = {_HEAD} if empty.config.tie_word_embeddings else set()
    return places if needed.keys() - tied <= found else None


def _is_moved(name: str, tensor: Tensor) -> bool:
    """Whether whoever moves a model's matrices copies this one. The embedding becomes bfloat16, if it is not yet."""
    if tensor.dtype not in (torch.float32, torch.bfloat16):
        return False
    return name.endswith(_MATRICES) and (tensor.dtype == torch.float32 or not name.endswith("wte.weight"))


def _generation_config(folder: Path) -> transformers.GenerationConfig:
    """As `from_pretrained` finds it."""
    try:
        return transformers.GenerationConfig.from_pretrained(folder, local_files_only=True)
    except OSError:
        settings: dict[str, Any] = {"config_file_name": "config.json", "_from_model_config": True}
        return transformers.GenerationConfig.from_pretrained(folder, local_files_only=True, **settings)


def read_tokenizer(folder: Path) -> transformers.GPT2Tokenizer | None:
    """The tokenizer of a GPT-2 in a folder that has a tokenizer.json.

    Returns:
        None where there is no such file, or what it describes is not quite a GPT-2's tokenizer.

    Raises:
        Exception: of many kinds, where the files are damaged.
    """
    settings = _object(folder / "config.json"), _object(folder / "tokenizer_config.json")
    is_usual = settings[0].get("model_type") == "gpt2" and all(
        one.get("tokenizer_class") in _CLASSES for one in settings
    )
    if not is_usual or not (folder / "tokenizer.json").is_file():
        return None
    # A class that makes nothing of the file for itself has it read by the library that wrote it, and not by Python.
    reader: Any = type(transformers.GPT2Tokenizer.__name__, (transformers.GPT2Tokenizer,), {})
    known = {} if "added_tokens_decoder" in settings[1] else _added_tokens(folder)
    tokenizer = reader.from_pretrained(folder, local_files_only=True, **known)
    if not _is_gpt2s(tokenizer.backend_tokenizer, tokenizer.add_prefix_space):
        return None
    tokenizer.__class__ = transformers.GPT2Tokenizer
    found: transformers.GPT2Tokenizer = tokenizer
    return found


def _object(file: Path) -> dict[str, Any]:
    """The settings in a file; none where it is missing or damaged."""
    try:
        return read_object(file)
    except ModelError:
        return {}


def _added_tokens(folder: Path) -> dict[str, Any]:
    """The tokens that tokenizer.json adds to the vocabulary, which stand at its beginning: transformers reads all of
    the file for them where nothing else tells them. Nothing if they are not found so easily, or something else does."""
    if any((folder / name).exists() for name in _OTHERS):
        return {}
    with (folder / "tokenizer.json").open(encoding="utf-8") as file:
        begun = file.read(_BEGINNING)
    before = _BEFORE_ADDED.match(begun)
    if before is None:
        return {}
    try:
        added, _ = json.JSONDecoder().raw_decode(begun, before.end())
        return {"added_tokens_decoder": {str(one.pop("id")): one for one in added}}
    except (ValueError, AttributeError, KeyError):
        return {}


def _is_gpt2s(backend: Tokenizer, add_prefix_space: bool) -> bool:
    """Whether a tokenizer cuts and joins as a GPT-2's does, whatever its file might say."""
    model: Any = backend.model
    usual = models.BPE(continuing_subword_prefix="", end_of_word_suffix="")
    names = ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback")
    if not isinstance(model, models.BPE) or backend.normalizer is not None:
        return False
    if any(getattr(model, name) != getattr(usual, name) for name in (*names, "ignore_merges")):
        return False
    before = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    pairs = ((backend.pre_tokenizer, before), (backend.decoder, decoders.ByteLevel()))
    return all(one is not None and one.__getstate__() == other.__getstate__() for one, other in pairs)
