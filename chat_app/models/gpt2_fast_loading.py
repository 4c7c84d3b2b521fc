"""Fast loading of GPT-2 checkpoints: the same model and tokenizer as from transformers, in a fraction of the time.

transformers has one way to load every model, which does much that a GPT-2 does not need. Checkpoints that differ from
an ordinary GPT-2 in any way are left to it, and so are all error messages. `validation` checks the files before.
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
_BEGINNING = 1 << 16  # Characters.
_BEFORE_ADDED = re.compile(
    r'\s*\{\s*"version"\s*:\s*"[\d.]+"\s*,\s*"truncation"\s*:\s*null\s*,\s*"padding"\s*:\s*null\s*,\s*"added_tokens"\s*:\s*(?=\[)'
)
_OTHERS = ("special_tokens_map.json", "added_tokens.json")  # Older folders have added tokens there.
_CLASSES = (None, "GPT2Tokenizer", "GPT2TokenizerFast")


def read_weights(empty: Any, folder: Path, precision: torch.dtype, device: str, *, keep: bool) -> Any | None:
    """Load the weights of a folder into a model on the device "meta".

    Args:
        empty: the model that `resolver.check_weights` returns.
        precision, device: of all tensors, unless `keep` is False.
        keep: whether the large matrices stay as they are, and so need memory of their own. Otherwise they are about to
            be packed for the kernels: they keep the file's dtype and stay mapped into memory. If the file were cut
            short before they are packed, reading them would end the process.

    Returns:
        The model, which is `empty`; None where the checkpoint is not an ordinary GPT-2.

    Raises:
        OSError, SafetensorError: a file cannot be read.
    """
    if type(empty) is not transformers.GPT2LMHeadModel or any(True for _ in empty.buffers()):
        return None
    locations = _locate_tensors(empty, weight_files(folder))
    if locations is None:
        return None
    numbers: dict[str, Tensor] = {}
    for file, names in locations.items():
        with safe_open(file, "pt") as stored:
            numbers |= {name: stored.get_tensor(stored_name) for name, stored_name in names.items()}
    if any(one.dtype not in _PRECISIONS for one in numbers.values()):
        return None
    for name, one in numbers.items():
        if keep or not _is_packed(name, one):
            numbers[name] = one.to(device, precision, copy=True)
    missing = {_HEAD} - set(numbers)
    empty.load_state_dict(numbers, strict=False, assign=True)
    empty.tie_weights(missing_keys=missing, recompute_mapping=False)
    empty.config.dtype = precision
    empty.config.name_or_path = empty.name_or_path = str(folder)
    empty.generation_config = _generation_config(folder)
    return empty


def _locate_tensors(empty: Any, files: Iterable[Path]) -> dict[Path, dict[str, str]] | None:
    """For each file, the names of its tensors: in the model -> in the file.

    None if a tensor is missing, has another shape, or is not the model's. Old files also hold the causal masks, and
    name tensors as a model without its head does.
    """
    needed = {name: tuple(one.shape) for name, one in empty.state_dict().items()}
    locations: dict[Path, dict[str, str]] = {}
    found: set[str] = set()
    for file in files:
        locations[file] = {}
        for stored_name, shape in tensor_shapes(file).items():
            if stored_name.endswith(MASKS):
                continue
            name = stored_name if stored_name in needed else _PREFIX + stored_name
            if name in found or needed.get(name) != shape:
                return None
            found.add(name)
            locations[file][name] = stored_name
    tied = {_HEAD} if empty.config.tie_word_embeddings else set()
    return locations if needed.keys() - tied <= found else None


def _is_packed(name: str, tensor: Tensor) -> bool:
    """Whether packing copies this tensor. The embedding is not packed; it is converted to bfloat16 if it is float32."""
    if tensor.dtype not in (torch.float32, torch.bfloat16):
        return False
    return name.endswith(_MATRICES) and (tensor.dtype == torch.float32 or not name.endswith("wte.weight"))


def _generation_config(folder: Path) -> transformers.GenerationConfig:
    """The generation config as `from_pretrained` finds it."""
    try:
        return transformers.GenerationConfig.from_pretrained(folder, local_files_only=True)
    except OSError:
        settings: dict[str, Any] = {"config_file_name": "config.json", "_from_model_config": True}
        return transformers.GenerationConfig.from_pretrained(folder, local_files_only=True, **settings)


def read_tokenizer(folder: Path) -> transformers.GPT2Tokenizer | None:
    """The tokenizer of a GPT-2 in a folder that has a tokenizer.json.

    Returns:
        None where there is no such file, or it describes another tokenizer than a GPT-2's.

    Raises:
        Exception: of many kinds, where the files are damaged.
    """
    settings = _read_settings(folder / "config.json"), _read_settings(folder / "tokenizer_config.json")
    is_usual = settings[0].get("model_type") == "gpt2" and all(
        one.get("tokenizer_class") in _CLASSES for one in settings
    )
    if not is_usual or not (folder / "tokenizer.json").is_file():
        return None
    # A class without its own conversion has the file read by the tokenizers library, and not by Python.
    reader: Any = type(transformers.GPT2Tokenizer.__name__, (transformers.GPT2Tokenizer,), {})
    known = {} if "added_tokens_decoder" in settings[1] else _added_tokens(folder)
    tokenizer = reader.from_pretrained(folder, local_files_only=True, **known)
    if not _is_gpt2_tokenizer(tokenizer.backend_tokenizer, tokenizer.add_prefix_space):
        return None
    tokenizer.__class__ = transformers.GPT2Tokenizer
    found: transformers.GPT2Tokenizer = tokenizer
    return found


def _read_settings(file: Path) -> dict[str, Any]:
    """The settings in a JSON file; empty where it is missing or damaged."""
    try:
        return read_object(file)
    except ModelError:
        return {}


def _added_tokens(folder: Path) -> dict[str, Any]:
    """The added tokens, read from the beginning of tokenizer.json, as an argument for `from_pretrained`: without it
    transformers parses the whole file for them. Empty if they are not at the beginning, or are in another file."""
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


def _is_gpt2_tokenizer(backend: Tokenizer, add_prefix_space: bool) -> bool:
    """Whether a tokenizer encodes and decodes as a GPT-2's does, whatever its file says."""
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
