"""A model's weights in tiles, as the compiled step reads them, and how to multiply with them.

Where several rows are multiplied at once, a matrix is laid out plainly first and goes through torch: for many rows
nothing is faster. Knows no model.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from chat_app.devices import bfloat16_is_fast
from chat_app.tile_shape import AHEAD, LANES, MOST_ROWS

LOGGER = logging.getLogger(__name__)
FEW_ROWS = 96  # Up to so many rows the compiled product is faster than laying the matrix out.
_LEAST_ROOM = 4096
_PUT_AT_ONCE = 16 * LANES
_SMALLEST = 1e-30


@cache
def kernel(eight_bits: bool) -> Future[Any]:
    """The compiled functions for one kind of weights: at once where they were compiled before, else after seconds.

    They are compiled in a thread of their own; until then, and where that fails, torch does their work.
    """
    compiled: Future[Any] = Future()

    def work() -> None:
        try:
            compiled.set_result(_compile(eight_bits))
        except Exception as error:  # The thread's edge. Chatting goes on without.
            LOGGER.warning("the fast way to compute replies cannot be used here", exc_info=True)
            compiled.set_exception(error)

    threading.Thread(target=work, name="compiler", daemon=True).start()
    return compiled


def _compile(eight_bits: bool) -> Any:
    import numba

    config: Any = numba.config
    folder = Path(__file__).parent
    parts = [folder / f"{name}.py" for name in ("tile_shape", "tile_products", "decode_kernel")]
    digest = hashlib.sha256(b"".join(one.read_bytes() for one in parts)).hexdigest()[:12]
    if not config.CACHE_DIR:  # What is kept there must change with each of the files.
        config.CACHE_DIR = str(_cache_folder(folder) / f"kernel-{digest}")
    from chat_app import decode_kernel

    _rehearse(decode_kernel, eight_bits)
    return decode_kernel


def _cache_folder(package: Path) -> Path:
    """Beside the package where that can be written to, as for its own compiled files; else where the user's are."""
    import platformdirs

    beside = package / "__pycache__"
    return beside if os.access(beside, os.W_OK) else Path(platformdirs.user_cache_dir("chat_app"))


def _rehearse(compiled: Any, eight_bits: bool) -> None:
    """Call every function once, with arrays of the kinds that it will be called with."""
    ready: Future[Any] = Future()
    ready.set_result(compiled)
    tiles = Tiles([(192, 64), *[(64, 64)] * 4], eight_bits, ready)
    for number, (outputs, inputs) in enumerate(tiles.sizes):
        tiles.put(number, torch.zeros(inputs, outputs), None)
    norms = np.full(3, tiles.put_floats(torch.zeros(128)), np.int64)
    model = compiled.Model(norms, np.ones(1, np.float32), np.float32(1e-5), 64, compiled.GELU_TANH)
    memory = torch.zeros(1, 2, 1, 8, 64, dtype=torch.bfloat16)
    hidden, scores = np.zeros((1, 64), np.float32), np.zeros((1, 64), np.float32)
    places, wanted = np.array([[memory.data_ptr(), 8, 0]], np.int64), np.zeros(1, np.int64)
    tiles.crew.run(compiled, compiled.step, tiles.matrices(compiled), model, hidden, places, wanted, scores)
    for rows in (1, FEW_ROWS + 1):  # Multiplied, and laid out.
        tiles.multiplied(1, torch.zeros(rows, 64))


class Crew:
    """Threads that run a compiled function together; one of them is the caller's."""

    def __init__(self) -> None:
        self._counter = np.zeros(1, np.int64)
        self._work = np.empty((2, _LEAST_ROOM), np.float32)
        self._pool = ThreadPoolExecutor(256, thread_name_prefix="crew")  # Starts as many as there is work for.

    def run(self, compiled: Any, function: Callable[..., None], *arguments: Any, room: int = _LEAST_ROOM) -> None:
        """Run it in as many threads as torch may use now, with room for so many float32 for each."""
        threads = torch.get_num_threads()
        rows, words = self._work.shape
        if rows <= threads or words < room:
            self._work = np.empty((max(threads + 1, rows), max(room, words)), np.float32)
        self._counter[0] = 0
        crew = compiled.Crew(threads, self._counter.ctypes.data, self._work[: threads + 1])
        others = [self._pool.submit(function, me, crew, *arguments) for me in range(1, threads)]
        function(0, crew, *arguments)
        for one in others:
            one.result()


class Tiles:
    """The matrices of a model, in one block of memory.

    Args:
        sizes: outputs and inputs of each; inputs are even.
        eight_bits: whole numbers from -127 to 127 with a scale for each output; else bfloat16.
        compiled: where the compiled functions will be; default `kernel`.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], eight_bits: bool, compiled: Any = None):
        self._kernel = compiled or kernel(eight_bits)
        self.sizes, self._eight_bits = tuple(sizes), eight_bits
        counts = [-(-outputs // LANES) * LANES * inputs for outputs, inputs in sizes]
        self._starts = np.cumsum([0, *counts])
        # numpy asks for large pages, with which reading all of it takes half the time.
        self._numbers = np.empty(self._starts[-1] + 2 * AHEAD, np.int8 if eight_bits else np.uint16)
        self._floats: list[Tensor] = []
        self._count = 0  # Of the floats.
        self._shape = np.zeros((len(sizes), 4), np.int64)
        self._plainly = torch.empty(0, dtype=torch.bfloat16)
        self._kept: dict[int, Tensor] = {}
        self.crew = Crew()

    @property
    def compiled(self) -> Any:
        """The compiled functions, or None while there are none."""
        return self._kernel.result() if self._kernel.done() and self._kernel.exception() is None else None

    @property
    def memory_bytes(self) -> int:
        """What its numbers take."""
        return int(self._numbers.nbytes) + 4 * self._count

    def put(self, number: int, weight: Tensor, bias: Tensor | None) -> None:
        """Lay a matrix, [in, out], out in its place."""
        (outputs, inputs), start = self.sizes[number], self._starts[number]
        bits, pair = (8, torch.int16) if self._eight_bits else (16, torch.int32)
        target = self._of(number).view(pair).view(-1, inputs // 2, LANES)
        scales = torch.empty(outputs)
        for left in range(0, outputs, _PUT_AT_ONCE):  # What lies between fits the processor's cache.
            part = weight[:, left : left + _PUT_AT_ONCE]
            laid, scales[left : left + _PUT_AT_ONCE] = quantized(part) if self._eight_bits else sixteen_bits(part)
            # Both numbers of a pair of inputs as one, so that they are moved together.
            words = laid[1::2].to(pair).bitwise_left_shift_(bits).bitwise_or_(laid[::2].to(pair) & (2**bits - 1))
            words = functional.pad(words, (0, -words.shape[1] % LANES)) if words.shape[1] % LANES else words
            tiles = words.view(inputs // 2, -1, LANES).transpose(0, 1)
            target[left // LANES :][: len(tiles)].copy_(tiles)
        floats = self.put_floats(scales, torch.zeros(outputs) if bias is None else bias)
        self._shape[number] = (start, inputs, outputs, floats)

    def put_floats(self, *numbers: Tensor) -> int:
        """Keep other numbers of the model, one after the other. Gives the place of the first."""
        place = self._count
        self._floats += [one.detach().float().flatten() for one in numbers]
        self._count += sum(len(one) for one in self._floats[-len(numbers) :])
        return place

    @property
    def _all_floats(self) -> Tensor:
        if len(self._floats) > 1:
            self._floats = [torch.cat(self._floats)]
        return self._floats[0]

    def matrices(self, compiled: Any) -> Any:
        """All of it, as the compiled functions take it."""
        return compiled.Matrices(self._numbers, self._shape, self._all_floats.numpy())

    def multiplied(self, number: int, rows: Tensor) -> Tensor:
        """Rows, [n, in], times a matrix, plus its bias: float32 [n, out]."""
        compiled = self.compiled
        outputs, inputs = self.sizes[number]
        if compiled is not None and len(rows) <= FEW_ROWS:
            given = np.zeros((-(-len(rows) // MOST_ROWS) * MOST_ROWS, inputs), np.float32)
            given[: len(rows)] = rows.float().numpy()
            result = torch.empty(len(rows), outputs)
            room = _LEAST_ROOM + given.size
            self.crew.run(
                compiled, compiled.multiply, self.matrices(compiled), number, given, result.numpy(), room=room
            )
            return result
        fast = torch.bfloat16 if bfloat16_is_fast() else torch.float32
        product = rows.to(fast) @ self._plain(compiled, number).to(fast)
        scales, bias = self._all_floats[self._shape[number, 3] :][: 2 * outputs].view(2, outputs)
        return torch.addcmul(bias, product[:, :outputs], scales)

    def _plain(self, compiled: Any, number: int) -> Tensor:
        """A matrix as bfloat16 [in, out up to a multiple of LANES]. It holds until the next is asked for."""
        numbers, inputs = self._of(number), self.sizes[number][1]
        if compiled is None:
            if (known := self._kept.get(number)) is not None:
                return known
            numbers = numbers if self._eight_bits else numbers.view(torch.bfloat16)
            tiles = numbers.view(-1, inputs // 2, LANES, 2)
            plain = tiles.permute(1, 3, 0, 2).to(torch.bfloat16).reshape(inputs, -1)
            if self._kernel.done():  # It will never be there: memory is spent so that replies do not crawl.
                self._kept[number] = plain
            return plain
        if len(self._plainly) < len(numbers):
            self._plainly = torch.empty(len(numbers), dtype=torch.bfloat16)
        target = self._plainly[: len(numbers)].view(inputs, -1)
        self.crew.run(compiled, compiled.unpack, self.matrices(compiled), number, target.view(torch.uint16).numpy())
        return target

    def _of(self, number: int) -> Tensor:
        """The tiles of a matrix, as one row of whole numbers."""
        span = self._numbers[self._starts[number] : self._starts[number + 1]]
        return torch.from_numpy(span.view(f"i{span.itemsize}"))


class TiledLinear:
    """One of the matrices as a layer.

    Args:
        tiles: where it is.
        number: which it is.
    """

    memory_bytes = 0  # It is counted where it is kept.

    def __init__(self, tiles: Tiles, number: int):
        self._tiles, self._number = tiles, number

    def __call__(self, rows: Tensor) -> Tensor:
        """[n, in] -> [n, out] in float32."""
        return self._tiles.multiplied(self._number, rows)


def quantized(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers from -127 to 127 (int8 [in, out]) and scales (float32 [out]) whose product is nearly `weight`."""
    weight = weight.float()
    low, high = torch.aminmax(weight, dim=0)
    scales = torch.maximum(high, -low).clamp_min_(_SMALLEST).div_(127)
    return (weight * (1 / scales)).round_().to(torch.int8), scales


def sixteen_bits(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The bits of bfloat16 numbers (int16 [in, out]), and scales of 1 (float32 [out])."""
    return weight.to(torch.bfloat16).view(torch.int16), torch.ones(weight.shape[1])
