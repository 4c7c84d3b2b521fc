"""The compiled decoder: steps of few tokens by the compiled kernel, which runs the whole model in one call.

Knows chunks, no requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from chat_app.inference.gpt2.weights import Weights
from chat_app.inference.model_runner import Chunk
from chat_app.kernels.packed_weights import KV_SLOT, DecodeStep, PackedWeights, max_kernel_rows

MAX_TOKENS = 112  # Of a step: a prefill chunk, and the sequences that decode meanwhile.
MAX_TOKENS_WITH_AMX = 192  # AMX makes products of many rows fast; more rows would take a larger workspace.


class CompiledDecoder:
    """Computes steps of few tokens.

    Args:
        weights: of the model. packed: its matrices.
        config: the model's.
        window: the most tokens of a sequence.

    Attributes:
        prefill_chunk_size: as ModelRunner.
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
        self.prefill_chunk_size = MAX_TOKENS_WITH_AMX if has_amx else max_kernel_rows()

    @property
    def is_ready(self) -> bool:
        """Whether the kernel is compiled."""
        return self._packed.kernel is not None

    def select(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """The chunks that are best computed together here: all that decode, and prefill chunks as far as there is room;
        if none decodes, only as many rows as the kernel multiplies fast.

        The kernel gives the same bits whatever the chunks are. Torch computes the others: its results are near, and
        depend on how many rows there are.
        """
        if not self.is_ready:
            return []
        selected = [chunk for chunk in chunks if len(chunk.ids) == 1]
        tokens = len(selected)
        most = self._max_tokens if selected else min(self._max_tokens, max_kernel_rows())
        for chunk in chunks:
            count = len(chunk.ids)
            if count > 1 and tokens + count <= most:
                selected.append(chunk)
                tokens += count
        return selected

    def step(self, chunks: Sequence[Chunk], hidden: Tensor) -> Tensor:
        """The logits after each chunk that needs them, float32 [such chunks, vocabulary]; the kernel appends the keys
        and values of all chunks to their KV caches.

        Args:
            hidden: float32 [tokens, width], the embeddings; it is overwritten.
        """
        kernel = self._packed.kernel
        assert kernel is not None, "asked for by is_ready"
        slots = np.array([slot for chunk in chunks for slot in chunk.kv_cache.slots(len(chunk.ids))], KV_SLOT)
        ends = np.cumsum([len(chunk.ids) for chunk in chunks], dtype=np.int64) - 1
        wanted = ends[[chunk.needs_logits for chunk in chunks]]
        return self._decode_step(kernel, hidden, slots, wanted)
