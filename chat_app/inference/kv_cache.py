"""The KV cache: the keys and values that attention has computed for the tokens of one sequence so far.

`KVCache` is what the engine knows of it. Here are two kinds: one contiguous tensor for GPT-2's own forward pass, and
the cache of transformers for models that are stepped one sequence after the other. `kv_cache_layered`,
`kv_cache_packed` and `kv_cache_paged` have the others. Knows no requests and no token ids.
"""

from __future__ import annotations

import copy
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from transformers import DynamicCache

from chat_app.models.transformers_internals import can_crop, copy_cache

MIN_CAPACITY = 128
Contiguous = TypeVar("Contiguous", bound="ContiguousKVCache")


class KVCache(Protocol):
    """The keys and values of the first `length` tokens of a sequence."""

    length: int

    @property
    def can_truncate(self) -> bool:
        """Whether the entries of the newest tokens can be removed."""

    def truncate(self, length: int) -> None:
        """Keep only the first `length` tokens."""

    def copy(self, length: int) -> KVCache:
        """Another cache with the first `length` tokens of this one."""


class ContiguousKVCache:
    """A KV cache in one tensor for all layers, which is written in place.

    Args:
        layers, heads, width: of the model; width is a head's.
        window: the most tokens it will hold.
        dtype, device: of the tensor.
    """

    def __init__(self, layers: int, heads: int, width: int, window: int, dtype: torch.dtype, device: Any = "cpu"):
        self.length = 0
        self._window = window
        self._data = torch.empty(layers, 2, heads, 0, width, dtype=dtype, device=device)

    @property
    def can_truncate(self) -> bool:
        """Always."""
        return True

    @property
    def device(self) -> torch.device:
        """The device of the tensor."""
        return self._data.device

    @property
    def capacity(self) -> int:
        """How many tokens fit into the memory that is allocated."""
        return self._data.shape[3]

    def truncate(self, length: int) -> None:
        """Keep only the first `length` tokens."""
        self.length = min(self.length, length)

    def copy(self: Contiguous, length: int) -> Contiguous:
        """Another cache with the first `length` tokens of this one."""
        other = copy.copy(self)
        other._data = self._reallocate(capacity_for(length, self._window), length)
        other.length = length
        return other

    def reserve(self, count: int) -> None:
        """Allocate memory for the next `count` tokens, if there is not enough."""
        if self.length + count > self.capacity:
            self._data = self._reallocate(capacity_for(self.length + count, self._window), self.length)

    def append(self, layer: int, new: Tensor) -> tuple[Tensor, Tensor]:
        """Write the keys and values of the next tokens of a layer, after `reserve`; `length` stays.

        Args:
            new: keys and values, [2, heads, tokens, width].

        Returns:
            All keys, the new ones included, and all values: each [1, heads, length + tokens, width].
        """
        data, end = self._data[layer], self.length + new.shape[2]
        data[:, :, self.length : end] = new
        keys, values = data[:, None, :, :end].unbind(0)
        return keys, values

    def _reallocate(self, capacity: int, length: int) -> Tensor:
        """A new tensor with the first `length` tokens. Most systems give it real memory only where it is written."""
        layers, _, heads, _, width = self._data.shape
        data = self._data.new_empty(layers, 2, heads, capacity, width)
        data[:, :, :, :length] = self._data[:, :, :, :length]
        return data


def capacity_for(length: int, window: int) -> int:
    """The tokens to allocate for `length`: a power of two, so that a growing sequence is copied seldom, but no more
    than the window."""
    capacity = MIN_CAPACITY
    while capacity < length:
        capacity *= 2
    return max(min(capacity, window), length)


class TransformersKVCache:
    """A KV cache in the form that transformers' models take.

    Args:
        config: of the model.
    """

    def __init__(self, config: Any):
        self.length = 0
        self.cache = DynamicCache(config=config)
        self._config = config

    @property
    def can_truncate(self) -> bool:
        """Not where layers keep recurrent states, or a sliding window."""
        return can_crop(self.cache)

    def truncate(self, length: int) -> None:
        """Keep only the first `length` tokens."""
        if length < self.length:
            self.cache.crop(length - self.length)  # A negative number says how many to remove.
            self.length = length

    def copy(self, length: int) -> TransformersKVCache:
        """Another cache with the first `length` tokens of this one."""
        other = TransformersKVCache(self._config)
        other.cache = copy_cache(self.cache, self._config, length)
        other.length = length
        return other
