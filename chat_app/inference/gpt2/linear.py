"""Linear layers of GPT-2 on shared weights: plain, in 8 bits (int8), and in 4 bits (bitsandbytes). Knows no model."""

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

_DIGIT = 127  # The largest int8 in use; the range is symmetric.
_FINER = 2 * _DIGIT  # The second digit divides a unit of the first, whose rounding error is at most 1/2.
_SMALLEST = 1e-30  # The least divisor: a row of zeros stays zero.


class Linear(Protocol):
    """x W^T + b for rows [n, in]; returns [n, out] in float32 or the layer's own dtype."""

    def __call__(self, rows: Tensor) -> Tensor:
        """Compute."""

    @property
    def memory_bytes(self) -> int:
        """The size of its tensors."""


class PlainLinear:
    """A layer on unquantized weights, which it shares with the model.

    Args:
        weight: [in, out], of any float type, on any device.
        bias: [out], of the same type, or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None):
        self._weight, self._bias = weight, bias

    def __call__(self, rows: Tensor) -> Tensor:
        """[n, in] -> [n, out] in the dtype of the weights."""
        rows = rows.to(self._weight.dtype)
        return rows @ self._weight if self._bias is None else torch.addmm(self._bias, rows, self._weight)

    @property
    def memory_bytes(self) -> int:
        """The size of its tensors."""
        return _bytes_of(self._weight, self._bias)


class EightBitLinear:
    """A layer on the int8 weights of a bitsandbytes layer, which it shares.

    The weights are those of LLM.int8() (Dettmers et al. 2022, https://arxiv.org/abs/2208.07339), but activations are
    quantized in another way. There, outlier columns are multiplied separately, so that the result of a row depends on
    the other rows of the batch, and a GPU has to wait until the processor knows how many columns there are. Here each
    row is written in two int8 digits, and one int8 product computes both. A row gives the same bits alone and in a
    batch, and the work does not depend on its values. The error is 1/64516 of the row's largest value.

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
        """The size of its tensors."""
        return _bytes_of(self._weight, self._scales, self._bias)


class FourBitLinear:
    """A 4-bit layer that bitsandbytes computes: each row by itself, up to the rounding of its dtype.

    Args:
        layer: a Linear4bit.
    """

    def __init__(self, layer: Any):
        self._layer = layer

    def __call__(self, rows: Tensor) -> Tensor:
        """[n, in] -> [n, out] in the layer's compute dtype."""
        result: Tensor = self._layer(rows.to(self._layer.compute_dtype or rows.dtype))
        return result

    @property
    def memory_bytes(self) -> int:
        """The size of its tensors, the scales of the blocks included."""
        return _bytes_of(self._layer.weight, self._layer.bias, *four_bit_scales(self._layer))


def linear_of(module: Any) -> Linear | None:
    """A layer on the weights of a module, which it shares; None for other kinds of modules, such as PEFT's."""
    if type(module) is Conv1D:
        return PlainLinear(module.weight.detach(), module.bias.detach())
    if type(module) is torch.nn.Linear:
        return PlainLinear(module.weight.detach().T, None if module.bias is None else module.bias.detach())
    if is_four_bit(module):
        return FourBitLinear(module)
    return EightBitLinear(module) if is_eight_bit(module) else None


def _bytes_of(*tensors: Tensor | None) -> int:
    return sum(one.numel() * one.element_size() for one in tensors if one is not None)
