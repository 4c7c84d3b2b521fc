"""Linear layers as an engine computes them: rows in, rows out. Knows no model."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


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
        return sum(one.numel() * one.element_size() for one in (self._weight, self._bias) if one is not None)
