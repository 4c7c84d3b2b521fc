"""GPT-2's forward pass, written out for an engine: pieces of several sequences pass through the layers together, so
that the weights are read once for all of them; only the attention looks at each sequence by itself.

What is added up from layer to layer is kept in float32, whatever the weights are. Knows no requests and no text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from chat_app.forward import PROMPT_PIECE, Piece
from chat_app.gpt2_weights import Form, gpt2_weights
from chat_app.gpt2_writer import Writer
from chat_app.key_values import KeyValues


class GPT2Forward:
    """The forward pass of one GPT-2.

    Args:
        model: for which `is_plain_gpt2` holds.
        window: the most tokens of a sequence.
        form: of the weights, as `gpt2_weights` explains.

    Raises:
        ModelError: the weights are no numbers.
    """

    is_joint = True

    def __init__(self, model: Any, window: int, form: Form = "shared"):
        self._attention = model.dtype if form == "shared" else torch.bfloat16
        self._weights = gpt2_weights(model, form)
        self._heads, self._width = model.config.n_head, model.config.n_embd // model.config.n_head
        self._window = window
        self.vocabulary = int(self._weights.embedding.shape[0])
        self.memory_bytes = self._weights.memory_bytes
        tiles = self._weights.tiles
        self._writer = Writer(self._weights, tiles, model.config, window) if tiles is not None else None
        self.prompt_piece = self._writer.prompt_piece if self._writer is not None else PROMPT_PIECE

    def new_memory(self) -> KeyValues:
        """An empty one."""
        device = self._weights.embedding.device
        return KeyValues(len(self._weights.blocks), self._heads, self._width, self._window, self._attention, device)

    @torch.inference_mode()
    def step(self, pieces: Sequence[Piece]) -> list[Tensor]:
        """As Forward."""
        writing = self._writer.takes(pieces) if self._writer is not None else []
        taken = {id(piece) for piece in writing}
        others = [piece for piece in pieces if id(piece) not in taken]
        rows: dict[int, Tensor] = {}
        if self._writer is not None and writing:
            rows |= self._by_piece(writing, self._writer.step(writing, self._embedded(writing)))
        if others:
            rows |= self._by_piece(others, self._through_layers(others))
        for piece in pieces:
            piece.memory.length += len(piece.ids)
        return [rows[id(piece)] for piece in pieces if piece.is_last]

    @staticmethod
    def _by_piece(pieces: Sequence[Piece], scores: Tensor) -> dict[int, Tensor]:
        return dict(zip([id(piece) for piece in pieces if piece.is_last], scores, strict=True))

    def _through_layers(self, pieces: Sequence[Piece]) -> Tensor:
        """The scores of the pieces that are last, in their order."""
        ordered = sorted(pieces, key=lambda piece: len(piece.ids) > 1)  # Those of one token first.
        hidden = self._embedded(ordered)  # [tokens of all pieces, width]
        attend = _Attention(ordered, self._heads, self._width)
        last = self._last_rows(pieces, ordered).to(hidden.device)
        for index, block in enumerate(self._weights.blocks):
            mixed = block.queries_keys_values(block.before_attention(hidden)).to(self._attention)
            attended = attend(mixed, index, block.scale)
            if index == len(self._weights.blocks) - 1:  # From here on only the rows count whose scores are wanted.
                if not len(last):
                    return torch.empty(0, self.vocabulary)
                hidden, attended = hidden[last], attended[last]
            hidden.add_(block.joined(attended.float()))
            hidden.add_(block.down(self._weights.activation(block.up(block.before_mlp(hidden)))))
        return self._weights.head(self._weights.last_norm(hidden))

    def _embedded(self, pieces: Sequence[Piece]) -> Tensor:
        device = self._weights.embedding.device
        ids = torch.tensor([token for piece in pieces for token in piece.ids], device=device)
        starts = [(piece.memory.length, len(piece.ids)) for piece in pieces]
        places = torch.tensor([at for start, length in starts for at in range(start, start + length)], device=device)
        hidden = functional.embedding(ids, self._weights.embedding).float()
        hidden = hidden + functional.embedding(places, self._weights.positions)
        if any(piece.types is not None for piece in pieces):
            rows: list[int] = []
            types: list[int] = []
            start = 0
            for piece in pieces:
                if piece.types is not None:
                    rows += range(start, start + len(piece.ids))
                    types += piece.types
                start += len(piece.ids)
            more = functional.embedding(torch.tensor(types, device=device), self._weights.embedding).float()
            hidden.index_add_(0, torch.tensor(rows, device=device), more)
        return hidden

    @staticmethod
    def _last_rows(pieces: Sequence[Piece], ordered: Sequence[Piece]) -> Tensor:
        """The rows of the last tokens of the pieces that want scores, in the order of `pieces`."""
        ends: dict[int, int] = {}
        row = -1
        for piece in ordered:
            row += len(piece.ids)
            ends[id(piece)] = row
        return torch.tensor([ends[id(piece)] for piece in pieces if piece.is_last], dtype=torch.long)


class _Attention:
    """The attention of one step.

    Args:
        pieces: those of one token first.
        heads, width: of the model; width is a head's.
    """

    def __init__(self, pieces: Sequence[Piece], heads: int, width: int):
        self._heads, self._width = heads, width
        self._lengths = [len(piece.ids) for piece in pieces]
        self._singles = sum(length == 1 for length in self._lengths)
        self._views = [piece.memory.views(len(piece.ids)) for piece in pieces]
        self._masks = [_mask(piece) for piece in pieces]

    def __call__(self, mixed: Tensor, layer: int, scale: float) -> Tensor:
        """Queries, keys and values of all rows, [rows, 3 * heads * width] -> [rows, heads * width]."""
        single = self._singles
        results = []
        if single:
            parts = mixed[:single].view(single, 3, 1, self._heads, self._width).transpose(2, 3)
            queries, news = parts[:, :1].unbind(0), parts[:, 1:].unbind(0)  # Each [1 or 2, heads, 1, width].
            for query, new, (places, keys, values) in zip(queries, news, self._views, strict=False):
                places[layer].copy_(new)
                seen = functional.scaled_dot_product_attention(query, keys[layer], values[layer], scale=scale)
                results.append(seen.view(1, -1))
        start = single
        for length, view, mask in zip(self._lengths[single:], self._views[single:], self._masks[single:], strict=True):
            parts = mixed[start : start + length].view(length, 3, self._heads, self._width).permute(1, 2, 0, 3)
            places, keys, values = view
            places[layer].copy_(parts[1:])
            seen = functional.scaled_dot_product_attention(
                parts[:1], keys[layer], values[layer], attn_mask=mask, is_causal=mask is None, scale=scale
            )
            results.append(seen.transpose(1, 2).reshape(length, -1))
            start += length
        return torch.cat(results) if len(results) > 1 else results[0]


def _mask(piece: Piece) -> Tensor | None:
    """Which tokens those of a piece may see, [piece, all so far]; None: itself only, up to each."""
    length, before = len(piece.ids), piece.memory.length
    if length == 1 or not before:
        return None
    return torch.ones(length, before + length, dtype=torch.bool, device=piece.memory.device).tril_(before)
