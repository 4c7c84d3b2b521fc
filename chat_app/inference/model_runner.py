"""The model runner: one forward pass over chunks of several sequences, which returns the logits of their next tokens.

Here is the runner for every causal language model of transformers; the one with GPT-2's own forward pass is in
`gpt2.model_runner`. Knows no requests, no sampling and no text.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

import torch
from torch import Tensor

from chat_app.errors import ModelError
from chat_app.inference.kv_cache import KVCache, TransformersKVCache
from chat_app.inference.kv_cache_layered import LayeredKVCache
from chat_app.inference.sequence_batch import SequenceBatch
from chat_app.models.transformers_internals import (
    accepts,
    batching_obstacle,
    cache_argument,
    replaced_attention,
    sliding_windows,
)

# Tokens of a prefill step: matrix products are as fast as they get by then, and other sequences wait only for a moment.
PREFILL_CHUNK = 384
TRIAL_TOKENS, TRIAL_STRIDE = 6, 7  # Of each sequence of the trial; its ids are so far apart.
LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chunk:
    """Consecutive tokens of one sequence that a step computes: a part of its prompt (chunked prefill), or the token
    that was sampled last (decode).

    Attributes:
        ids: the tokens that follow those in `kv_cache`; at least one.
        types: their token types, or None.
        kv_cache: of the sequence; the step appends the tokens to it.
        needs_logits: whether the logits after the last token are needed, because the next token is sampled from them.
    """

    ids: list[int]
    types: list[int] | None
    kv_cache: Any
    needs_logits: bool


class ModelRunner(Protocol):
    """What the engine needs of a model.

    Attributes:
        supports_batching: whether several chunks are faster in one step than one after the other.
        prefill_chunk_size: how many tokens of prompts it computes best in a step.
        vocabulary: how many tokens it knows.
        memory_bytes: the size of its weights.
    """

    supports_batching: bool
    prefill_chunk_size: int
    vocabulary: int
    memory_bytes: int

    def new_kv_cache(self) -> KVCache:
        """An empty KV cache for a sequence."""

    def step(self, chunks: Sequence[Chunk]) -> list[Tensor]:
        """Compute chunks of different sequences. If a batched step fails, the KV caches are as they were.

        Returns:
            For each chunk that needs logits, in their order: the logits of the next token, [vocabulary], in float32 or
            the model's dtype.
        """


class TransformersModelRunner:
    """Runs any causal language model of transformers.

    Args:
        model: it stays as it is, except during a step.
        window: the most tokens of a sequence. Given, chunks of several sequences are computed in one forward pass if
            a trial shows that the model can do so; else, each has its own.

    Raises:
        ModelError: the model has no KV cache.
    """

    prefill_chunk_size = PREFILL_CHUNK

    def __init__(self, model: Any, window: int | None = None):
        name = cache_argument(model)
        if name is None:
            raise ModelError("This kind of model cannot be used to chat here: it keeps no key/value cache.")
        self._model, self._cache_argument = model, name
        self._keeps_logits = accepts(model, "logits_to_keep")
        self._window, self._sliding_windows = window or 0, sliding_windows(model)
        self.vocabulary = model.get_input_embeddings().weight.shape[0]
        self.memory_bytes = tensor_bytes(model)
        self.supports_batching = window is not None and self._can_batch()

    def new_kv_cache(self) -> KVCache:
        """An empty KV cache for a sequence."""
        return LayeredKVCache(self._window) if self.supports_batching else TransformersKVCache(self._model.config)

    @torch.inference_mode()
    def step(self, chunks: Sequence[Chunk]) -> list[Tensor]:
        """As ModelRunner."""
        if self.supports_batching:
            return self._run_batch(chunks)
        logits = [self._run(chunk) for chunk in chunks]
        return [one for one, chunk in zip(logits, chunks, strict=True) if chunk.needs_logits]

    def _run(self, chunk: Chunk) -> Tensor:
        inputs = self._inputs([chunk])
        inputs[self._cache_argument] = chunk.kv_cache.cache
        if self._keeps_logits:
            inputs["logits_to_keep"] = 1
        output = self._model(**inputs, use_cache=True)
        chunk.kv_cache.length += len(chunk.ids)
        logits: Tensor = output.logits[0, -1]
        return logits

    def _run_batch(self, chunks: Sequence[Chunk]) -> list[Tensor]:
        logits: dict[int, Tensor] = {}
        for typed in (False, True):  # An embedding of types is added to all tokens of a forward pass, or to none.
            group = [chunk for chunk in chunks if (chunk.types is not None) == typed]
            if group:
                needing = [id(chunk) for chunk in group if chunk.needs_logits]
                logits |= dict(zip(needing, self._run_group(group), strict=True))
        for chunk in chunks:
            chunk.kv_cache.length += len(chunk.ids)
        return [logits[id(chunk)] for chunk in chunks if chunk.needs_logits]

    def _run_group(self, chunks: Sequence[Chunk]) -> Tensor:
        """The logits of the chunks that need them, [chunks, vocabulary]. All have token types, or none has."""
        counts = [len(chunk.ids) for chunk in chunks]
        kv_caches = [chunk.kv_cache for chunk in chunks]
        device = self._model.device
        spans = [range(cache.length, cache.length + count) for cache, count in zip(kv_caches, counts, strict=True)]
        positions = torch.tensor([[position for span in spans for position in span]], dtype=torch.long, device=device)
        ends = [end - 1 for end, chunk in zip(accumulate(counts), chunks, strict=True) if chunk.needs_logits]
        rows = torch.tensor(ends, dtype=torch.long, device=device)
        inputs = self._inputs(chunks) | {"position_ids": positions}
        if self._keeps_logits:
            inputs["logits_to_keep"] = rows
        batch = SequenceBatch(kv_caches, counts, self._sliding_windows)
        with replaced_attention(self._model, batch) as arguments:
            logits: Tensor = self._model(**inputs, **arguments).logits[0]
        batch.check_attended()
        return logits if self._keeps_logits else logits[rows]

    def _inputs(self, chunks: Sequence[Chunk]) -> dict[str, Any]:
        """The ids and types of chunks in one row, each [1, tokens]."""
        ids = [token for chunk in chunks for token in chunk.ids]
        inputs = {"input_ids": torch.tensor([ids], dtype=torch.long, device=self._model.device)}
        if chunks[0].types is not None:
            types = [kind for chunk in chunks for kind in chunk.types or ()]
            inputs["token_type_ids"] = torch.tensor([types], dtype=torch.long, device=self._model.device)
        return inputs

    @torch.inference_mode()
    def _can_batch(self) -> bool:
        """Whether steps for several sequences at once give what the model gives for each: by what is known about it,
        and by a trial."""
        obstacle = batching_obstacle(self._model)
        if obstacle is None:
            try:
                obstacle = self._batching_fault()
            except Exception as error:  # The code of the model may be anything.
                obstacle = f"a trial failed ({type(error).__name__}: {error})"
        if obstacle is not None:
            LOGGER.info("%s writes replies one after the other: %s", type(self._model).__name__, obstacle)
        return obstacle is None

    def _batching_fault(self) -> str | None:
        """Try two sequences in one forward pass each, and in two batched steps that divide them differently."""
        count = min(TRIAL_TOKENS, self._window)
        ids = torch.arange(2 * count, dtype=torch.long, device=self._model.device).view(2, count)
        ids = ids * TRIAL_STRIDE % self.vocabulary
        wanted = self._model(input_ids=ids, use_cache=False).logits.float()  # [2, tokens, vocabulary]
        kv_caches = [LayeredKVCache(self._window) for _ in ids]
        cuts = [count // 2, count - 1]
        found = []
        for spans in ([slice(0, cut) for cut in cuts], [slice(cut, count) for cut in cuts]):
            parts = zip(ids.tolist(), spans, kv_caches, strict=True)
            found.append(self._run_batch([Chunk(row[span], None, cache, True) for row, span, cache in parts]))
        wanted_rows = torch.stack([wanted[0, cuts[0] - 1], wanted[1, cuts[1] - 1], wanted[0, -1], wanted[1, -1]])
        difference = (torch.stack([*found[0], *found[1]]).float() - wanted_rows).norm() / wanted_rows.norm()
        limit = torch.finfo(self._model.dtype).eps ** 0.5
        return None if difference <= limit else f"their logits differ by {difference:.2g} in a batched step"


def tensor_bytes(model: Any) -> int:
    """The size of a model's tensors in bytes; tied ones count once."""
    tensors = [*model.parameters(), *model.buffers()]
    storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}
    return sum(storages.values())
