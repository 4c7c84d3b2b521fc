"""The model runner for GPT-2: its forward pass, written out so that chunks of several sequences go through the layers
as one batch and the weights are read once for all of them. Only attention treats the sequences separately.

The residual stream is float32, whatever the weights are. On a GPU the KV cache is paged, and decode steps are captured
as CUDA graphs; on the processor a compiled kernel decodes. Knows no requests and no text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from chat_app.inference.gpt2.attention import Attend, Attention, PagedDecodeAttention, PagedPrefillAttention
from chat_app.inference.gpt2.compiled_decoder import CompiledDecoder
from chat_app.inference.gpt2.cuda_graphs import COLUMNS, NO_TYPE, CudaGraphCapture, CudaGraphRunner
from chat_app.inference.gpt2.weights import WeightLayout, Weights, gpt2_weights
from chat_app.inference.kv_cache import ContiguousKVCache, KVCache
from chat_app.inference.kv_cache_packed import PackedKVCache
from chat_app.inference.kv_cache_paged import KVBlockPool, PagedKVCache
from chat_app.inference.model_runner import PREFILL_CHUNK, Chunk


class GPT2ModelRunner:
    """Runs one GPT-2.

    Args:
        model: for which `is_plain_gpt2` holds.
        window: the most tokens of a sequence.
        layout: of the weights, as `gpt2_weights` explains.
        paged: whether the KV cache is paged, for the layout "shared" only; default: on a GPU of CUDA.
        cuda_graphs: whether decode steps are captured then; default: on a GPU of CUDA.

    Raises:
        ModelError: the weights are not finite.
    """

    supports_batching = True

    def __init__(
        self,
        model: Any,
        window: int,
        layout: WeightLayout = "shared",
        paged: bool | None = None,
        cuda_graphs: bool | None = None,
    ):
        self._kv_dtype = model.dtype if layout == "shared" else torch.bfloat16
        self._weights = weights = gpt2_weights(model, layout)
        self._heads, self._width = model.config.n_head, model.config.n_embd // model.config.n_head
        self._window = window
        self.vocabulary = int(weights.embedding.shape[0])
        self.memory_bytes = weights.memory_bytes
        packed = weights.packed
        self._decoder = CompiledDecoder(weights, packed, model.config, window) if packed is not None else None
        self.prefill_chunk_size = self._decoder.prefill_chunk_size if self._decoder is not None else PREFILL_CHUNK
        device = weights.embedding.device
        on_cuda = device.type == "cuda"
        self._pool: KVBlockPool | None = None
        self._graph_runner: CudaGraphRunner | None = None
        if on_cuda if paged is None else paged:
            assert layout == "shared", "packed weights are for the processor"
            self._pool = KVBlockPool(len(weights.blocks), self._heads, self._width, window, self._kv_dtype, device)
            capture = CudaGraphCapture(device) if (on_cuda if cuda_graphs is None else cuda_graphs) else None
            decode = _PagedDecode(weights, self._pool, self._kv_dtype)
            self._graph_runner = CudaGraphRunner(decode, self._pool, window, self.vocabulary, capture)

    def new_kv_cache(self) -> KVCache:
        """An empty KV cache for a sequence."""
        if self._pool is not None:
            return PagedKVCache(self._pool)
        layers = len(self._weights.blocks)
        if self._decoder is not None:
            return PackedKVCache(layers, self._heads, self._width, self._window)
        device = self._weights.embedding.device
        return ContiguousKVCache(layers, self._heads, self._width, self._window, self._kv_dtype, device)

    @torch.inference_mode()
    def step(self, chunks: Sequence[Chunk]) -> list[Tensor]:
        """As ModelRunner."""
        logits = self._step(chunks) if self._graph_runner is None else self._paged_step(chunks, self._graph_runner)
        for chunk in chunks:
            chunk.kv_cache.length += len(chunk.ids)
        return [logits[id(chunk)] for chunk in chunks if chunk.needs_logits]

    def _step(self, chunks: Sequence[Chunk]) -> dict[int, Tensor]:
        """The logits after the chunks that need them, by the chunks' ids."""
        compiled = self._decoder.select(chunks) if self._decoder is not None else []
        selected = {id(chunk) for chunk in compiled}
        others = [chunk for chunk in chunks if id(chunk) not in selected]
        logits: dict[int, Tensor] = {}
        if self._decoder is not None and compiled:
            logits |= _by_chunk(_needing_logits(compiled), self._decoder.step(compiled, embed(self._weights, compiled)))
        if others:
            logits |= _by_chunk(_needing_logits(others), self._run_chunks(others))
        return logits

    def _paged_step(self, chunks: Sequence[Chunk], graph_runner: CudaGraphRunner) -> dict[int, Tensor]:
        """As `_step`. All logits are copied to the processor at once."""
        for chunk in chunks:
            chunk.kv_cache.reserve(len(chunk.ids))
        decoding = [chunk for chunk in chunks if len(chunk.ids) == 1]
        prefilling = [chunk for chunk in chunks if len(chunk.ids) > 1]
        parts = [graph_runner(decoding)] if decoding else []
        if prefilling:
            parts.append(self._run_chunks(prefilling).float())
        logits = _copy_to_cpu(torch.cat(parts) if len(parts) > 1 else parts[0])
        return _by_chunk([*decoding, *_needing_logits(prefilling)], logits)

    def _run_chunks(self, chunks: Sequence[Chunk]) -> Tensor:
        """The logits of the chunks that need them, in their order."""
        ordered = sorted(chunks, key=lambda chunk: len(chunk.ids) > 1)  # Those of one token first.
        hidden = embed(self._weights, ordered)  # [tokens of all chunks, width]
        attend: Attend
        if self._pool is None:
            attend = Attention(ordered, self._heads, self._width)
        else:
            attend = PagedPrefillAttention(ordered, self._pool)
        last = self._last_rows(chunks, ordered).to(hidden.device)
        return run_layers(self._weights, hidden, attend, self._kv_dtype, last)

    @staticmethod
    def _last_rows(chunks: Sequence[Chunk], ordered: Sequence[Chunk]) -> Tensor:
        """The rows of the last tokens of the chunks that need logits, in the order of `chunks`."""
        ends: dict[int, int] = {}
        row = -1
        for chunk in ordered:
            row += len(chunk.ids)
            ends[id(chunk)] = row
        last = [ends[id(chunk)] for chunk in chunks if chunk.needs_logits]
        return torch.tensor(last, dtype=torch.long, device="cpu")


class _PagedDecode:
    """Decodes one token of each sequence of a batch in place. Nothing depends on values, only on shapes, so a CUDA
    graph can capture it.

    Args:
        weights: of the model. pool: has the blocks.
        kv_dtype: of the KV cache.
    """

    def __init__(self, weights: Weights, pool: KVBlockPool, kv_dtype: torch.dtype):
        self._weights, self._pool, self._kv_dtype = weights, pool, kv_dtype

    def __call__(self, inputs: Tensor, logits: Tensor) -> None:
        """As DecodeBatch of `cuda_graphs`."""
        ids, types, positions, slots = inputs[:, :COLUMNS].unbind(1)
        embedding = self._weights.embedding
        hidden = functional.embedding(ids, embedding).float()
        hidden = hidden + functional.embedding(positions, self._weights.positions)
        typed = functional.embedding(types.clamp_min(0), embedding).float()
        hidden.add_(typed.masked_fill_((types == NO_TYPE)[:, None], 0.0))
        attend = PagedDecodeAttention(self._pool.data, positions, slots, inputs[:, COLUMNS:])
        logits.copy_(run_layers(self._weights, hidden, attend, self._kv_dtype))


def embed(weights: Weights, chunks: Sequence[Chunk]) -> Tensor:
    """The sum of the token, position and type embeddings of chunks, float32 [tokens of all chunks, width]."""
    device = weights.embedding.device
    ids = torch.tensor([token for chunk in chunks for token in chunk.ids], dtype=torch.long, device=device)
    spans = [range(chunk.kv_cache.length, chunk.kv_cache.length + len(chunk.ids)) for chunk in chunks]
    positions = torch.tensor([position for span in spans for position in span], dtype=torch.long, device=device)
    hidden = functional.embedding(ids, weights.embedding).float()
    hidden = hidden + functional.embedding(positions, weights.positions)
    if any(chunk.types is not None for chunk in chunks):
        rows: list[int] = []
        types: list[int] = []
        start = 0
        for chunk in chunks:
            if chunk.types is not None:
                rows += range(start, start + len(chunk.ids))
                types += chunk.types
            start += len(chunk.ids)
        token_types = torch.tensor(types, dtype=torch.long, device=device)
        more = functional.embedding(token_types, weights.embedding).float()
        hidden.index_add_(0, torch.tensor(rows, dtype=torch.long, device=device), more)
    return hidden


def run_layers(
    weights: Weights, hidden: Tensor, attend: Attend, kv_dtype: torch.dtype, last: Tensor | None = None
) -> Tensor:
    """Run the transformer's layers and the head.

    Args:
        hidden: float32 [rows, width], the embeddings; it is overwritten.
        kv_dtype: the dtype that `attend` computes in.
        last: the rows whose logits are needed; default: all.

    Returns:
        The logits of the next token after each of these rows, [last, vocabulary].
    """
    for index, block in enumerate(weights.blocks):
        qkv = block.qkv_proj(block.ln_1(hidden)).to(kv_dtype)
        attended = attend(qkv, index, block.scale)
        if last is not None and index == len(weights.blocks) - 1:  # The other rows are in the KV cache and done.
            if not len(last):
                return hidden.new_empty(0, len(weights.embedding))
            hidden, attended = hidden[last], attended[last]
        hidden.add_(block.out_proj(attended.float()))
        hidden.add_(block.fc_out(weights.activation(block.fc_in(block.ln_2(hidden)))))
    return weights.head(weights.ln_f(hidden))


def _needing_logits(chunks: Sequence[Chunk]) -> list[Chunk]:
    return [chunk for chunk in chunks if chunk.needs_logits]


def _by_chunk(chunks: Sequence[Chunk], logits: Tensor) -> dict[int, Tensor]:
    return dict(zip(map(id, chunks), logits, strict=True))


def _copy_to_cpu(logits: Tensor) -> Tensor:
    """A copy that the next step does not overwrite. A GPU writes to pinned memory by itself."""
    copy = torch.empty(logits.shape, dtype=logits.dtype, device="cpu", pin_memory=logits.is_cuda)
    copy.copy_(logits, non_blocking=True)
    if logits.is_cuda:
        torch.cuda.current_stream(logits.device).synchronize()
    return copy
