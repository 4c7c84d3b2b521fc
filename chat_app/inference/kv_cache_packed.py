"""The packed KV cache: in the layout of packed weights, so that kernels multiply with keys and values as with those.
Torch can read and write it too. Knows no requests and no token ids.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from chat_app.inference.kv_cache import ContiguousKVCache
from chat_app.kernels.layout import TILE_N, round_up
from chat_app.kernels.packed_weights import checked_address, huge_page_zeros


class PackedKVCache(ContiguousKVCache):
    """A KV cache of bfloat16 on the processor, laid out as `kernel_args.KV_SLOT` says.

    Args:
        layers, heads, width: of the model; width is a head's.
        window: the most tokens it will hold.
    """

    def __init__(self, layers: int, heads: int, width: int, window: int):
        super().__init__(layers, heads, width, round_up(window, TILE_N), torch.bfloat16)
        self._layers, self._heads, self._width = layers, heads, width
        self._data = torch.empty(self._shape_for(0), dtype=torch.bfloat16, device="cpu")

    def slots(self, count: int) -> list[tuple[int, int, int]]:
        """For the kernel, which appends the next `count` tokens itself: a KV_SLOT for each of them."""
        self.reserve(count)
        needed = round_up(self.length + count, TILE_N)
        address = checked_address(self._data, torch.bfloat16, *self._shape_for(needed), line=True)
        return [(address, self.capacity, self.length + offset) for offset in range(count)]

    def append(self, layer: int, new: Tensor) -> tuple[Tensor, Tensor]:
        """Write the keys and values of the next tokens of a layer, after `reserve`; `length` stays.

        Args:
            new: keys and values, [2, heads, tokens, width].

        Returns:
            All keys, the new ones included, and all values: each [1, heads, length + tokens, width].
        """
        keys, values = self._keys[layer], self._values[layer]
        end = self.length + new.shape[2]
        positions = torch.arange(self.length, end, dtype=torch.long, device="cpu")
        padded = functional.pad(new.to(torch.bfloat16), (0, -self._width % TILE_N))
        by_token = padded.transpose(1, 2)  # [2, tokens, heads, width]
        keys[:, positions // TILE_N, :, positions % TILE_N] = by_token[0].unflatten(2, (-1, 2))
        values[:, :, positions // 2, :, positions % 2] = by_token[1].unflatten(2, (-1, TILE_N))
        return self._unpack_keys(keys, end), self._unpack_values(values, end)

    def _unpack_keys(self, tiles: Tensor, end: int) -> Tensor:
        used = round_up(end, TILE_N) // TILE_N
        words = tiles.view(torch.int32)[:, :used, ..., 0]  # Pairs of bfloat16 move as one int32.
        rows = words.transpose(2, 3).contiguous().view(torch.bfloat16)  # [heads, tiles, TILE_N, width]
        return rows.flatten(1, 2)[None, :, :end, : self._width]

    def _unpack_values(self, tiles: Tensor, end: int) -> Tensor:
        words = tiles.view(torch.int32)[:, :, : round_up(end, 2) // 2, :, 0]
        rows = words.transpose(1, 2).flatten(2)  # [heads, pairs, width]
        pairs = torch.stack((rows.to(torch.int16), (rows >> 16).to(torch.int16)), 2)  # The lower half is the first.
        return pairs.flatten(1, 2).view(torch.bfloat16)[None, :, :end, : self._width]

    def _shape_for(self, capacity: int) -> tuple[int, int, int, int, int]:
        return self._layers, self._heads, 2, capacity, round_up(self._width, TILE_N)

    @property
    def _keys(self) -> Tensor:
        return _view_keys(self._data)

    @property
    def _values(self) -> Tensor:
        return _view_values(self._data)

    def _reallocate(self, capacity: int, length: int) -> Tensor:
        """A new tensor with the first `length` tokens."""
        shape = self._shape_for(round_up(capacity, TILE_N))
        data = torch.from_numpy(huge_page_zeros(math.prod(shape), "i2")).view(torch.bfloat16).view(shape)
        if length:
            tiles, pairs = round_up(length, TILE_N) // TILE_N, round_up(length, 2) // 2
            _copy(self._keys[:, :, :tiles], _view_keys(data)[:, :, :tiles])
            _copy(self._values[:, :, :, :pairs], _view_values(data)[:, :, :, :pairs])
        return data


def _copy(source: Tensor, target: Tensor) -> None:
    """Copy by numpy: torch would use its threads, which then spin and wait for more work at the processors' expense."""
    np.copyto(target.view(torch.int16).numpy(), source.view(torch.int16).numpy())


def _view_keys(data: Tensor) -> Tensor:
    """[layers, heads, tiles, pairs of inputs, outputs (tokens), 2]."""
    capacity = data.shape[3]
    keys: Tensor = data[:, :, 0].flatten(2).unflatten(2, (capacity // TILE_N, -1, TILE_N, 2))
    return keys


def _view_values(data: Tensor) -> Tensor:
    """[layers, heads, tiles, pairs of inputs (tokens), outputs, 2]."""
    capacity = data.shape[3]
    values: Tensor = data[:, :, 1].flatten(2).unflatten(2, (-1, capacity // 2, TILE_N, 2))
    return values
