"""What a model remembers of the tokens it has read, in tiles as its weights are: the compiled step multiplies with keys
and values as with those. Torch can read and write it too. Knows no requests and no ids.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from chat_app.large_memory import zeros_in_large_pages
from chat_app.tile_shape import LANES, up

SMALLEST_ROOM = 2 * LANES


class TiledKeyValues:
    """Keys and values of bfloat16 on the processor, laid out as `tile_shape.CALL` says.

    Args:
        layers, heads, width: of the model; width is a head's.
        window: the most tokens it will have.
    """

    def __init__(self, layers: int, heads: int, width: int, window: int):
        self.length = 0
        self.room = 0  # Tokens.
        self._layers, self._heads, self._width = layers, heads, width
        self._window = up(window, LANES)
        self._numbers = torch.empty(0, dtype=torch.bfloat16)

    @property
    def can_be_cut(self) -> bool:
        """Always."""
        return True

    @property
    def device(self) -> torch.device:
        """Where its numbers are."""
        return self._numbers.device

    def cut(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        self.length = min(self.length, length)

    def copy(self, length: int) -> TiledKeyValues:
        """Another one with the first `length` tokens of this one."""
        other = TiledKeyValues(self._layers, self._heads, self._width, self._window)
        other._take(self, length)
        return other

    def make_room(self, more: int) -> None:
        """Have room for `more` tokens after those that are there."""
        if self.length + more > self.room:
            bigger = TiledKeyValues(self._layers, self._heads, self._width, self._window)
            bigger._take(self, self.length, more)
            self.room, self._numbers = bigger.room, bigger._numbers

    def places(self, more: int) -> list[tuple[int, int, int]]:
        """For what writes the next `more` tokens by itself, for each of them: the address of the numbers, for how many
        tokens there is room, and how many come before."""
        self.make_room(more)
        return [(self._numbers.data_ptr(), self.room, self.length + at) for at in range(more)]

    def extended(self, layer: int, new: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the keys and values of the next tokens, [2, heads, tokens, width], for which there is room.

        Returns:
            All keys, the new ones included, and all values: each [1, heads, length + tokens, width].
        """
        keys, values = self._keys[layer], self._values[layer]
        end = self.length + new.shape[2]
        at = torch.arange(self.length, end)
        filled = functional.pad(new.to(torch.bfloat16), (0, -self._width % LANES))
        by_token = filled.transpose(1, 2)  # [2, tokens, heads, width]
        keys[:, at // LANES, :, at % LANES] = by_token[0].unflatten(2, (-1, 2))
        values[:, :, at // 2, :, at % 2] = by_token[1].unflatten(2, (-1, LANES))
        return self._plain_keys(keys, end), self._plain_values(values, end)

    def _plain_keys(self, tiles: Tensor, end: int) -> Tensor:
        words = tiles.view(torch.int32)[:, : up(end, LANES) // LANES, ..., 0]  # Moved as they are: half as many.
        rows = words.transpose(2, 3).contiguous().view(torch.bfloat16)  # [heads, tiles, LANES, width]
        return rows.flatten(1, 2)[None, :, :end, : self._width]

    def _plain_values(self, tiles: Tensor, end: int) -> Tensor:
        words = tiles.view(torch.int32)[:, :, : up(end, 2) // 2, :, 0]
        rows = words.transpose(1, 2).flatten(2)  # [heads, pairs, width]
        pairs = torch.stack((rows.to(torch.int16), (rows >> 16).to(torch.int16)), 2)  # The lower half is the first.
        return pairs.flatten(1, 2).view(torch.bfloat16)[None, :, :end, : self._width]

    @property
    def _keys(self) -> Tensor:
        """[layers, heads, tiles, pairs of inputs, outputs (tokens), 2]."""
        parts = self._numbers.view(self._layers, self._heads, 2, -1)[:, :, 0]
        return parts.unflatten(2, (self.room // LANES, -1, LANES, 2))

    @property
    def _values(self) -> Tensor:
        """[layers, heads, tiles, pairs of inputs (tokens), outputs, 2]."""
        parts = self._numbers.view(self._layers, self._heads, 2, -1)[:, :, 1]
        return parts.unflatten(2, (-1, self.room // 2, LANES, 2))

    def _take(self, other: TiledKeyValues, length: int, more: int = 0) -> None:
        """The first tokens of another one, with room for more: twice as much each time, so that a growing sequence is
        moved seldom."""
        room = SMALLEST_ROOM
        while room < length + more:
            room *= 2
        self.room = max(min(room, self._window), up(length + more, LANES))
        count = self._layers * self._heads * 2 * self.room * up(self._width, LANES)
        self._numbers = torch.from_numpy(zeros_in_large_pages(count, "i2")).view(torch.bfloat16)
        self.length = length
        if length:
            tiles, pairs = up(length, LANES) // LANES, up(length, 2) // 2
            self._keys[:, :, :tiles] = other._keys[:, :, :tiles]
            self._values[:, :, :, :pairs] = other._values[:, :, :, :pairs]
