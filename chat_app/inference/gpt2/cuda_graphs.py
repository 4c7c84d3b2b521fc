"""Steps of one token of several sequences, as replies are written, recorded once for some numbers of sequences and
lengths: a GPU is then told once what to do, and not by a thousand small calls that take longer than the work.

Knows pieces and pages, no weights.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from chat_app.inference.kv_cache_paged import Pages
from chat_app.inference.model_runner import Piece

LOGGER = logging.getLogger(__name__)
MOST_ROWS = 16  # Of one call; more sequences are computed in groups.
COLUMNS = 4  # Of the inputs, before the pages: token, type or NO_TYPE, tokens before it, slot.
NO_TYPE = -1
_WARM_UPS = 3

Rows = Callable[[Tensor, Tensor], None]
"""Computes rows in place: inputs int64 [rows, COLUMNS + pages]; scores float32 [rows, vocabulary], which it writes."""
Recorder = Callable[[Callable[[], None]], Callable[[], None]]
"""Makes of a function that works on the same tensors each time one that does the same without it."""


class GraphStep:
    """Computes pieces of one token.

    Args:
        rows: what computes them.
        pool: where the pages of their memories are.
        window: the most tokens of a sequence.
        vocabulary: how many tokens the model knows.
        record: None where nothing can be recorded; nothing is filled up then either.
    """

    def __init__(self, rows: Rows, pool: Pages, window: int, vocabulary: int, record: Recorder | None):
        device = pool.numbers.device
        self._rows, self._pool, self._record = rows, pool, record
        self._most_pages = pool.count_for(window)
        self._inputs = torch.zeros(MOST_ROWS * (COLUMNS + self._most_pages), dtype=torch.long, device=device)
        self._scores = torch.zeros(MOST_ROWS, vocabulary, dtype=torch.float32, device=device)
        self._recorded: dict[tuple[int, int], Callable[[], None]] = {}  # By how many rows and pages.
        self._growths = pool.growths  # At which of them what is recorded finds its pages.

    def __call__(self, pieces: Sequence[Piece]) -> Tensor:
        """The scores after each piece, float32 [pieces, vocabulary]; on the pool's device, until the next call.

        Args:
            pieces: at least one; there is room for their tokens.
        """
        groups = [pieces[at : at + MOST_ROWS] for at in range(0, len(pieces), MOST_ROWS)]
        if len(groups) == 1:
            return self._group(pieces)
        return torch.cat([self._group(group).clone() for group in groups])

    def _group(self, pieces: Sequence[Piece]) -> Tensor:
        count = len(pieces)
        pages = max(self._pool.count_for(piece.memory.length + 1) for piece in pieces)
        rows = count
        if self._record is not None:
            rows, pages = _up(count, MOST_ROWS), _up(pages, self._most_pages)
        inputs = self._inputs[: rows * (COLUMNS + pages)].view(rows, COLUMNS + pages)
        # Pinned memory is read by a GPU while this thread goes on.
        numbers = _numbers(pieces, rows, pages)
        given = torch.tensor(numbers, dtype=torch.long, device="cpu", pin_memory=inputs.is_cuda)
        inputs.copy_(given, non_blocking=True)
        self._run(inputs, self._scores[:rows])
        return self._scores[:count]

    def _run(self, inputs: Tensor, scores: Tensor) -> None:
        """Compute by what is recorded; the first time by the function itself, and record it."""
        if self._growths != self._pool.growths:
            self._recorded.clear()  # The pages have moved.
            self._growths = self._pool.growths
        shape = (inputs.shape[0], inputs.shape[1])
        recorded = self._recorded.get(shape)
        if recorded is not None:
            return recorded()
        function = partial(self._rows, inputs, scores)
        function()
        if self._record is not None:
            try:
                self._recorded[shape] = self._record(function)
            except Exception:  # Whatever it is: the function itself does the same.
                LOGGER.warning("steps cannot be recorded on this device; replies take longer", exc_info=True)
                self._record = None
                self._recorded.clear()  # They may share memory with the one that broke off.
        return None


def _up(count: int, most: int) -> int:
    """The next power of two, or the most there can be."""
    return min(1 << (count - 1).bit_length(), most)


def _numbers(pieces: Sequence[Piece], rows: int, pages: int) -> list[list[int]]:
    """The inputs for pieces, and for rows that only fill up: those are the first token of a sequence on page 0."""
    numbers = []
    for piece in pieces:
        memory = piece.memory
        kind = piece.types[0] if piece.types is not None else NO_TYPE
        table = memory.pages[:pages]
        # What stands after them is not seen, but must be numbers: its own are as good as the row itself.
        table = table + table[:1] * (pages - len(table))
        numbers.append([piece.ids[0], kind, memory.length, *memory.slots(1), *table])
    return numbers + [[0, NO_TYPE, *[0] * (COLUMNS - 2 + pages)]] * (rows - len(pieces))


class CudaRecorder:
    """Records CUDA graphs on one device. They share memory, so only one may run at a time, and all are let go of
    together: destroying one takes away a workspace that torch gave to all that were recorded on the same stream.

    Source: PyTorch's notes on CUDA semantics, "CUDA Graphs".
    """

    _alone: ClassVar[threading.Lock] = threading.Lock()  # torch records one at a time in a process.

    def __init__(self, device: torch.device):
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._memory = torch.cuda.graph_pool_handle()

    def __call__(self, function: Callable[[], None]) -> Callable[[], None]:
        """As Recorder. `function` runs a few times: libraries prepare themselves in ways that cannot be recorded."""
        graph = torch.cuda.CUDAGraph()
        with self._alone, torch.cuda.device(self._device):
            before = torch.cuda.current_stream()
            self._stream.wait_stream(before)
            with torch.cuda.stream(self._stream):  # Leads back to the stream before also if a recording breaks off.
                for _ in range(_WARM_UPS):
                    function()
                # Other threads may use the GPU meanwhile, such as another model's engine.
                mode = "thread_local"
                with torch.cuda.graph(graph, self._memory, self._stream, capture_error_mode=mode):
                    function()
            before.wait_stream(self._stream)
        return graph.replay
