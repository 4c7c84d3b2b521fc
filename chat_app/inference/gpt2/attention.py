"""Causal self-attention of a step over the KV caches of its sequences, by torch: contiguous or packed caches, paged
ones in prefill, and paged ones in decode, which CUDA graphs can capture.

Each object serves one step and is called once for every layer, in order: it appends the new keys and values to the
caches, then attends to all of them. Knows no weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from chat_app.inference.kv_cache_paged import KVBlockPool
from chat_app.inference.model_runner import Chunk

Attend = Callable[[Tensor, int, float], Tensor]
"""Takes the queries, keys and values of all rows [rows, 3 * heads * width], the layer, and the factor of the attention
scores; returns [rows, heads * width]."""


class Attention:
    """Attention of chunks with a ContiguousKVCache or PackedKVCache.

    Args:
        chunks: those of one token first.
        heads, width: of the model; width is a head's.
    """

    def __init__(self, chunks: Sequence[Chunk], heads: int, width: int):
        self._heads, self._width = heads, width
        self._lengths = [len(chunk.ids) for chunk in chunks]
        self._singles = sum(length == 1 for length in self._lengths)
        self._kv_caches = [chunk.kv_cache for chunk in chunks]
        for chunk in chunks:
            chunk.kv_cache.reserve(len(chunk.ids))
        self._masks = [_causal_mask(chunk, chunk.kv_cache.device) for chunk in chunks]

    def __call__(self, qkv: Tensor, layer: int, scale: float) -> Tensor:
        """As Attend."""
        single = self._singles
        results = []
        if single:
            parts = qkv[:single].view(single, 3, 1, self._heads, self._width).transpose(2, 3)
            queries, news = parts[:, :1].unbind(0), parts[:, 1:].unbind(0)  # Each [1 or 2, heads, 1, width].
            for query, new, kv_cache in zip(queries, news, self._kv_caches, strict=False):
                keys, values = kv_cache.append(layer, new)
                attended = functional.scaled_dot_product_attention(query, keys, values, scale=scale)
                results.append(attended.view(1, -1))
        start = single
        longer = zip(self._lengths[single:], self._kv_caches[single:], self._masks[single:], strict=True)
        for length, kv_cache, mask in longer:
            parts = qkv[start : start + length].view(length, 3, self._heads, self._width).permute(1, 2, 0, 3)
            keys, values = kv_cache.append(layer, parts[1:])
            attended = functional.scaled_dot_product_attention(
                parts[:1], keys, values, attn_mask=mask, is_causal=mask is None, scale=scale
            )
            results.append(attended.transpose(1, 2).reshape(length, -1))
            start += length
        return torch.cat(results) if len(results) > 1 else results[0]


class PagedPrefillAttention:
    """Attention of chunks with a PagedKVCache, several tokens each.

    Args:
        chunks: the caches have blocks for them.
        pool: has the blocks.
    """

    def __init__(self, chunks: Sequence[Chunk], pool: KVBlockPool):
        self._data = pool.data
        device = pool.data.device
        slots = [slot for chunk in chunks for slot in chunk.kv_cache.slots(len(chunk.ids))]
        self._slots = torch.tensor(slots, dtype=torch.long, device=device)
        self._lengths = [len(chunk.ids) for chunk in chunks]
        self._ends = [chunk.kv_cache.length + len(chunk.ids) for chunk in chunks]
        tables = [
            chunk.kv_cache.block_table[: pool.blocks_for(end)] for chunk, end in zip(chunks, self._ends, strict=True)
        ]
        blocks = torch.tensor([block for table in tables for block in table], dtype=torch.long, device=device)
        self._tables = blocks.split([len(table) for table in tables])
        self._masks = [_causal_mask(chunk, device) for chunk in chunks]

    def __call__(self, qkv: Tensor, layer: int, scale: float) -> Tensor:
        """As Attend."""
        data = self._data[layer]
        rows = _append(data, self._slots, qkv)
        results = []
        for new, end, table, mask in zip(rows.split(self._lengths), self._ends, self._tables, self._masks, strict=True):
            keys, values = _gather(data, table[None])
            attended = functional.scaled_dot_product_attention(
                new[:, 0].transpose(0, 1)[None],  # [1, heads, tokens, width]
                keys[:, :, :end],
                values[:, :, :end],
                attn_mask=mask,
                is_causal=mask is None,
                scale=scale,
            )
            results.append(attended[0].transpose(0, 1).flatten(1))
        return torch.cat(results)


class PagedDecodeAttention:
    """Attention of rows that are one token each of different sequences, over blocks. Every shape follows from the
    shapes of the inputs, so a CUDA graph can capture it.

    Args:
        data: of the KVBlockPool.
        positions: how many tokens come before each row, [rows].
        slots: where each row's keys and values are written, [rows].
        block_tables: [rows, blocks]; entries after a sequence's last block are masked.
    """

    def __init__(self, data: Tensor, positions: Tensor, slots: Tensor, block_tables: Tensor):
        self._data, self._slots, self._block_tables = data, slots, block_tables
        tokens = torch.arange(block_tables.shape[1] * data.shape[2], dtype=torch.long, device=data.device)
        hidden = tokens > positions[:, None]
        # An additive mask, made once for all layers: torch would turn a boolean one into this in every layer.
        mask = torch.zeros(hidden.shape, dtype=data.dtype, device=data.device)
        self._mask = mask.masked_fill_(hidden, float("-inf"))[:, None, None]  # [rows, 1, 1, tokens]

    def __call__(self, qkv: Tensor, layer: int, scale: float) -> Tensor:
        """As Attend."""
        data = self._data[layer]
        rows = _append(data, self._slots, qkv)
        keys, values = _gather(data, self._block_tables)
        queries = rows[:, 0, :, None]  # [rows, heads, 1, width]
        attended = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=self._mask, scale=scale)
        return attended.reshape(len(rows), -1)


def _append(data: Tensor, slots: Tensor, qkv: Tensor) -> Tensor:
    """Write the keys and values of rows into a layer's blocks; returns the rows as [rows, 3, heads, width]."""
    heads, width = data.shape[-2:]
    rows = qkv.view(len(qkv), 3, heads, width)
    data.flatten(0, 1).index_copy_(0, slots, rows[:, 1:])
    return rows


def _gather(data: Tensor, block_tables: Tensor) -> tuple[Tensor, Tensor]:
    """The keys and values of a layer in the blocks [n, blocks]: each [n, heads, tokens, width]."""
    keys, values = data[block_tables].flatten(1, 2).unbind(2)  # Of [n, tokens, 2, heads, width], copied once.
    return keys.transpose(1, 2), values.transpose(1, 2)


def _causal_mask(chunk: Chunk, device: torch.device) -> Tensor | None:
    """Which tokens those of a chunk attend to, [chunk, all so far]; None where the plain causal mask, or none, will
    do."""
    length, before = len(chunk.ids), chunk.kv_cache.length
    if length == 1 or not before:
        return None
    return torch.ones(length, before + length, dtype=torch.bool, device=device).tril_(before)
