"""Reads the tensors of a PyTorch file (`pytorch_model.bin`, `.pt`, `.ckpt`) and gives them the names of transformers.

Such a file is a pickle. Only tensors, plain values and a few settings' classes are taken from it; everything else in it
is refused unread. `weight_import` calls this in a process with limits.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chat_app.errors import ModelError
from chat_app.models.validation import MASKS

_MOST_TENSORS = 100_000
# Where trainers put the weights beside an optimizer's state and settings.
_PLACES = ("state_dict", "model_state_dict", "model", "module", "net", "weights")
_SETTINGS = (
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
)
_BLOCKED = re.compile(r"(?:GLOBAL|global|type|class) ([\w.]+)")
_TABLE = "wte.weight"
HEAD = "lm_head.weight"
_MATRICES = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")


class _Settings(dict[str, Any]):
    """Stands for a trainer's settings, which are read and not used."""


def read_state(file: Path) -> dict[str, Tensor]:
    """The tensors of the model in a PyTorch file, by the names that it gives them.

    Raises:
        ModelError: it is damaged, holds something else than tensors and settings, or no model.
    """
    # Rebuilding these runs no code of the file: they hold values.
    scalar = np.float64(0).__reduce__()[0]  # It makes numbers of numpy, such as a loss.
    harmless: list[Any] = [argparse.Namespace, np.dtype, *_dtype_classes()]
    harmless += [(scalar, f"numpy.{module}.multiarray.scalar") for module in ("core", "_core")]
    harmless += [(_Settings, name) for name in _SETTINGS]
    try:
        with torch.serialization.safe_globals(harmless):
            found = _load(file)
    except MemoryError:
        raise
    except Exception as error:  # A pickle may raise anything.
        blocked = _BLOCKED.search(str(error))
        if blocked:
            raise ModelError(
                f"It holds the Python object {blocked[1][:100]} beside the weights, which could run a program, so it "
                "was not read.",
                where=file.name,
                advice="Save the weights alone: torch.save(model.state_dict(), FILE).",
            ) from error
        raise ModelError(
            "It is no PyTorch file, or it is damaged.", where=file.name, advice="Copy or download it again."
        ) from error
    state = _find_state(found)
    if not state:
        raise ModelError("There is no model's state in it.", where=file.name, advice="Give the file of the weights.")
    _check_sizes(state, file)
    return state


def _dtype_classes() -> Iterable[type]:
    return [type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")]


def _load(file: Path) -> Any:
    with file.open("rb") as stream:
        is_zip = stream.read(4) == b"PK\x03\x04"  # Before torch 1.6 the format could not be mapped.
    return torch.load(file, map_location="cpu", weights_only=True, mmap=is_zip)


def _find_state(found: Any) -> dict[str, Tensor]:
    """The tensors in what was read: at the top, or in one of the places where trainers put them."""
    if not isinstance(found, Mapping):
        return {}
    tensors = {str(name)[:300]: one for name, one in found.items() if isinstance(one, Tensor)}
    if tensors:
        return tensors
    for place in _PLACES:
        if inner := _find_state(found.get(place)):
            return inner
    return {}


def _check_sizes(state: Mapping[str, Tensor], file: Path) -> None:
    """A tensor may be a view that is far larger than what is stored: it must fit into the file."""
    size = file.stat().st_size
    if len(state) > _MOST_TENSORS or any(one.numel() * one.element_size() > size for one in state.values()):
        raise ModelError("Its tensors are larger than the file.", where=file.name, advice="Copy it again.")
    if any(one.layout != torch.strided or one.is_quantized or one.is_complex() for one in state.values()):
        raise ModelError(
            "Some of its tensors are sparse, quantized or complex.", where=file.name, advice="Save them as float32."
        )


def find_gpt2_prefix(state: Mapping[str, Tensor]) -> str | None:
    """What stands before the names of a GPT-2, such as "model.transformer."; None if it is none."""
    found = [name for name in state if name.endswith(_TABLE)]
    if len(found) != 1 or state[found[0]].dim() != 2:
        return None
    prefix = found[0].removesuffix(_TABLE)
    return prefix if f"{prefix}h.0.attn.c_attn.weight" in state else None


def rename_gpt2(state: Mapping[str, Tensor], prefix: str, said: list[str]) -> dict[str, Tensor]:
    """The tensors of a GPT-2 with the names and the layout of transformers. What was done is added to `said`."""
    renamed = {
        "transformer." + name.removeprefix(prefix): one
        for name, one in state.items()
        if name.startswith(prefix) and not name.endswith((*MASKS, HEAD))
    }
    if prefix != "transformer.":
        said.append(f"The names of the weights began with '{prefix}' and were put right.")
    fused = renamed["transformer.h.0.attn.c_attn.weight"]
    if fused.dim() == 2 and fused.shape[0] > fused.shape[1]:  # As in nanoGPT: torch's Linear, not OpenAI's Conv1D.
        said.append("The matrices of the layers were transposed, as GPT-2's are stored.")
        renamed = {name: one.t() if name.endswith(_MATRICES) else one for name, one in renamed.items()}
    head = next((one for name, one in state.items() if name.endswith(HEAD)), None)
    if head is not None and not torch.equal(head, renamed[f"transformer.{_TABLE}"]):
        renamed[HEAD] = head
    return renamed


def rename_by_config(
    state: Mapping[str, Tensor], names: Iterable[str], base: str, said: list[str]
) -> dict[str, Tensor]:
    """The tensors by the names in `names`, whatever prefix they have in the file.

    Args:
        names: of the parameters of the model that config.json describes.
        base: transformers' name for the model without its head, such as "model".
    """
    wanted = list(names)
    best: dict[str, Tensor] = {}
    used = ""
    first = wanted[0]
    endings = (first, first.removeprefix(f"{base}."))
    prefixes = {name.removesuffix(one) for one in endings for name in state if name.endswith(one)}
    for prefix in sorted(prefixes, key=len):
        fitting = {}
        for one in wanted:
            for name in (prefix + one, prefix + one.removeprefix(f"{base}.")):
                if name in state:
                    fitting[one] = state[name]
        if len(fitting) > len(best):
            best, used = fitting, prefix
    if used:
        said.append(f"The names of the weights began with '{used}' and were put right.")
    return best


def gpt2_config(state: Mapping[str, Tensor], said: list[str]) -> dict[str, Any]:
    """The config of a GPT-2, from the shapes of its tensors. The number of heads, which they do not tell, is guessed.

    Args:
        state: with the names of transformers.
    """
    vocabulary, width = state[f"transformer.{_TABLE}"].shape
    layers = {int(found[1]) for name in state if (found := re.match(r"transformer\.h\.(\d{1,4})\.", name))}
    positions = state.get("transformer.wpe.weight")
    inner = state.get("transformer.h.0.mlp.c_fc.weight")
    heads = next(one for one in range(max(width // 64, 1), 0, -1) if width % one == 0)
    said.append(
        f"There was no config.json, so one was made from the weights: GPT-2 with {len(layers)} layers, width {width}. "
        f"They do not tell the number of attention heads; {heads} was guessed (the width / 64). "
        "If replies make no sense, correct n_head in its config.json."
    )
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": vocabulary,
        "n_embd": width,
        "n_layer": len(layers),
        "n_head": heads,
        "n_positions": positions.shape[0] if positions is not None else 1024,
        "n_inner": inner.shape[1] if inner is not None and inner.dim() == 2 and inner.shape[1] != 4 * width else None,
        "bos_token_id": min(50256, vocabulary - 1),
        "eos_token_id": min(50256, vocabulary - 1),
    }
