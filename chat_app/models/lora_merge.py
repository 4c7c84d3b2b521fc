"""Merges a LoRA adapter into its base model: W + scale * B A (Hu et al. 2021), written as an ordinary model folder.

The base is read from its files and written a tensor at a time, so that only one tensor is in memory, however large the
model is. An adapter that was trained on a quantized model is merged into the weights before quantization.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from chat_app.config.paths import Paths
from chat_app.errors import ModelError
from chat_app.models.building import building
from chat_app.models.lora_files import NEW_ROWS, PREFIX, AdapterFiles
from chat_app.models.saving import finish_config, generation_config, replace_folder, write_tokenizer_files
from chat_app.models.tokenizer import load_without_weights
from chat_app.models.validation import weight_files
from chat_app.tokenization.chat_formats import get_format
from chat_app.tokenization.encoder import Encoder

# Names of dtypes in a safetensors file.
_DTYPES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.bool: "BOOL",
}
_NUMBERS = {name: dtype for dtype, name in _DTYPES.items()}


@dataclass(frozen=True)
class _Source:
    """Where a tensor of the merged model comes from, and its new shape and dtype."""

    file: Path
    key: str
    shape: tuple[int, ...]
    dtype: torch.dtype


def write_merged(
    adapter: AdapterFiles, base: Path, out: Path, encoder: Encoder, card: str = "", precision: str | None = None
) -> None:
    """Write the merged model into a folder, replacing what is there once everything is written.

    Args:
        base: the folder of the base model, in safetensors.
        encoder: of the adapter.
        precision: "float32", "bfloat16" or "float16" for the file; None keeps the base's.

    Raises:
        ModelError: the adapter does not fit the base.
    """
    rows = len(encoder.tokenizer)
    model = _build_meta_model(base, rows)
    sources = _sources(model, base, precision)
    deltas = _LoraDeltas(adapter, model)
    missing = deltas.modules - {name.removesuffix(".weight") for name in sources}
    if missing:
        raise ModelError(f"The adapter does not fit the model '{adapter.base}': it has no {min(missing)}.")

    def write(folder: Path) -> None:
        model.config.save_pretrained(folder)
        generation_config(encoder).save_pretrained(folder)
        finish_config(folder, precision)
        write_tokenizer_files(folder, encoder, card)
        _write_tensors(folder / "model.safetensors", sources, deltas)

    replace_folder(out, write)


def _build_meta_model(base: Path, rows: int) -> Any:
    """The model on the device "meta", with at least `rows` token embeddings."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    config.vocab_size = max(config.vocab_size, rows)
    with building(), torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def _sources(model: Any, base: Path, precision: str | None) -> dict[str, _Source]:
    """For each tensor of the model, where it is in the base's files.

    Some files leave out the prefix of the inner model, some hold causal masks, and some hold tied tensors twice.
    """
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    outer, inner = model.get_output_embeddings(), model.get_input_embeddings()
    if outer is not None and outer.weight is inner.weight:
        tied = next(name for name, module in model.named_modules() if module is outer)
        shapes.pop(f"{tied}.weight", None)
    prefix = f"{model.base_model_prefix}."
    found: dict[str, _Source] = {}
    for file in weight_files(base):
        with safe_open(file, "pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118  (it is no dictionary)
                name = key if key in shapes else prefix + key
                if name in shapes:
                    number = _NUMBERS.get(tensors.get_slice(key).get_dtype())
                    if number is None:
                        raise ModelError("The base model's numbers are of an unknown kind.", where=str(file))
                    if precision and number.is_floating_point:
                        number = getattr(torch, precision)
                    found[name] = _Source(file, key, shapes[name], number)
    lost = shapes.keys() - found.keys()
    if lost:
        raise ModelError(f"The base model's files lack {min(lost)}.", where=str(base), advice="Copy it again.")
    return found


class _LoraDeltas:
    """Adds an adapter to the tensors of its base model."""

    def __init__(self, adapter: AdapterFiles, model: Any):
        from chat_app.models.transformers_internals import Conv1D

        self.adapter = adapter
        self.modules = set(adapter.modules)
        # A Conv1D holds its weights transposed: [inputs, outputs].
        self.transposed = {name for name, module in model.named_modules() if isinstance(module, Conv1D)}

    def apply(self, name: str, base: Tensor, shape: tuple[int, ...]) -> Tensor:
        """A tensor of the merged model, in float32 where the adapter changes it."""
        module = name.removesuffix(".weight")
        with safe_open(self.adapter.weights, "pt") as tensors:
            rows = f"{PREFIX}{module}{NEW_ROWS}"
            new_rows = tensors.get_tensor(rows).float() if rows in tensors.keys() else None  # noqa: SIM118
            if module in self.modules and name.endswith(".weight"):
                low = tensors.get_tensor(f"{PREFIX}{module}.lora_A.weight").float()  # [rank, inputs]
                high = tensors.get_tensor(f"{PREFIX}{module}.lora_B.weight").float()  # [outputs, rank]
                delta = self.adapter.scale * (high @ low)  # [outputs, inputs]
                delta = delta.T if module in self.transposed else delta
                if delta.shape != base.shape:
                    raise ModelError("The adapter does not fit the base model: its matrices have other sizes.")
                base = base.float() + delta
        if base.shape != shape or new_rows is not None:
            base = _append_rows(base.float(), shape)
            if new_rows is not None:
                base[list(self.adapter.tokens)] = new_rows
        return base


def _append_rows(base: Tensor, shape: tuple[int, ...]) -> Tensor:
    """An embedding with rows for new tokens, each the mean of the old ones."""
    if base.ndim != len(shape) or base.shape[1:] != torch.Size(shape[1:]) or base.shape[0] > shape[0]:
        raise ModelError("The adapter does not fit the base model: its tables have other sizes.")
    new = base.mean(0, keepdim=True).expand(shape[0] - base.shape[0], *base.shape[1:])
    return torch.cat([base, new])


def _write_tensors(path: Path, sources: dict[str, _Source], deltas: _LoraDeltas) -> None:
    """Write a safetensors file: 8 bytes with the header's length, the header in JSON, then the tensors."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, source in sources.items():
        start, end = end, end + torch.Size(source.shape).numel() * source.dtype.itemsize
        header[name] = {"dtype": _DTYPES[source.dtype], "shape": list(source.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # Tensors begin at a multiple of 8 bytes.
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for value in _merge_tensors(sources, deltas):
            file.write(value.reshape(-1).view(torch.uint8).numpy().data)


def _merge_tensors(sources: dict[str, _Source], deltas: _LoraDeltas) -> Iterator[Tensor]:
    """The merged tensors, one at a time."""
    for name, source in sources.items():
        with safe_open(source.file, "pt") as tensors:
            base = tensors.get_tensor(source.key)
        yield deltas.apply(name, base, source.shape).to(source.dtype).contiguous()


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
    tokenizer, files, detected_format = load_without_weights(str(adapter), paths)
    if files.adapter is None or files.folder is None:
        raise ModelError("There is no adapter to merge.", where=str(adapter), advice="The model is whole already.")
    encoder = Encoder(tokenizer, get_format(detected_format.format), files.window)
    own = files.adapter.folder / "README.md"
    text = card or (own.read_text(encoding="utf-8") if own.is_file() else "")
    write_merged(files.adapter, files.folder, out, encoder, text, precision)
