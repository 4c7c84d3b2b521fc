"""GPT-2's forward pass, written out for an engine: pieces of several sequences pass through the layers together, so
that the weights are read once for all of them; only the attention looks at each sequence by itself.

What is added up from layer to layer is kept in float32, whatever the weights are. On a GPU what is remembered lies in
pages, and steps of replies are recorded. Knows no requests and no text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from chat_app.inference.gpt2.attention import Attend, Attention, PagedAttention, RowAttention
from chat_app.inference.gpt2.compiled_decoder import Writer
from chat_app.inference.gpt2.cuda_graphs import COLUMNS, NO_TYPE, CudaRecorder, GraphStep
from chat_app.inference.gpt2.weights import WeightLayout, Weights, gpt2_weights
from chat_app.inference.kv_cache import KeyValues, Memory
from chat_app.inference.kv_cache_packed import TiledKeyValues
from chat_app.inference.kv_cache_paged import PagedKeyValues, Pages
from chat_app.inference.model_runner import PROMPT_PIECE, Piece


class GPT2Forward:
    """The forward pass of one GPT-2.

    Args:
        model: for which `is_plain_gpt2` holds.
        window: the most tokens of a sequence.
        layout: of the weights, as `gpt2_weights` explains.
        paged: whether what is remembered lies in pages, for the layout "shared" only; default: on a GPU of CUDA.
        recorded: whether steps of replies are recorded there; default: on a GPU of CUDA.

    Raises:
        ModelError: the weights are no numbers.
    """

    is_joint = True

    def __init__(
        self,
        model: Any,
        window: int,
        layout: WeightLayout = "shared",
        paged: bool | None = None,
        recorded: bool | None = None,
    ):
        self._attention = model.dtype if layout == "shared" else torch.bfloat16
        self._weights = weights = gpt2_weights(model, layout)
        self._heads, self._width = model.config.n_head, model.config.n_embd // model.config.n_head
        self._window = window
        self.vocabulary = int(weights.embedding.shape[0])
        self.memory_bytes = weights.memory_bytes
        self._writer = Writer(weights, weights.packed, model.config, window) if weights.packed is not None else None
        self.prompt_piece = self._writer.prompt_piece if self._writer is not None else PROMPT_PIECE
        device = weights.embedding.device
        on_cuda = device.type == "cuda"
        self._pool: Pages | None = None
        self._rows: GraphStep | None = None
        if on_cuda if paged is None else paged:
            assert layout == "shared", "packed weights are for the processor"
            self._pool = Pages(len(weights.blocks), self._heads, self._width, window, self._attention, device)
            record = CudaRecorder(device) if (on_cuda if recorded is None else recorded) else None
            rows = _Rows(weights, self._pool, self._attention)
            self._rows = GraphStep(rows, self._pool, window, self.vocabulary, record)

    def new_memory(self) -> Memory:
        """An empty one."""
        if self._pool is not None:
            return PagedKeyValues(self._pool)
        layers = len(self._weights.blocks)
        if self._writer is not None:
            return TiledKeyValues(layers, self._heads, self._width, self._window)
        device = self._weights.embedding.device
        return KeyValues(layers, self._heads, self._width, self._window, self._attention, device)

    @torch.inference_mode()
    def step(self, pieces: Sequence[Piece]) -> list[Tensor]:
        """As Forward."""
        rows = self._step(pieces) if self._rows is None else self._paged_step(pieces, self._rows)
        for piece in pieces:
            piece.memory.length += len(piece.ids)
        return [rows[id(piece)] for piece in pieces if piece.is_last]

    def _step(self, pieces: Sequence[Piece]) -> dict[int, Tensor]:
        """The scores after the pieces that are last, by their ids."""
        writing = self._writer.takes(pieces) if self._writer is not None else []
        taken = {id(piece) for piece in writing}
        others = [piece for piece in pieces if id(piece) not in taken]
        rows: dict[int, Tensor] = {}
        if self._writer is not None and writing:
            rows |= _by_piece(_last(writing), self._writer.step(writing, self._embedded(writing)))
        if others:
            rows |= _by_piece(_last(others), self._through_layers(others))
        return rows

    def _paged_step(self, pieces: Sequence[Piece], rows: GraphStep) -> dict[int, Tensor]:
        """As `_step`. All scores come to the processor at once."""
        for piece in pieces:
            piece.memory.make_room(len(piece.ids))
        writing = [piece for piece in pieces if len(piece.ids) == 1]
        reading = [piece for piece in pieces if len(piece.ids) > 1]
        parts = [rows(writing)] if writing else []
        if reading:
            parts.append(self._through_layers(reading).float())
        scores = _on_processor(torch.cat(parts) if len(parts) > 1 else parts[0])
        return _by_piece([*writing, *_last(reading)], scores)

    def _through_layers(self, pieces: Sequence[Piece]) -> Tensor:
        """The scores of the pieces that are last, in their order."""
        ordered = sorted(pieces, key=lambda piece: len(piece.ids) > 1)  # Those of one token first.
        hidden = self._embedded(ordered)  # [tokens of all pieces, width]
        attend: Attend
        if self._pool is None:
            attend = Attention(ordered, self._heads, self._width)
        else:
            attend = PagedAttention(ordered, self._pool)
        last = self._last_rows(pieces, ordered).to(hidden.device)
        return _scores(self._weights, hidden, attend, self._attention, last)

    def _embedded(self, pieces: Sequence[Piece]) -> Tensor:
        device = self._weights.embedding.device
        ids = torch.tensor([token for piece in pieces for token in piece.ids], dtype=torch.long, device=device)
        starts = [(piece.memory.length, len(piece.ids)) for piece in pieces]
        places = torch.tensor(
            [at for start, length in starts for at in range(start, start + length)], dtype=torch.long, device=device
        )
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
            kinds = torch.tensor(types, dtype=torch.long, device=device)
            more = functional.embedding(kinds, self._weights.embedding).float()
            hidden.index_add_(0, torch.tensor(rows, dtype=torch.long, device=device), more)
        return hidden

    @staticmethod
    def _last_rows(pieces: Sequence[Piece], ordered: Sequence[Piece]) -> Tensor:
        """The rows of the last tokens of the pieces that want scores, in the order of `pieces`."""
        ends: dict[int, int] = {}
        row = -1
        for piece in ordered:
            row += len(piece.ids)
            ends[id(piece)] = row
        wanted = [ends[id(piece)] for piece in pieces if piece.is_last]
        return torch.tensor(wanted, dtype=torch.long, device="cpu")


class _Rows:
    """One token of each of several sequences, computed in place and without a look at any number: can be recorded.

    Args:
        weights: of the model. pool: where the pages are.
        attention: the type of what its attention computes with.
    """

    def __init__(self, weights: Weights, pool: Pages, attention: torch.dtype):
        self._weights, self._pool, self._attention = weights, pool, attention

    def __call__(self, inputs: Tensor, scores: Tensor) -> None:
        """As Rows of `graph_step`."""
        ids, types, places, slots = inputs[:, :COLUMNS].unbind(1)
        embedding = self._weights.embedding
        hidden = functional.embedding(ids, embedding).float()
        hidden = hidden + functional.embedding(places, self._weights.positions)
        typed = functional.embedding(types.clamp_min(0), embedding).float()
        hidden.add_(typed.masked_fill_((types == NO_TYPE)[:, None], 0.0))
        attend = RowAttention(self._pool.numbers, places, slots, inputs[:, COLUMNS:])
        scores.copy_(_scores(self._weights, hidden, attend, self._attention))


def _scores(
    weights: Weights, hidden: Tensor, attend: Attend, attention: torch.dtype, last: Tensor | None = None
) -> Tensor:
    """Through the layers.

    Args:
        hidden: float32 [rows, width]: what goes into the first layer; changed.
        attention: the type of what `attend` computes with.
        last: the rows whose scores are wanted; default: all.

    Returns:
        Scores of the next token after each wanted row, [wanted, vocabulary].
    """
    for index, block in enumerate(weights.blocks):
        mixed = block.qkv_proj(block.ln_1(hidden)).to(attention)
        attended = attend(mixed, index, block.scale)
        if last is not None and index == len(weights.blocks) - 1:  # From here on only the wanted rows count.
            if not len(last):
                return hidden.new_empty(0, len(weights.embedding))
            hidden, attended = hidden[last], attended[last]
        hidden.add_(block.out_proj(attended.float()))
        hidden.add_(block.fc_out(weights.activation(block.fc_in(block.ln_2(hidden)))))
    return weights.head(weights.ln_f(hidden))


def _last(pieces: Sequence[Piece]) -> list[Piece]:
    """Those whose scores are wanted."""
    return [piece for piece in pieces if piece.is_last]


def _by_piece(pieces: Sequence[Piece], scores: Tensor) -> dict[int, Tensor]:
    return dict(zip(map(id, pieces), scores, strict=True))


def _on_processor(scores: Tensor) -> Tensor:
    """A copy of scores, which the next step leaves alone. A GPU writes into pinned memory by itself."""
    copy = torch.empty(scores.shape, dtype=scores.dtype, device="cpu", pin_memory=scores.is_cuda)
    copy.copy_(scores, non_blocking=True)
    if scores.is_cuda:
        torch.cuda.current_stream(scores.device).synchronize()
    return copy
