"""The model runner: one forward pass over chunks of several sequences, which returns the logits of their next tokens.

Here is the runner for every causal language model of transformers, one sequence after the other; the batching one for
GPT-2 is in `gpt2.model_runner`. Knows no requests, no sampling and no text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from chat_app.errors import ModelError
from chat_app.inference.kv_cache import KVCache, TransformersKVCache
from chat_app.models.transformers_internals import accepts, cache_argument

# Tokens of a prefill step: matrix products are as fast as they get by then, and other sequences wait only for a moment.
PREFILL_CHUNK = 384


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

    Raises:
        ModelError: the model has no KV cache.
    """

    supports_batching = False
    prefill_chunk_size = PREFILL_CHUNK

    def __init__(self, model: Any):
        name = cache_argument(model)
        if name is None:
            raise ModelError("This kind of model cannot be used to chat here: it keeps no key/value cache.")
        self._model, self._cache_argument = model, name
        self._last_only = {"logits_to_keep": 1} if accepts(model, "logits_to_keep") else {}
        self.vocabulary = model.get_input_embeddings().weight.shape[0]
        self.memory_bytes = tensor_bytes(model)

    def new_kv_cache(self) -> TransformersKVCache:
        """An empty KV cache for a sequence."""
        return TransformersKVCache(self._model.config)

    @torch.inference_mode()
    def step(self, chunks: Sequence[Chunk]) -> list[Tensor]:
        """As ModelRunner."""
        logits = [self._run(chunk) for chunk in chunks]
        return [one for one, chunk in zip(logits, chunks, strict=True) if chunk.needs_logits]

    def _run(self, chunk: Chunk) -> Tensor:
        device = self._model.device
        ids = torch.tensor([chunk.ids], dtype=torch.long, device=device)  # [1, tokens]
        inputs: dict[str, Any] = {"input_ids": ids, self._cache_argument: chunk.kv_cache.cache}
        if chunk.types is not None:
            inputs["token_type_ids"] = torch.tensor([chunk.types], dtype=torch.long, device=device)
        output = self._model(**inputs, **self._last_only, use_cache=True)
        chunk.kv_cache.length += len(chunk.ids)
        logits: Tensor = output.logits[0, -1]
        return logits


def tensor_bytes(model: Any) -> int:
    """The size of a model's tensors in bytes; tied ones count once."""
    tensors = [*model.parameters(), *model.buffers()]
    storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}
    return sum(storages.values())
