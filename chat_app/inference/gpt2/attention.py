"""The attention of a step's rows: those of pieces to tensors of their own or to pages, and those of one token each.

Each is called once a layer, in the layers' order: it adds the rows' keys and values to what is remembered, and then
looks at it. Knows no weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from chat_app.inference.kv_cache_paged import Pages
from chat_app.inference.model_runner import Piece

Attend = Callable[[Tensor, int, float], Tensor]
"""Queries, keys and values of all rows [rows, 3 * heads * width], the layer, and what products are multiplied by; gives
[rows, heads * width]."""


class Attention:
    """Of pieces whose memories are KeyValues or TiledKeyValues.

    Args:
        pieces: those of one token first.
        heads, width: of the model; width is a head's.
    """

    def __init__(self, pieces: Sequence[Piece], heads: int, width: int):
        self._heads, self._width = heads, width
        self._lengths = [len(piece.ids) for piece in pieces]
        self._singles = sum(length == 1 for length in self._lengths)
        self._memories = [piece.memory for piece in pieces]
        for piece in pieces:
            piece.memory.make_room(len(piece.ids))
        self._masks = [_mask(piece, piece.memory.device) for piece in pieces]

    def __call__(self, mixed: Tensor, layer: int, scale: float) -> Tensor:
        """As Attend."""
        single = self._singles
        results = []
        if single:
            parts = mixed[:single].view(single, 3, 1, self._heads, self._width).transpose(2, 3)
            queries, news = parts[:, :1].unbind(0), parts[:, 1:].unbind(0)  # Each [1 or 2, heads, 1, width].
            for query, new, memory in zip(queries, news, self._memories, strict=False):
                keys, values = memory.extended(layer, new)
                seen = functional.scaled_dot_product_attention(query, keys, values, scale=scale)
                results.append(seen.view(1, -1))
        start = single
        several = zip(self._lengths[single:], self._memories[single:], self._masks[single:], strict=True)
        for length, memory, mask in several:
            parts = mixed[start : start + length].view(length, 3, self._heads, self._width).permute(1, 2, 0, 3)
            keys, values = memory.extended(layer, parts[1:])
            seen = functional.scaled_dot_product_attention(
                parts[:1], keys, values, attn_mask=mask, is_causal=mask is None, scale=scale
            )
            results.append(seen.transpose(1, 2).reshape(length, -1))
            start += length
        return torch.cat(results) if len(results) > 1 else results[0]


class PagedAttention:
    """Of pieces whose memories are PagedKeyValues.

    Args:
        pieces: of several tokens each, for which there is room.
        pool: where their pages are.
    """

    def __init__(self, pieces: Sequence[Piece], pool: Pages):
        self._numbers = pool.numbers
        device = pool.numbers.device
        slots = [slot for piece in pieces for slot in piece.memory.slots(len(piece.ids))]
        self._slots = torch.tensor(slots, dtype=torch.long, device=device)
        self._lengths = [len(piece.ids) for piece in pieces]
        self._ends = [piece.memory.length + len(piece.ids) for piece in pieces]
        pages = [piece.memory.pages[: pool.count_for(end)] for piece, end in zip(pieces, self._ends, strict=True)]
        every = torch.tensor([page for one in pages for page in one], dtype=torch.long, device=device)
        self._pages = every.split([len(one) for one in pages])
        self._masks = [_mask(piece, device) for piece in pieces]

    def __call__(self, mixed: Tensor, layer: int, scale: float) -> Tensor:
        """As Attend."""
        numbers = self._numbers[layer]
        rows = _added(numbers, self._slots, mixed)
        results = []
        for new, end, pages, mask in zip(rows.split(self._lengths), self._ends, self._pages, self._masks, strict=True):
            keys, values = _seen(numbers, pages[None])
            attended = functional.scaled_dot_product_attention(
                new[:, 0].transpose(0, 1)[None],  # [1, heads, piece, width]
                keys[:, :, :end],
                values[:, :, :end],
                attn_mask=mask,
                is_causal=mask is None,
                scale=scale,
            )
            results.append(attended[0].transpose(0, 1).flatten(1))
        return torch.cat(results)


class RowAttention:
    """Of rows that are one token each of another sequence. Shapes depend on shapes only, so it can be recorded.

    Args:
        numbers: as those of Pages.
        places: how many tokens come before each row, [rows].
        slots: where each row's keys and values go, [rows].
        table: the pages of each row, [rows, pages]; what stands after its last is not looked at.
    """

    def __init__(self, numbers: Tensor, places: Tensor, slots: Tensor, table: Tensor):
        self._numbers, self._slots, self._table = numbers, slots, table
        hidden = (
            torch.arange(table.shape[1] * numbers.shape[2], dtype=torch.long, device=numbers.device) > places[:, None]
        )
        # Made once for all layers in the form that is added to the products: torch would make it of truths in each.
        mask = torch.zeros(hidden.shape, dtype=numbers.dtype, device=numbers.device)
        self._mask = mask.masked_fill_(hidden, float("-inf"))[:, None, None]  # [rows, 1, 1, tokens]

    def __call__(self, mixed: Tensor, layer: int, scale: float) -> Tensor:
        """As Attend."""
        numbers = self._numbers[layer]
        rows = _added(numbers, self._slots, mixed)
        keys, values = _seen(numbers, self._table)
        queries = rows[:, 0, :, None]  # [rows, heads, 1, width]
        attended = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=self._mask, scale=scale)
        return attended.reshape(len(rows), -1)


def _added(numbers: Tensor, slots: Tensor, mixed: Tensor) -> Tensor:
    """Put the keys and values of rows into a layer's pages; gives the rows as [rows, 3, heads, width]."""
    heads, width = numbers.shape[-2:]
    rows = mixed.view(len(mixed), 3, heads, width)
    numbers.flatten(0, 1).index_copy_(0, slots, rows[:, 1:])
    return rows


def _seen(numbers: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """The keys and values of a layer on pages [n, pages]: each [n, heads, tokens, width]."""
    keys, values = numbers[table].flatten(1, 2).unbind(2)  # Of [n, tokens, 2, heads, width]: copied once, as it lies.
    return keys.transpose(1, 2), values.transpose(1, 2)


def _mask(piece: Piece, device: torch.device) -> Tensor | None:
    """Which tokens those of a piece may see, [piece, all so far]; None: itself only, up to each."""
    length, before = len(piece.ids), piece.memory.length
    if length == 1 or not before:
        return None
    return torch.ones(length, before + length, dtype=torch.bool, device=device).tril_(before)
