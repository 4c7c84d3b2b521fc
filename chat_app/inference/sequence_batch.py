"""Batches for the models of transformers: tokens of several sequences go through the layers one after the other in a
single row, so that the weights are read once for all of them. Only attention keeps the sequences apart.

A padded batch would do as well, but it computes padding wherever sequences differ in length, and their KV caches would
have to lie in one tensor. Knows no requests and no token ids.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from chat_app.errors import ModelError
from chat_app.inference.kv_cache_layered import LayeredKVCache


class SequenceBatch:
    """The attention of one forward pass.

    Args:
        kv_caches: of the sequences; the next tokens are appended to them, but not counted in their lengths.
        counts: how many tokens of the row are the next ones of each sequence.
    """

    def __init__(self, kv_caches: Sequence[LayeredKVCache], counts: Sequence[int]):
        self._kv_caches, self._counts = list(kv_caches), list(counts)
        self._masks: list[Tensor | None] | None = None  # The same for all layers.
        self._appended: list[tuple[Tensor, Tensor]] | None = None  # Of the layer whose attention is next.

    def append(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """As Attention of `transformers_internals`.

        Raises:
            ModelError: the layer before went around `attend`.
        """
        self.check_attended()
        news = zip(self._kv_caches, keys[0].split(self._counts, 1), values[0].split(self._counts, 1), strict=True)
        self._appended = [kv_cache.append(layer, *new) for kv_cache, *new in news]

    def attend(self, queries: Tensor, scale: float | None) -> Tensor:
        """As Attention of `transformers_internals`.

        Raises:
            ModelError: the layer appended no keys and values.
        """
        if self._appended is None:
            raise ModelError("A layer of the model has no keys and values of its own.")
        appended, self._appended = self._appended, None
        if self._masks is None:
            self._masks = [self._mask(index, queries.device) for index in range(len(self._counts))]
        parts = zip(queries.split(self._counts, 2), appended, self._masks, strict=True)
        return torch.cat(
            [_attend(query, keys[None], values[None], mask, scale) for query, (keys, values), mask in parts], 1
        )

    def check_attended(self) -> None:
        """Make sure that the layers so far used `attend`.

        Raises:
            ModelError: one did not.
        """
        if self._appended is not None:
            raise ModelError("A layer of the model has an attention of its own.")

    def _mask(self, index: int, device: torch.device) -> Tensor | None:
        """Which tokens the new ones of a sequence attend to, [new, all so far]; None where the plain causal mask, or
        none, will do."""
        count, before = self._counts[index], self._kv_caches[index].length
        if count == 1 or not before:
            return None
        return torch.ones(count, before + count, dtype=torch.bool, device=device).tril_(before)


def _attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    """Attention of one sequence, [1, heads, tokens, width] -> [1, tokens, heads, width]."""
    heads, tokens = query.shape[1:3]
    if tokens == 1:  # Heads that share keys and values are the rows of one product: nothing is repeated.
        rows = query.reshape(1, keys.shape[1], -1, query.shape[3])
        attended = functional.scaled_dot_product_attention(rows, keys, values, scale=scale)
        return attended.reshape(1, 1, heads, -1)
    if mask is not None:
        mask = mask.to(query.device)  # Layers may lie on several devices.
    shared = heads != keys.shape[1]
    attended = functional.scaled_dot_product_attention(
        query, keys, values, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=shared
    )
    return attended.transpose(1, 2)
