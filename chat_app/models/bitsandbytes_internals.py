"""The internals of bitsandbytes, beyond its documented interface, that this project depends on.

It has tests that carry the mark `dependencies`, which `.ci/run` runs with the oldest and the newest version that
pyproject.toml allows. bitsandbytes is loaded only where there is a module of it, or a product to compute.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_LOGGER_OF_PRODUCTS = "bitsandbytes.autograd._functions"
_FAST_LAYOUT = "support_avx512bf16_for_cpu"


def is_eight_bit(module: Any) -> bool:
    """Whether a module is a linear layer that holds 8 bits. PEFT gives its own classes the same names."""
    if not _is_of_bitsandbytes(module):
        return False
    from bitsandbytes.nn import Linear8bitLt

    return type(module) is Linear8bitLt and module.weight.dtype == torch.int8


def is_four_bit(module: Any) -> bool:
    """Whether a module is a linear layer in 4 bits."""
    if not _is_of_bitsandbytes(module):
        return False
    from bitsandbytes.nn import Linear4bit

    return type(module) is Linear4bit


def eight_bit_scales(layer: Any) -> Tensor:
    """The scales of an 8-bit layer's rows, [out]."""
    scales: Tensor = layer.weight.SCB if layer.state.SCB is None else layer.state.SCB  # It moves at the first use.
    return scales


def eight_bit_product() -> Callable[[Tensor, Tensor], Tensor]:
    """The product of int8 [n, in] and int8 [out, in], in int32 [n, out]."""
    from bitsandbytes.functional import int8_linear_matmul

    product: Callable[[Tensor, Tensor], Tensor] = int8_linear_matmul
    return product


def four_bit_scales(layer: Any) -> list[Tensor]:
    """The tensors that a layer in 4 bits has for its blocks."""
    return [one for one in layer.weight.quant_state.as_dict().values() if isinstance(one, Tensor)]


def keep_differentiable(module: Any) -> None:
    """Keep an evaluation from converting 4-bit weights to a layout through which no gradient can pass."""
    if hasattr(module, _FAST_LAYOUT):
        setattr(module, _FAST_LAYOUT, False)


def silence_products() -> None:
    """Silence the warning of 8-bit layers about a cast with every product."""
    logging.getLogger(_LOGGER_OF_PRODUCTS).setLevel(logging.ERROR)


def _is_of_bitsandbytes(module: Any) -> bool:
    return type(module).__module__.startswith("bitsandbytes.")
