"""Decode steps of sequences by the compiled kernel. Knows pieces, no requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from chat_app.inference.gpt2.weights import Weights
from chat_app.inference.model_runner import PROMPT_PIECE, Piece
from chat_app.kernels.packed_weights import KV_SLOT, DecodeStep, PackedWeights, max_kernel_rows

MAX_TOKENS = 112  # Of a step: a piece of a prompt, and the sequences that decode meanwhile.
MAX_TOKENS_WITH_AMX = 192  # AMX makes products of many rows fast; more rows would take a larger workspace.


class Writer:
    """Computes steps of few tokens.

    Args:
        weights: of the model. packed: its matrices.
        config: the model's.
        window: the most tokens of a sequence.

    Attributes:
        prompt_piece: as Forward.
    """

    def __init__(self, weights: Weights, packed: PackedWeights, config: Any, window: int):
        self._packed = packed
        norms = [norm for block in weights.blocks for norm in (block.ln_1, block.ln_2)]
        self._decode_step = DecodeStep(
            packed,
            norms=[(norm.weight, norm.bias) for norm in (*norms, weights.ln_f)],
            attention_scales=[block.scale for block in weights.blocks],
            epsilon=weights.ln_f.epsilon,
            activation=config.activation_function,
            head_width=weights.embedding.shape[1] // config.n_head,
            window=window,
        )
        has_amx = max_kernel_rows() > MAX_TOKENS
        self._max_tokens = MAX_TOKENS_WITH_AMX if has_amx else MAX_TOKENS
        self.prompt_piece = MAX_TOKENS_WITH_AMX if has_amx else PROMPT_PIECE

    @property
    def is_ready(self) -> bool:
        """Whether the kernel is compiled."""
        return self._packed.kernel is not None

    def takes(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Those of these pieces that are best computed together here: all that decode, and pieces of prompts as far as
        there is room; if none decodes, only as many rows as the kernel multiplies fast.

        The kernel gives the same bits whatever the pieces are. Torch computes the others: its results are near, and
        depend on how many rows there are.
        """
        if not self.is_ready:
            return []
        taken = [piece for piece in pieces if len(piece.ids) == 1]
        tokens = len(taken)
        most = self._max_tokens if taken else min(self._max_tokens, max_kernel_rows())
        for piece in pieces:
            count = len(piece.ids)
            if count > 1 and tokens + count <= most:
                taken.append(piece)
                tokens += count
        return taken

    def step(self, pieces: Sequence[Piece], hidden: Tensor) -> Tensor:
        """The logits after each piece that is last, float32 [such pieces, vocabulary]; the KV caches of the pieces get
        their keys and values.

        Args:
            hidden: float32 [tokens, width], the embeddings; it is overwritten.
        """
        kernel = self._packed.kernel
        assert kernel is not None, "asked for by is_ready"
        slots = np.array([slot for piece in pieces for slot in piece.memory.slots(len(piece.ids))], KV_SLOT)
        ends = np.cumsum([len(piece.ids) for piece in pieces], dtype=np.int64) - 1
        wanted = ends[[piece.is_last for piece in pieces]]
        return self._decode_step(kernel, hidden, slots, wanted)
