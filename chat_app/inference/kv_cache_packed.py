"""The KV cache in the layout of packed weights, so that kernels multiply with keys and values as with those. Torch can
read and write it too. Knows no requests and no ids.
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
    """Keys and values of bfloat16 on the processor, laid out as `kernel_args.KV_SLOT` says.

    Args:
        layers, heads, width: of the model; width is a head's.
        window: the most tokens it will have.
    """

    def __init__(self, layers: int, heads: int, width: int, window: int):
        super().__init__(layers, heads, width, round_up(window, TILE_N), torch.bfloat16)
        self._layers, self._heads, self._width = layers, heads, width
        self._data = torch.empty(self._shape_for(0), dtype=torch.bfloat16, device="cpu")

    def slots(self, more: int) -> list[tuple[int, int, int]]:
        """For the kernel, which appends the next `more` tokens itself: a KV_SLOT for each of them."""
        self.reserve(more)
        capacity = round_up(self.length + more, TILE_N)
        address = checked_address(self._data, torch.bfloat16, *self._shape_for(capacity), line=True)
        return [(address, self.capacity, self.length + at) for at in range(more)]

    def append(self, layer: int, new: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the keys and values of the next tokens, [2, heads, tokens, width], for which there is room.

        Returns:
            All keys, the new ones included, and all values: each [1, heads, length + tokens, width].
        """
        keys, values = self._keys[layer], self._values[layer]
        end = self.length + new.shape[2]
        at = torch.arange(self.length, end, dtype=torch.long, device="cpu")
        filled = functional.pad(new.to(torch.bfloat16), (0, -self._width % TILE_N))
        by_token = filled.transpose(1, 2)  # [2, tokens, heads, width]
        keys[:, at // TILE_N, :, at % TILE_N] = by_token[0].unflatten(2, (-1, 2))
        values[:, :, at // 2, :, at % 2] = by_token[1].unflatten(2, (-1, TILE_N))
        return self._plain_keys(keys, end), self._plain_values(values, end)

    def _plain_keys(self, tiles: Tensor, end: int) -> Tensor:
        words = tiles.view(torch.int32)[
            :, : round_up(end, TILE_N) // TILE_N, ..., 0
        ]  # Moved as they are: half as many.
        rows = words.transpose(2, 3).contiguous().view(torch.bfloat16)  # [heads, tiles, TILE_N, width]
        return rows.flatten(1, 2)[None, :, :end, : self._width]

    def _plain_values(self, tiles: Tensor, end: int) -> Tensor:
        words = tiles.view(torch.int32)[:, :, : round_up(end, 2) // 2, :, 0]
        rows = words.transpose(1, 2).flatten(2)  # [heads, pairs, width]
        pairs = torch.stack((rows.to(torch.int16), (rows >> 16).to(torch.int16)), 2)  # The lower half is the first.
        return pairs.flatten(1, 2).view(torch.bfloat16)[None, :, :end, : self._width]

    def _shape_for(self, capacity: int) -> tuple[int, int, int, int, int]:
        return self._layers, self._heads, 2, capacity, round_up(self._width, TILE_N)

    @property
    def _keys(self) -> Tensor:
        return _keys_in(self._data)

    @property
    def _values(self) -> Tensor:
        return _values_in(self._data)

    def _reallocate(self, capacity: int, length: int) -> Tensor:
        """The first `length` tokens in a new tensor."""
        shape = self._shape_for(round_up(capacity, TILE_N))
        numbers = torch.from_numpy(huge_page_zeros(math.prod(shape), "i2")).view(torch.bfloat16).view(shape)
        if length:
            tiles, pairs = round_up(length, TILE_N) // TILE_N, round_up(length, 2) // 2
            _copy(self._keys[:, :, :tiles], _keys_in(numbers)[:, :, :tiles])
            _copy(self._values[:, :, :, :pairs], _values_in(numbers)[:, :, :, :pairs])
        return numbers


def _copy(source: Tensor, target: Tensor) -> None:
    """By numpy: torch would share it among threads, which then wait for more with all that their processors can do."""
    np.copyto(target.view(torch.int16).numpy(), source.view(torch.int16).numpy())


def _keys_in(numbers: Tensor) -> Tensor:
    """[layers, heads, tiles, pairs of inputs, outputs (tokens), 2]."""
    capacity = numbers.shape[3]
    keys: Tensor = numbers[:, :, 0].flatten(2).unflatten(2, (capacity // TILE_N, -1, TILE_N, 2))
    return keys


def _values_in(numbers: Tensor) -> Tensor:
    """[layers, heads, tiles, pairs of inputs (tokens), outputs, 2]."""
    capacity = numbers.shape[3]
    values: Tensor = numbers[:, :, 1].flatten(2).unflatten(2, (-1, capacity // 2, TILE_N, 2))
    return values
