"""Batches for the models of transformers: tokens of several sequences go through the layers one after the other in a
single row, so that the weights are read once for all of them. Only attention keeps the sequences apart.

A padded batch would do as well, but it computes padding wherever sequences differ in length, and their KV caches would
have to lie in one tensor. Knows no requests and no token ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

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
        windows: of the layers that attend to the newest tokens only: to how many.
    """

    def __init__(self, kv_caches: Sequence[LayeredKVCache], counts: Sequence[int], windows: Mapping[int, int]):
        self._kv_caches, self._counts, self._windows = list(kv_caches), list(counts), windows
        self._longest = max(kv_cache.window for kv_cache in kv_caches)
        self._spans: dict[int, list[_Span]] = {}  # Of the sequences, by the layers' windows.
        self._layer = -1
        self._appended: list[tuple[Tensor, Tensor]] | None = None  # Of that layer, whose attention is next.

    def append(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """As Attention of `transformers_internals`.

        Raises:
            ModelError: the layer before went around `attend`.
        """
        self.check_attended()
        news = zip(self._kv_caches, keys[0].split(self._counts, 1), values[0].split(self._counts, 1), strict=True)
        self._appended = [kv_cache.append(layer, *new) for kv_cache, *new in news]
        self._layer = layer

    def attend(self, queries: Tensor, scale: float | None, sliding_window: int | None) -> Tensor:
        """As Attention of `transformers_internals`.

        Raises:
            ModelError: the layer appended no keys and values, or has not the sliding window that it should have.
        """
        if self._appended is None:
            raise ModelError("A layer of the model has no keys and values of its own.")
        window = min(sliding_window or self._longest, self._longest)
        if window != min(self._windows.get(self._layer, self._longest), self._longest):
            raise ModelError("A layer of the model chooses in its own way what it attends to.")
        appended, self._appended = self._appended, None
        spans = self._spans.get(window)
        if spans is None:
            parts = zip(self._kv_caches, self._counts, strict=True)
            spans = [_span(kv_cache.length, count, window, queries.device) for kv_cache, count in parts]
            self._spans[window] = spans
        rows = zip(queries.split(self._counts, 2), appended, spans, strict=True)
        return torch.cat([_attend(query, *new, span, scale) for query, new, span in rows], 1)

    def check_attended(self) -> None:
        """Make sure that the layers so far used `attend`.

        Raises:
            ModelError: one did not.
        """
        if self._appended is not None:
            raise ModelError("A layer of the model has an attention of its own.")


class _Span(NamedTuple):
    """What the new tokens of a sequence attend to: all tokens from `first` on, but only as `mask` says, [new, tokens];
    None where the plain causal mask, or none, will do."""

    first: int
    mask: Tensor | None


def _span(before: int, count: int, window: int, device: torch.device) -> _Span:
    """That of `count` tokens after `before` others, of which each attends to the newest `window`, itself included."""
    first = max(before - window + 1, 0)
    before -= first
    if count == 1 or (not before and count <= window):
        return _Span(first, None)
    mask = torch.ones(count, before + count, dtype=torch.bool, device=device)
    return _Span(first, mask.tril_(before).triu_(before - window + 1))


def _attend(query: Tensor, keys: Tensor, values: Tensor, span: _Span, scale: float | None) -> Tensor:
    """Attention of one sequence to keys and values, each [heads, tokens, width]: [1, heads, tokens, width] ->
    [1, tokens, heads, width]."""
    heads, tokens = query.shape[1:3]
    first, mask = span
    if first:
        keys, values = keys[:, first:], values[:, first:]
    keys, values = keys[None], values[None]
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
