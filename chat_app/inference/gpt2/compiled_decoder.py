"""The steps of replies that are being written, by the compiled function. Knows pieces, no requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chat_app.inference.gpt2.weights import Weights
from chat_app.inference.model_runner import PREFILL_CHUNK, Chunk
from chat_app.kernels.layout import COMPILED, MOST_ROWS, STEP, up
from chat_app.kernels.packed_weights import Tiles, checked_address, few_rows, room_for, room_for_attention

MOST_TOKENS = 112  # A piece of a prompt, and the replies that are written meanwhile.
MOST_TOKENS_OF_A_UNIT = 192  # Where products of many rows are fast; more would take more room.


class CompiledDecoder:
    """Computes steps of few tokens.

    Args:
        weights: of the model. tiles: those of its products.
        config: the model's.
        window: the most tokens of a sequence.

    Attributes:
        prompt_piece: as Forward.
    """

    def __init__(self, weights: Weights, tiles: Tiles, config: Any, window: int):
        self._tiles, self._window = tiles, window
        self._activation = COMPILED[config.activation_function]
        self._vocabulary, self._width = weights.embedding.shape
        norms = [norm for block in weights.blocks for norm in (block.before_attention, block.before_mlp)]
        places = [tiles.put_floats(norm.weight, norm.bias) for norm in (*norms, weights.last_norm)]
        self._norms = np.array(places, np.int64)
        self._scales = np.array([block.scale for block in weights.blocks], np.float32)
        self._epsilon = weights.last_norm.epsilon
        self._layers = len(weights.blocks)
        self._norms_address = checked_address(self._norms, np.int64, 2 * self._layers + 1)
        self._scales_address = checked_address(self._scales, np.float32, self._layers)
        self._head_width = self._width // config.n_head
        self._widest = max(max(size) for size in tiles.sizes[:-1])
        has_unit = few_rows() > MOST_TOKENS
        self._most_tokens = MOST_TOKENS_OF_A_UNIT if has_unit else MOST_TOKENS
        self.prefill_chunk_size = MOST_TOKENS_OF_A_UNIT if has_unit else PREFILL_CHUNK

    @property
    def is_ready(self) -> bool:
        """Whether the function is compiled."""
        return self._tiles.compiled is not None

    def select(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """Those of these pieces that are best computed together here: what replies are written with, and pieces of
        prompts as far as there is room; without replies only as many rows as are multiplied fast here.

        What is computed here has the same bits whatever the pieces are. Torch computes the others: its results are
        near, and depend on how many rows there are.
        """
        if not self.is_ready:
            return []
        taken = [chunk for chunk in chunks if len(chunk.ids) == 1]
        tokens = len(taken)
        most = self._most_tokens if taken else min(self._most_tokens, few_rows())
        for chunk in chunks:
            count = len(chunk.ids)
            if count > 1 and tokens + count <= most:
                taken.append(chunk)
                tokens += count
        return taken

    def step(self, chunks: Sequence[Chunk], hidden: Tensor) -> Tensor:
        """The scores after each piece that is last, float32 [such pieces, vocabulary]; the memories of the pieces get
        their keys and values.

        Args:
            hidden: float32 [tokens, width]: what goes into the first layer; changed.
        """
        compiled = self._tiles.compiled
        assert compiled is not None, "asked for by is_ready"
        kv_caches = np.array([row for chunk in chunks for row in chunk.kv_cache.places(len(chunk.ids))], np.int64)
        ends = np.cumsum([len(chunk.ids) for chunk in chunks], dtype=np.int64) - 1
        wanted = ends[[chunk.needs_logits for chunk in chunks]]
        logits = torch.empty(len(wanted), self._vocabulary, dtype=torch.float32, device="cpu")
        call = self._tiles.call(STEP, rows=len(kv_caches), width=self._width, results=len(wanted))
        call["source"] = checked_address(hidden, torch.float32, len(kv_caches), self._width)
        call["target"] = checked_address(logits, torch.float32, len(wanted), self._vocabulary)
        call["places"] = checked_address(kv_caches, np.int64, len(kv_caches), 3)
        call["wanted"] = checked_address(wanted, np.int64, len(wanted))
        call["norms"], call["scales"], call["layers"] = self._norms_address, self._scales_address, self._layers
        call["epsilon"], call["head_width"], call["activation"] = self._epsilon, self._head_width, self._activation
        rows = up(len(kv_caches), MOST_ROWS)
        # Besides what a product or the attention needs: for one thread the rows normed, for all those between products.
        most = rows * (4 * self._width + self._widest)
        room = max(room_for(rows, self._widest), room_for_attention(self._window, self._head_width)) + most
        self._tiles.crew.run(compiled, call, room=room)
        return logits
