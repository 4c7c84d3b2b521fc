"""What a model remembers of the tokens it has read: the keys and values of its attention, one request's at a time.

Two kinds: one tensor for our own forward pass, and the cache of transformers for its. Knows no requests and no ids.
"""

from __future__ import annotations

import copy
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from transformers import DynamicCache

from chat_app.models.transformers_internals import can_crop, copy_cache

SMALLEST_ROOM = 128
Kept = TypeVar("Kept", bound="KeyValues")


class Memory(Protocol):
    """The keys and values of the first `length` tokens of a sequence."""

    length: int

    @property
    def can_be_cut(self) -> bool:
        """Whether what belongs to a beginning of the sequence can be told from the rest."""

    def cut(self, length: int) -> None:
        """Forget all but the first `length` tokens."""

    def copy(self, length: int) -> Memory:
        """Another one with the first `length` tokens of this one."""


class KeyValues:
    """One tensor for all layers, written in place.

    Args:
        layers, heads, width: of the model; width is a head's.
        window: the most tokens it will have.
        dtype, device: of its numbers.
    """

    def __init__(self, layers: int, heads: int, width: int, window: int, dtype: torch.dtype, device: Any = "cpu"):
        self.length = 0
        self._window = window
        self._numbers = torch.empty(layers, 2, heads, 0, width, dtype=dtype, device=device)

    @property
    def can_be_cut(self) -> bool:
        """Always."""
        return True

    @property
    def device(self) -> torch.device:
        """Where its numbers are."""
        return self._numbers.device

    @property
    def room(self) -> int:
        """How many tokens fit without taking more memory."""
        return self._numbers.shape[3]

    def cut(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        self.length = min(self.length, length)

    def copy(self: Kept, length: int) -> Kept:
        """Another one with the first `length` tokens of this one."""
        other = copy.copy(self)
        other._numbers = self._moved(_room_for(length, self._window), length)
        other.length = length
        return other

    def make_room(self, more: int) -> None:
        """Have room for `more` tokens after those that are there."""
        if self.length + more > self.room:
            self._numbers = self._moved(_room_for(self.length + more, self._window), self.length)

    def extended(self, layer: int, new: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the keys and values of the next tokens, [2, heads, tokens, width], for which there is room.

        Returns:
            All keys, the new ones included, and all values: each [1, heads, length + tokens, width].
        """
        numbers, end = self._numbers[layer], self.length + new.shape[2]
        numbers[:, :, self.length : end] = new
        keys, values = numbers[:, None, :, :end].unbind(0)
        return keys, values

    def _moved(self, room: int, length: int) -> Tensor:
        """The first `length` tokens in a new tensor. What is not written of it takes no memory yet on most systems."""
        layers, _, heads, _, width = self._numbers.shape
        numbers = self._numbers.new_empty(layers, 2, heads, room, width)
        numbers[:, :, :, :length] = self._numbers[:, :, :, :length]
        return numbers


def _room_for(length: int, window: int) -> int:
    """Twice as much each time, so that a growing sequence is moved seldom."""
    room = SMALLEST_ROOM
    while room < length:
        room *= 2
    return max(min(room, window), length)


class LayerCaches:
    """The cache of transformers.

    Args:
        config: of the model.
    """

    def __init__(self, config: Any):
        self.length = 0
        self.cache = DynamicCache(config=config)
        self._config = config

    @property
    def can_be_cut(self) -> bool:
        """Not where layers keep states, or only the newest tokens."""
        return can_crop(self.cache)

    def cut(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        if length < self.length:
            self.cache.crop(length - self.length)  # Below zero: so many are removed.
            self.length = length

    def copy(self, length: int) -> LayerCaches:
        """Another one with the first `length` tokens of this one."""
        other = LayerCaches(self._config)
        other.cache = copy_cache(self.cache, self._config, length)
        other.length = length
        return other
