"""CUDA graphs of decode steps: the step is captured once for some batch sizes and lengths and then replayed, so that
the GPU is given one command instead of a thousand small ones, whose launch takes longer than their work.

Knows chunks and blocks, no weights.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from chat_app.inference.kv_cache_paged import KVBlockPool
from chat_app.inference.model_runner import Chunk

LOGGER = logging.getLogger(__name__)
MAX_BATCH_SIZE = 16  # Of one call; more sequences are computed in groups.
COLUMNS = 4  # Of the inputs, before the block table: token, type or NO_TYPE, position, slot.
NO_TYPE = -1
_WARM_UPS = 3

DecodeBatch = Callable[[Tensor, Tensor], None]
"""Computes a batch in place: takes inputs int64 [rows, COLUMNS + blocks], writes logits float32 [rows, vocabulary]."""
Capture = Callable[[Callable[[], None]], Callable[[], None]]
"""Captures a function, which uses the same tensors each time; returns a function that replays it."""


class CudaGraphRunner:
    """Decodes chunks of one token.

    Args:
        decode: computes a batch.
        pool: has the blocks of the KV caches.
        window: the most tokens of a sequence.
        vocabulary: how many tokens the model knows.
        capture: None where nothing can be captured; then batches are not padded either.
    """

    def __init__(self, decode: DecodeBatch, pool: KVBlockPool, window: int, vocabulary: int, capture: Capture | None):
        device = pool.data.device
        self._decode, self._pool, self._capture = decode, pool, capture
        self._max_blocks = pool.blocks_for(window)
        self._inputs = torch.zeros(MAX_BATCH_SIZE * (COLUMNS + self._max_blocks), dtype=torch.long, device=device)
        self._logits = torch.zeros(MAX_BATCH_SIZE, vocabulary, dtype=torch.float32, device=device)
        self._graphs: dict[tuple[int, int], Callable[[], None]] = {}  # By the shape of the inputs.
        self._reallocations = pool.reallocations  # The graphs hold the address that the pool had after so many.

    def __call__(self, chunks: Sequence[Chunk]) -> Tensor:
        """The logits after each chunk, float32 [chunks, vocabulary], on the pool's device; valid until the next call.

        Args:
            chunks: at least one; the caches have blocks for their tokens.
        """
        groups = [chunks[start : start + MAX_BATCH_SIZE] for start in range(0, len(chunks), MAX_BATCH_SIZE)]
        if len(groups) == 1:
            return self._run_group(chunks)
        return torch.cat([self._run_group(group).clone() for group in groups])

    def _run_group(self, chunks: Sequence[Chunk]) -> Tensor:
        count = len(chunks)
        blocks = max(self._pool.blocks_for(chunk.kv_cache.length + 1) for chunk in chunks)
        rows = count
        if self._capture is not None:
            rows, blocks = _next_power_of_two(count, MAX_BATCH_SIZE), _next_power_of_two(blocks, self._max_blocks)
        inputs = self._inputs[: rows * (COLUMNS + blocks)].view(rows, COLUMNS + blocks)
        # A GPU reads pinned memory while this thread goes on.
        values = _input_rows(chunks, rows, blocks)
        pinned = torch.tensor(values, dtype=torch.long, device="cpu", pin_memory=inputs.is_cuda)
        inputs.copy_(pinned, non_blocking=True)
        self._run(inputs, self._logits[:rows])
        return self._logits[:count]

    def _run(self, inputs: Tensor, logits: Tensor) -> None:
        """Replay the graph of this shape; the first time, compute directly and capture the graph."""
        if self._reallocations != self._pool.reallocations:
            self._graphs.clear()  # The blocks have moved.
            self._reallocations = self._pool.reallocations
        shape = (inputs.shape[0], inputs.shape[1])
        replay = self._graphs.get(shape)
        if replay is not None:
            return replay()
        function = partial(self._decode, inputs, logits)
        function()
        if self._capture is not None:
            try:
                self._graphs[shape] = self._capture(function)
            except Exception:  # Whatever it is: computing directly gives the same results.
                LOGGER.warning("decode steps cannot be captured on this device; replies take longer", exc_info=True)
                self._capture = None
                self._graphs.clear()  # They may share memory with the capture that failed.
        return None


def _next_power_of_two(count: int, most: int) -> int:
    return min(1 << (count - 1).bit_length(), most)


def _input_rows(chunks: Sequence[Chunk], rows: int, blocks: int) -> list[list[int]]:
    """The inputs of chunks, padded to `rows`: a padding row is the first token of a sequence in block 0."""
    inputs = []
    for chunk in chunks:
        kv_cache = chunk.kv_cache
        token_type = chunk.types[0] if chunk.types is not None else NO_TYPE
        table = kv_cache.block_table[:blocks]
        # Padding entries are masked, but must not hold NaN: the sequence's own first block is as finite as its rows.
        table = table + table[:1] * (blocks - len(table))
        inputs.append([chunk.ids[0], token_type, kv_cache.length, *kv_cache.slots(1), *table])
    return inputs + [[0, NO_TYPE, *[0] * (COLUMNS - 2 + blocks)]] * (rows - len(chunks))


class CudaGraphCapture:
    """Captures CUDA graphs on one device. They share memory, so only one may run at a time, and all are dropped
    together: destroying one frees a workspace that torch gave to all graphs that were captured on the same stream.

    Source: PyTorch's notes on CUDA semantics, "CUDA Graphs".
    """

    _lock: ClassVar[threading.Lock] = threading.Lock()  # torch captures one graph at a time in a process.

    def __init__(self, device: torch.device):
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._memory = torch.cuda.graph_pool_handle()

    def __call__(self, function: Callable[[], None]) -> Callable[[], None]:
        """As Capture. `function` runs a few times before: libraries initialize themselves in ways that no graph
        holds."""
        graph = torch.cuda.CUDAGraph()
        with self._lock, torch.cuda.device(self._device):
            before = torch.cuda.current_stream()
            self._stream.wait_stream(before)
            with torch.cuda.stream(self._stream):  # Restores the stream also if the capture fails.
                for _ in range(_WARM_UPS):
                    function()
                # Other threads may use the GPU meanwhile, such as another model's engine.
                mode = "thread_local"
                with torch.cuda.graph(graph, self._memory, self._stream, capture_error_mode=mode):
                    function()
            before.wait_stream(self._stream)
        return graph.replay
