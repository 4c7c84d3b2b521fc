"""The steps of replies that are being written, one token of each, by the compiled function. Knows no prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chat_app.forward import Piece
from chat_app.gpt2_weights import COMPILED, Weights
from chat_app.tiles import LANES, MOST_ROWS, Tiles


class Writer:
    """Computes steps in which every piece is one token.

    Args:
        weights: of the model. tiles: those of its products.
        config: the model's.
        window: the most tokens of a sequence.
    """

    def __init__(self, weights: Weights, tiles: Tiles, config: Any, window: int):
        self._tiles, self._window = tiles, window
        self._activation = COMPILED[config.activation_function]
        self._vocabulary, self._width = weights.embedding.shape
        norms = [norm for block in weights.blocks for norm in (block.before_attention, block.before_mlp)]
        places = [tiles.put_floats(norm.weight, norm.bias) for norm in (*norms, weights.last_norm)]
        self._norms = np.array(places, np.int64)
        self._scales = np.array([block.scale for block in weights.blocks], np.float32)
        self._epsilon = np.float32(weights.last_norm.epsilon)
        self._head_width = self._width // config.n_head
        self._widest = max(max(size) for size in tiles.sizes[:-1])

    @property
    def is_ready(self) -> bool:
        """Whether the function is compiled."""
        return self._tiles.compiled is not None

    def step(self, pieces: Sequence[Piece], hidden: Tensor) -> Tensor:
        """The scores after each piece, float32 [pieces, vocabulary]; the pieces' memories get its keys and values.

        Args:
            hidden: float32 [pieces, width]: what goes into the first layer; changed.
        """
        compiled = self._tiles.compiled
        model = compiled.Model(
            self._norms, self._scales, self._epsilon, self._head_width, getattr(compiled, self._activation)
        )
        memories = np.array([piece.memory.place() for piece in pieces], np.int64)
        scores = torch.empty(len(pieces), self._vocabulary)
        rows = -(-len(pieces) // MOST_ROWS) * MOST_ROWS
        # For one thread: a tile's results, a row's scale, the rows as whole numbers, and normed; for all: the rows
        # between products. The attention of a row to the whole window stands where the first of these do.
        own = MOST_ROWS * LANES + rows * (1 + self._widest + self._width)
        room = max(own, rows * (4 * self._width + self._widest), self._window + rows * self._width)
        matrices = self._tiles.matrices(compiled)
        self._tiles.crew.run(
            compiled, compiled.step, matrices, model, hidden.numpy(), memories, scores.numpy(), room=room
        )
        return scores
