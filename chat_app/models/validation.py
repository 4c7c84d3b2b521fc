"""Validates the files of a model before any of them is loaded: config.json, and the headers of the weights.

A model folder is untrusted. Its config must describe an architecture that transformers knows, of reasonable size and
without code to run; its weights must be complete, undamaged safetensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from chat_app.errors import ModelError

_MOST_CONFIG_BYTES = 2**20
_MOST_HEADER_BYTES = 25 * 2**20
MASKS = (".attn.bias", ".attn.masked_bias")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
# Names of a size in different architectures -> the most a model may have. GPT-2 XL has 48 layers, 1600 wide.
_LIMITS = {
    ("n_layer", "num_hidden_layers", "num_layers"): 200,
    ("n_embd", "hidden_size", "d_model"): 16384,
    ("n_head", "num_attention_heads", "num_key_value_heads", "head_dim"): 1024,
    ("n_inner", "intermediate_size"): 131072,
    ("n_positions", "n_ctx", "max_position_embeddings"): 2**21,
    ("vocab_size", "type_vocab_size"): 1_000_000,
    ("num_labels",): 10_000,  # transformers makes a name for each.
    ("num_local_experts", "num_experts", "n_routed_experts"): 256,
}


def read_config(folder: Path) -> dict[str, Any]:
    """Read and validate config.json: of reasonable size, without code to run. Which architecture it names is judged by
    `check_kind`.

    Raises:
        ModelError: otherwise.
    """
    config = read_object(folder / "config.json")
    where = str(folder / "config.json")
    refuse_programs(config, where)
    if (folder / "tokenizer_config.json").exists():
        refuse_programs(read_object(folder / "tokenizer_config.json"), where)
    for key in ("attn_implementation", "_attn_implementation", "experts_implementation"):
        if config.get(key) not in (None, "eager", "sdpa"):
            raise ModelError(f"The setting '{key}' is not allowed in a model.", where=where, advice="Remove it.")
    for names, most in _LIMITS.items():
        for size in names:
            value = config.get(size)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most):
                raise ModelError(
                    f"{size} is {str(value)[:40]}; a whole number up to {most} is allowed.",
                    where=where,
                    advice="The file is damaged, or not meant for this program.",
                )
    return config


def refuse_programs(settings: Mapping[str, Any], where: str) -> None:
    """Refuse settings that name code to run.

    Raises:
        ModelError: these do.
    """
    if any(_has_key(settings, key) for key in ("auto_map", "custom_pipelines")):
        raise ModelError(
            "This model brings a program of its own, and programs from model folders are never run.",
            where=where,
            advice="Use a model that transformers knows by itself.",
        )


def refuse_without_safetensors(names: list[str], where: str) -> NoReturn:
    """Say why a model with these files cannot be loaded.

    Raises:
        ModelError: always.
    """
    if any(name.endswith(_PICKLES) for name in names):
        raise ModelError(
            "The weights are only there as a pickle file, which can run programs and is never opened.",
            where=where,
            advice="`chat_app models import PATH` reads only the tensors in it and saves them as safetensors.",
        )
    raise ModelError("There are no weights.", where=where, advice="A model folder has a file model.safetensors.")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that make up the model in a folder.

    Raises:
        ModelError: there are none, or some are missing.
    """
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    if not index.is_file():
        refuse_without_safetensors([file.name for file in folder.iterdir()], str(folder))
    weight_map = read_object(index, 16 * _MOST_CONFIG_BYTES).get("weight_map")
    names = sorted(set(map(str, weight_map.values()))) if isinstance(weight_map, dict) else []
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors") or not (folder / name).is_file():
            raise ModelError(
                f"The weights' file '{name[:100]}' is missing.", where=str(folder), advice="Copy the model again."
            )
    if not names:
        raise ModelError("The list of weights is empty.", where=str(index), advice="Copy the model again.")
    return [folder / name for name in names]


def count_parameters(file: Path) -> int:
    """Count the parameters in a safetensors file.

    Raises:
        ModelError: the file is damaged.
    """
    # The causal masks in old GPT-2 files are no parameters.
    shapes = [shape for name, shape in tensor_shapes(file).items() if not name.endswith(MASKS)]
    return sum(math.prod(shape) for shape in shapes)


def tensor_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a safetensors file, whose header must be valid and fit the file's size.

    Raises:
        ModelError: the file is damaged, or holds nothing.
    """
    return {name: tuple(tensor["shape"]) for name, tensor in _read_header(file)}


def tensor_dtypes(file: Path) -> set[str]:
    """The types of the tensors in a safetensors file, in its own words: "F32", "BF16" and others.

    Raises:
        ModelError: the file is damaged, or holds nothing.
    """
    return {str(tensor.get("dtype")) for _, tensor in _read_header(file)}


def _read_header(file: Path) -> list[tuple[str, dict[str, Any]]]:
    """The names of the tensors in a safetensors file and what its header says of each.

    The layout: 8 bytes with the header's length, the header in JSON, then the tensors.

    Raises:
        ModelError: the file is damaged, or holds nothing.
    """
    damaged = ModelError("The weights are damaged.", where=str(file), advice="Copy or download the model again.")
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 0 < length <= min(_MOST_HEADER_BYTES, size - 8):
                raise damaged
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        end = 0
        numbers = 0
        tensors = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
        for _, tensor in tensors:
            start, stop = tensor["data_offsets"]
            shape = tuple(tensor["shape"])
            if start != end or stop < start or any(not isinstance(one, int) or one < 0 for one in shape):
                raise damaged
            end = stop
            numbers += math.prod(shape)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise damaged from error
    if end != size - 8 - length or not numbers:
        raise damaged
    return tensors


def read_object(file: Path, most: int = _MOST_CONFIG_BYTES) -> dict[str, Any]:
    """Read a JSON object from a file of limited size."""
    try:
        with file.open("rb") as stream:
            content = stream.read(most + 1)
        value = json.loads(content) if len(content) <= most else None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file.name} cannot be read ({error}).", where=str(file)) from error
    if not isinstance(value, dict):
        raise ModelError(f"{file.name} is no JSON object of bearable size.", where=str(file))
    return value


def _has_key(value: Any, key: str) -> bool:
    """Whether a key stands anywhere in a JSON value, however deep."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if key in one:
                return True
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
    return False


def check_kind(model_type: Any, where: str) -> None:
    """Refuse what transformers itself does not know as a causal language model. Imports transformers.

    Raises:
        ModelError: it does not.
    """
    from chat_app.models.transformers_internals import is_known, writes_text

    if not is_known(model_type):
        raise ModelError(f"The kind of model '{str(model_type)[:60]}' is unknown.", where=where)
    if not writes_text(model_type):
        raise ModelError(
            f"A model of the kind '{model_type}' does not write text.", where=where, advice="Use one like GPT-2."
        )


def size_of(config: Mapping[str, Any], *names: str) -> int:
    """The first of these settings that the config has, else 0."""
    return next((int(config[name]) for name in names if config.get(name) is not None), 0)
