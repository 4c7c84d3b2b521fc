"""Linear layers as an engine computes them: rows in, rows out. Knows no model."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from chat_app.models.bitsandbytes_internals import (
    eight_bit_product,
    eight_bit_scales,
    four_bit_scales,
    is_eight_bit,
    is_four_bit,
)
from chat_app.models.transformers_internals import Conv1D

_DIGIT = 127  # The largest of the 8-bit numbers; they are symmetric.
_FINER = 2 * _DIGIT  # What one unit of a first digit is divided into for the second, which is rounding: +- 1/2.
_SMALLEST = 1e-30  # Of what is divided by: a row of zeros stays one.


class Linear(Protocol):
    """x W^T + b for rows [n, in]; gives [n, out] in float32 or the layer's own type."""

    def __call__(self, rows: Tensor) -> Tensor:
        """Compute."""

    @property
    def memory_bytes(self) -> int:
        """What its numbers take."""


class PlainLinear:
    """A layer on weights as they are, which it shares with their owner.

    Args:
        weight: [in, out], of any float type, on any device.
        bias: [out], of the same type, or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None):
        self._weight, self._bias = weight, bias

    def __call__(self, rows: Tensor) -> Tensor:
        """[n, in] -> [n, out] in the type of the weights."""
        rows = rows.to(self._weight.dtype)
        return rows @ self._weight if self._bias is None else torch.addmm(self._bias, rows, self._weight)

    @property
    def memory_bytes(self) -> int:
        """What its numbers take."""
        return _bytes_of(self._weight, self._bias)


class EightBitLinear:
    """A layer whose weights bitsandbytes keeps in 8 bits, which it shares with that.

    The weights are those of LLM.int8() (Dettmers et al. 2022, https://arxiv.org/abs/2208.07339), the rows are not
    treated as there: columns in which any row has a number beyond 6 are multiplied apart, so that what a row gives
    depends on the rows beside it, and a GPU waits until the processor knows how many columns those are. Here each row
    is written in two digits of 8 bits, and both go through one product of whole numbers. A row gives the same bits
    alone and in company, and no work depends on what stands in it. It is off by 1/64516 of its largest number.

    Args:
        layer: a Linear8bitLt that holds 8 bits.
    """

    def __init__(self, layer: Any):
        self._product = eight_bit_product()
        self._weight, self._scales = layer.weight.data, eight_bit_scales(layer)  # [out, in] and [out]
        self._bias = None if layer.bias is None else layer.bias.detach()

    def __call__(self, rows: Tensor) -> Tensor:
        """[n, in] -> [n, out] in float32."""
        rows = rows.float()
        largest = torch.linalg.vector_norm(rows, float("inf"), dim=1, keepdim=True).clamp_min_(_SMALLEST)
        scaled = rows * (_DIGIT / largest)
        first = scaled.round()
        second = scaled.sub_(first).mul_(_FINER).round_()
        products = self._product(torch.cat((first, second)).to(torch.int8), self._weight).float()  # [2n, out]
        summed = torch.add(*products.chunk(2), alpha=1 / _FINER)
        result = summed.mul_(largest / _DIGIT**2).mul_(self._scales)
        return result if self._bias is None else result.add_(self._bias)

    @property
    def memory_bytes(self) -> int:
        """What its numbers take."""
        return _bytes_of(self._weight, self._scales, self._bias)


class FourBitLinear:
    """A layer that bitsandbytes keeps in 4 bits and computes: each row by itself, up to the rounding of its type.

    Args:
        layer: a Linear4bit.
    """

    def __init__(self, layer: Any):
        self._layer = layer

    def __call__(self, rows: Tensor) -> Tensor:
        """[n, in] -> [n, out] in the type that the layer computes in."""
        result: Tensor = self._layer(rows.to(self._layer.compute_dtype or rows.dtype))
        return result

    @property
    def memory_bytes(self) -> int:
        """What its numbers take, the scales of the blocks included."""
        return _bytes_of(self._layer.weight, self._layer.bias, *four_bit_scales(self._layer))


def linear_of(module: Any) -> Linear | None:
    """A layer on the weights of a module, which it shares; None if the module is of another kind, such as PEFT's."""
    if type(module) is Conv1D:
        return PlainLinear(module.weight.detach(), module.bias.detach())
    if type(module) is torch.nn.Linear:
        return PlainLinear(module.weight.detach().T, None if module.bias is None else module.bias.detach())
    if is_four_bit(module):
        return FourBitLinear(module)
    return EightBitLinear(module) if is_eight_bit(module) else None


def _bytes_of(*tensors: Tensor | None) -> int:
    return sum(one.numel() * one.element_size() for one in tensors if one is not None)
