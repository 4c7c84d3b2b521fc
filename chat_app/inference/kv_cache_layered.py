"""The KV cache for models that step several sequences at once: for each layer two tensors, which are written in place.

Their shapes are those of the first keys and values that come, because the layers of a model may differ. Knows no
requests and no token ids.
"""

from __future__ import annotations

from torch import Tensor

from chat_app.inference.kv_cache import capacity_for


class LayeredKVCache:
    """The KV cache of one sequence.

    Args:
        window: the most tokens it will hold.
    """

    def __init__(self, window: int):
        self.length = 0
        self.window = window
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}  # Each [heads, capacity, width].

    @property
    def can_truncate(self) -> bool:
        """Always."""
        return True

    def truncate(self, length: int) -> None:
        """Keep only the first `length` tokens."""
        self.length = min(self.length, length)

    def copy(self, length: int) -> LayeredKVCache:
        """Another cache with the first `length` tokens of this one."""
        other = LayeredKVCache(self.window)
        other.length = length
        for layer, (keys, values) in self._layers.items():
            other._layers[layer] = (other._reallocate(keys, length), other._reallocate(values, length))
        return other

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write the keys and values of the next tokens of a layer; `length` stays.

        Args:
            keys, values: of the new tokens, each [heads, tokens, width].

        Returns:
            All keys, the new ones included, and all values: each [heads, length + tokens, width].
        """
        end = self.length + keys.shape[1]
        all_keys, all_values = self._layers.get(layer) or (keys[:, :0], values[:, :0])
        if end > all_keys.shape[1]:
            all_keys, all_values = self._reallocate(all_keys, end), self._reallocate(all_values, end)
            self._layers[layer] = (all_keys, all_values)
        all_keys, all_values = all_keys[:, :end], all_values[:, :end]
        all_keys[:, self.length :] = keys
        all_values[:, self.length :] = values
        return all_keys, all_values

    def _reallocate(self, data: Tensor, length: int) -> Tensor:
        """A new tensor with room for at least `length` tokens and with the tokens so far."""
        new = data.new_empty(data.shape[0], capacity_for(length, self.window), data.shape[2])
        new[:, : self.length] = data[:, : self.length]
        return new
