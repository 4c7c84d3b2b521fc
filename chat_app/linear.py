"""Linear layers as an engine computes them: rows of float32 in, rows out, the weights in the form that a processor
reads fastest.

Writing a reply reads every weight once a token, so what counts is how many bytes that is. Knows no model.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

LARGEST = 126.0  # Of the input of an 8-bit layer.
FINE = 254  # Steps of the fine half in one of the coarse half: it reaches from -127 to 127.
_SMALLEST = 1e-30


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
        return _bytes(self._weight, self._bias)


class PackedLinear:
    """A layer in bfloat16, its weights laid out as the processor's matrix units read them. It keeps a copy.

    Args:
        weight: [out, in].
        bias: [out] or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None):
        self._outputs = weight.shape[0]
        self._bias = None if bias is None else bias.to(torch.bfloat16)
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.to(torch.bfloat16).contiguous(), 8)
        self.memory_bytes = 2 * weight.numel() + _bytes(self._bias)

    def __call__(self, rows: Tensor) -> Tensor:
        """[n, in] -> [n, out] in bfloat16."""
        rows = rows.to(torch.bfloat16)
        result: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._packed, self._bias, "none", [], "")
        return result


class EightBitLinear:
    """A layer whose weights have 8 bits: whole numbers from -127 to 127, and a scale for each output.

    A row of the input is cut into a coarse and a fine half of 8 bits each, so that of the input nearly nothing is lost
    (16 bits keep more than bfloat16 does), and both go through the processor's units for small whole numbers at once:
    for a few rows that costs nothing, as reading the weights takes longer. Sums of whole numbers are exact, so a row's
    result does not depend on the rows beside it.

    Args:
        weight: [out, in], float32.
        bias: [out] or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None):
        numbers, self._scales = quantized(weight)
        # Both halves get the bias, and the fine one counts 1 / FINE.
        self._bias = None if bias is None else bias.float() * (FINE / (FINE + 1))
        self._packed = torch.ops.onednn.qlinear_prepack(numbers, None)
        self._zeros = torch.zeros(len(self._scales), dtype=torch.int64)
        self.memory_bytes = weight.numel() + _bytes(self._scales, self._bias)

    def __call__(self, rows: Tensor) -> Tensor:
        """[n, in], all within -LARGEST and LARGEST -> [n, out] in float32."""
        count, width = rows.shape
        coarse = rows.round()
        halves = torch.empty(2, count, width, dtype=torch.int8)
        upper, lower = halves.unbind(0)
        upper.copy_(coarse)
        lower.copy_(torch.sub(rows, coarse, out=coarse).mul_(FINE))
        both = self._product(halves.view(2 * count, width)).view(2, count, -1)
        result, fine = both.unbind(0)
        return result.add_(fine, alpha=1 / FINE)

    def _product(self, rows: Tensor) -> Tensor:
        """int8 [n, in] -> float32 [n, out], scaled by the weights' scales."""
        result: Tensor = torch.ops.onednn.qlinear_pointwise(
            rows, 1.0, 0, self._packed, self._scales, self._zeros, self._bias, 1.0, 0, torch.float32, "none", [], ""
        )
        return result

    @staticmethod
    def works() -> bool:
        """Whether this processor and this torch compute it, and exactly: old ones round within the sum."""
        generator = torch.Generator().manual_seed(0)
        weight = torch.randint(-1, 2, (48, 192), generator=generator).float() * 127
        try:
            layer = EightBitLinear(weight, None)
            for count in (1, 2, 17):
                rows = torch.full((count, 192), 127, dtype=torch.int8)
                rows[:, ::3] = -127
                if not torch.equal(layer._product(rows), rows.float() @ weight.T):
                    return False
        except (RuntimeError, NotImplementedError, AttributeError):
            return False
        return True


class WeightOnlyLinear:
    """A layer whose weights have 8 bits, for processors that EightBitLinear does not work on.

    Args:
        weight: [out, in], float32.
        bias: [out] or None.
    """

    FEW = 4  # Up to so many rows torch's own kernel is faster than products in bfloat16.

    def __init__(self, weight: Tensor, bias: Tensor | None):
        self._numbers, self._scales = quantized(weight)
        self._bias = torch.zeros_like(self._scales) if bias is None else bias.float()
        self._half_scales = self._scales.to(torch.bfloat16)
        self.memory_bytes = weight.numel() + _bytes(self._scales, self._half_scales, self._bias)

    def __call__(self, rows: Tensor) -> Tensor:
        """[n, in], of any float type -> [n, out] in float32."""
        if rows.shape[0] <= self.FEW:
            result = torch._weight_int8pack_mm(rows.to(torch.bfloat16), self._numbers, self._half_scales)
            return result.float().add_(self._bias)
        product = functional.linear(rows.to(torch.bfloat16), self._numbers.to(torch.bfloat16))
        return torch.addcmul(self._bias, product, self._scales)


def quantized(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers from -127 to 127 (int8 [out, in]) and scales (float32 [out]) whose product is nearly `weight`."""
    weight = weight.float()
    scales = weight.abs().amax(1).clamp_min_(_SMALLEST).div_(127)
    return (weight / scales[:, None]).round_().to(torch.int8).contiguous(), scales


def eight_bit_layer() -> type[EightBitLinear] | type[WeightOnlyLinear]:
    """The kind of 8-bit layer for this processor."""
    return EightBitLinear if EightBitLinear.works() else WeightOnlyLinear


def packing_works() -> bool:
    """Whether this processor and this torch can compute a PackedLinear."""
    try:
        return bool(torch.isfinite(PackedLinear(torch.ones(32, 32), torch.ones(32))(torch.ones(2, 32))).all())
    except (RuntimeError, NotImplementedError, AttributeError):
        return False


def _bytes(*tensors: Any) -> int:
    return sum(one.numel() * one.element_size() for one in tensors if one is not None)
