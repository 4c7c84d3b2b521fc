"""How many bytes a model's weights take once it is loaded, from what stands in its config.json. Loads nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chat_app.kernels.layout import PREFETCH_BYTES, can_pack, packed_size
from chat_app.models.validation import size_of


def loaded_bytes(config: Mapping[str, Any], parameters: int, precision: str, device: str) -> int:
    """Bytes of the weights.

    Parameters times 4 bytes (float32; "automatic" and "exact", to be safe), 2 (bfloat16, float16), or, for all but the
    embedding, which stays in 2 bytes, 1.02 (8-bit, a scale for each row) or 0.57 (4-bit, a scale for each 64); of a
    packed GPT-2 as `packed_bytes` counts.
    """
    if is_packed(config, precision, device):
        return packed_bytes(config, precision == "8-bit")
    width = size_of(config, "n_embd", "hidden_size", "d_model")
    embedding = min(size_of(config, "vocab_size") * width, parameters)
    share = {"8-bit": 1.02, "4-bit": 0.57}.get(precision)
    if share is not None:
        return int(2 * embedding + share * (parameters - embedding))
    return (4 if precision in ("float32", "automatic", "exact") else 2) * parameters


def is_packed(config: Mapping[str, Any], precision: str, device: str) -> bool:
    """Whether the weights will be packed: those of a GPT-2 on the processor, in 8 bits or bfloat16."""
    if device != "cpu" or precision not in ("8-bit", "bfloat16") or config.get("model_type") != "gpt2":
        return False
    return "quantization_config" not in config and can_pack(config)


def packed_bytes(config: Mapping[str, Any], eight_bits: bool) -> int:
    """Bytes of a packed GPT-2, on the processor.

    Its matrices take 1 byte a number, or in bfloat16 at most 2, with a scale and a bias of 4 for each output. The head
    is one of them, whether or not it is the embedding, which is kept beside it in 2 bytes. Positions are as they were
    read: for 8 bits in 4 bytes, else in 2; norms take 4.
    """
    vocabulary, layers = size_of(config, "vocab_size"), size_of(config, "n_layer")
    matrices, outputs = head_bytes(config, eight_bits), vocabulary
    for out, inputs in _products(config):
        matrices += layers * _matrix_bytes(out, inputs, eight_bits)
        outputs += layers * out
    width = size_of(config, "n_embd")
    positions = size_of(config, "n_positions") * width * (4 if eight_bits else 2)
    floats = 2 * outputs + 2 * width * (2 * layers + 1)
    return matrices + 2 * PREFETCH_BYTES * (1 if eight_bits else 2) + 2 * vocabulary * width + positions + 4 * floats


def head_bytes(config: Mapping[str, Any], eight_bits: bool) -> int:
    """Bytes of the packed head alone: it is packed first, beside all the weights as they were read."""
    return _matrix_bytes(size_of(config, "vocab_size"), size_of(config, "n_embd"), eight_bits)


def _products(config: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Outputs and inputs of a layer's."""
    width = size_of(config, "n_embd")
    inner = size_of(config, "n_inner") or 4 * width
    return [(3 * width, width), (width, width), (inner, width), (width, inner)]


def _matrix_bytes(outputs: int, inputs: int, eight_bits: bool) -> int:
    return packed_size(outputs, inputs) * (1 if eight_bits else 2)
