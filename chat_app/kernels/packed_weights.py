"""A model's weights in tiles, as the compiled functions read them, and how to multiply with them.

Where many rows are multiplied at once, a matrix is laid out plainly first and goes through torch: for those nothing is
faster, unless the processor has a unit for products of matrices. Knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from chat_app.kernels.arrays import checked_address
from chat_app.kernels.compilation import Code, kernel
from chat_app.kernels.huge_pages import numbers_in_large_pages, zeros_in_large_pages
from chat_app.kernels.layout import (
    AHEAD,
    BLOCK,
    CALL,
    DEPTH,
    LANES,
    LINE,
    MOST_LOOKING,
    MOST_ROWS,
    MULTIPLY,
    PACK,
    SMALLEST,
    TABLE,
    UNPACK,
    UPPERS,
    WORDS,
    up,
)
from chat_app.system.cpu import bfloat16_is_fast, this_processor

__all__ = ["TiledLinear", "Tiles", "checked_address", "kernel", "zeros_in_large_pages"]

_FEW_ROWS, _FEW_ROWS_OF_A_UNIT = 96, 4096
MOST_STRAYS = 1 / 128  # Of the weights: with more it takes too long to put them back.
_ROOM_FOR_STRAYS = 16  # In a tile: of so many weights one.
_SAMPLES, _SAMPLE = 64, 1024  # Looked at of a matrix: so many runs of so many weights.
_LEAST_ROOM = 8192
_MOST_THREADS = 256
_ALL_HAVE_MET = 2**62
_PUT_AT_ONCE = 16 * LANES


class Crew:
    """Threads that do a task together; one of them is the caller's."""

    def __init__(self) -> None:
        self._counter = np.zeros(1, np.int64)
        self._counter_address = checked_address(self._counter, np.int64, 1)
        self._work, self._work_address = _room(2, _LEAST_ROOM)
        self._pool = ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="crew")  # Starts those that have work.

    def run(self, code: Code, call: Any, room: int = _LEAST_ROOM) -> None:
        """Do it in as many threads as torch may use now, with room for so many float32 for each."""
        threads = min(torch.get_num_threads(), _MOST_THREADS)
        rows, words = self._work.shape
        if rows <= threads or words < room:
            rows, words = max(threads + 1, rows), up(max(room, words), LINE // 4)
            self._work, self._work_address = _room(rows, words)
        self._counter[0] = 0
        call["threads"], call["counter"] = threads, self._counter_address
        call["work"], call["words"] = self._work_address, words
        address = checked_address(call, CALL, 1)
        others: list[Future[object]] = []
        try:
            others += (self._pool.submit(code, me, address) for me in range(1, threads))
            code(0, address)
        finally:
            if len(others) < threads - 1:  # A thread could not be had: nobody must wait for it.
                self._counter[0] = _ALL_HAVE_MET
            for one in others:
                one.result()


def _room(rows: int, words: int) -> tuple[Any, int]:
    """Float32 [rows, words], and where they are."""
    room = numbers_in_large_pages(rows * words, np.float32).reshape(rows, words)
    return room, checked_address(room, np.float32, rows, words, line=True)


class Tiles:
    """The matrices of a model, in one block of memory.

    Args:
        sizes: outputs and inputs of each; inputs are even.
        eight_bits: whole numbers from -127 to 127 with a scale for each output; else bfloat16, kept in 12 bits where
            the processor has a matrix unit and the weights allow it.
        compiled: where the compiled function will be; default `kernel`.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], eight_bits: bool, compiled: Any = None):
        self._kernel = compiled or kernel(eight_bits)
        self.sizes, self._eight_bits = tuple(sizes), eight_bits
        most = sum(map(_weights_in, sizes))
        kind = np.int8 if eight_bits else np.uint16
        self._numbers = numbers_in_large_pages(most + 2 * AHEAD, kind)
        self._used = 0  # Of the numbers, from the first on; the others take no memory.
        self._word = 4 if eight_bits else 2  # Weights in 32 bits.
        self._floats: list[Tensor] = []
        self._count = 0  # Of the floats.
        self._shape = np.zeros((len(sizes), 5), np.int64)
        self._numbers_address = checked_address(self._numbers, kind, most + 2 * AHEAD, line=True)
        self._shape_address = checked_address(self._shape, np.int64, len(sizes), 5)
        self._keys: dict[int, Any] = {}  # Of those in 12 bits.
        self._plainly = torch.empty(0, dtype=torch.bfloat16, device="cpu")
        self._kept: dict[int, Tensor] = {}
        self.crew = Crew()

    @property
    def compiled(self) -> Code | None:
        """The compiled function, or None while there is none."""
        return self._kernel.result() if self._kernel.done() and self._kernel.exception() is None else None

    @property
    def memory_bytes(self) -> int:
        """What its numbers take."""
        keys = sum(one.nbytes for one in self._keys.values())
        return (self._used + 2 * AHEAD) * int(self._numbers.itemsize) + int(keys) + 4 * self._count

    @property
    def are_numbers(self) -> bool:
        """Whether whole numbers stand for numbers; bfloat16 ones are not looked at."""
        return bool(torch.isfinite(self._all_floats).all())

    def put(self, number: int, weight: Tensor, bias: Tensor | None) -> None:
        """Lay a matrix, [in, out], out in its place; each once."""
        (outputs, inputs), compiled = self.sizes[number], self.compiled
        scales = torch.empty(outputs, dtype=torch.float32, device="cpu")
        self._shape[number] = (self._used, inputs, outputs, 0, 0)
        if compiled is not None:
            given = weight.detach().float()
            source = checked_address(given, torch.float32, inputs, outputs, strided=True)
            call = self.call(PACK, number=number, source=source)
            call["row_step"], call["column_step"] = given.stride()
            call["floats"] = checked_address(scales, torch.float32, outputs)
            if self._eight_bits or not self._put_short(compiled, call, given):
                self.crew.run(compiled, call)
        else:
            self._put_by_torch(number, weight.detach(), scales)
        count = _weights_in(self.sizes[number])
        self._used += count * 3 // 4 if number in self._keys else count
        self._shape[number, 3] = self.put_floats(scales, torch.zeros_like(scales) if bias is None else bias)

    def _put_short(self, compiled: Code, call: Any, given: Tensor) -> bool:
        """Lay a matrix out in 12 bits. Whether that could be done."""
        if not this_processor().has_matrix_unit or (uppers := common_uppers(given)) is None:
            return False
        number = int(call["number"][0])
        outputs, inputs = self.sizes[number]
        tiles, weights = up(outputs, LANES) // LANES, LANES * up(inputs, DEPTH)
        table = np.tile(uppers, TABLE // UPPERS)
        most = weights // _ROOM_FOR_STRAYS
        counts, strays = np.empty((tiles, weights // BLOCK), np.int32), np.empty((tiles, most), np.uint32)
        call["places"] = checked_address(counts, np.int32, tiles, weights // BLOCK)
        call["target"], call["results"] = checked_address(strays, np.uint32, tiles, most), most
        self._shape[number, 4] = checked_address(table, np.uint8, TABLE)
        self.crew.run(compiled, call, room=room_for_laying(inputs))
        self._shape[number, 4] = 0
        if counts.sum() > MOST_STRAYS * counts.size * BLOCK or counts.sum(1).max() > most:
            return False
        before = np.concatenate([[0], counts.ravel().cumsum()]).astype(np.int32)
        named = [strays[tile, :count] for tile, count in enumerate(counts.sum(1))]
        self._keys[number] = key = np.concatenate([table, *(one.view(np.uint8) for one in (before, *named))])
        self._shape[number, 4] = checked_address(key, np.uint8, TABLE + before.nbytes + 4 * int(before[-1]))
        return True

    def _put_by_torch(self, number: int, weight: Tensor, scales: Tensor) -> None:
        """Lay a matrix out, and fill its scales."""
        outputs, inputs = self.sizes[number]
        bits, word = 32 // self._word, self._word
        target = self._of(number).view(torch.int32).view(-1, up(inputs, DEPTH) // word, LANES)
        for left in range(0, outputs, _PUT_AT_ONCE):  # What lies between fits the processor's cache.
            part = weight[:, left : left + _PUT_AT_ONCE]
            laid, scales[left : left + _PUT_AT_ONCE] = quantized(part) if self._eight_bits else sixteen_bits(part)
            laid = functional.pad(laid, (0, -laid.shape[1] % LANES, 0, -inputs % DEPTH)).int()
            words = laid[::word] & (2**bits - 1)
            for at in range(1, word):
                words |= (laid[at::word] & (2**bits - 1)) << bits * at
            tiles = words.view(len(words), -1, LANES).transpose(0, 1)
            target[left // LANES :][: len(tiles)].copy_(tiles)

    def put_floats(self, *numbers: Tensor) -> int:
        """Keep other numbers of the model, one after the other. Gives the place of the first."""
        place = self._count
        self._floats += [one.detach().float().flatten() for one in numbers]
        self._count += sum(len(one) for one in self._floats[-len(numbers) :])
        return place

    @property
    def _all_floats(self) -> Tensor:
        if len(self._floats) != 1:
            self._floats = (
                [torch.cat(self._floats)] if self._floats else [torch.empty(0, dtype=torch.float32, device="cpu")]
            )
        return self._floats[0]

    def call(self, task: int, **fields: int) -> Any:
        """A task with these weights, as the compiled function takes it: a `CALL`."""
        call = np.zeros(1, CALL)
        call["task"], call["matrices"], call["size"] = task, len(self.sizes), len(self._numbers)
        call["numbers"], call["shape"] = self._numbers_address, self._shape_address
        for name, value in fields.items():
            call[name] = value
        if task != PACK:
            call["floats"] = checked_address(self._all_floats, torch.float32, self._count)
        return call

    def multiplied(self, number: int, rows: Tensor) -> Tensor:
        """Rows, [n, in], times a matrix, plus its bias: float32 [n, out]."""
        compiled = self.compiled
        outputs, inputs = self.sizes[number]
        if compiled is not None and len(rows) <= few_rows():
            given = torch.zeros(up(len(rows), MOST_ROWS), inputs, dtype=torch.float32, device="cpu")
            given[: len(rows)] = rows
            result = torch.empty(len(rows), outputs, dtype=torch.float32, device="cpu")
            call = self.call(MULTIPLY, number=number, rows=len(rows))
            call["source"] = checked_address(given, torch.float32, up(len(rows), MOST_ROWS), inputs)
            call["target"] = checked_address(result, torch.float32, len(rows), outputs)
            self.crew.run(compiled, call, room=room_for(len(rows), inputs))
            return result
        fast = torch.bfloat16 if bfloat16_is_fast() else torch.float32
        product = rows.to(fast) @ self._plain(compiled, number).to(fast)
        scales, bias = self._all_floats[self._shape[number, 3] :][: 2 * outputs].view(2, outputs)
        return torch.addcmul(bias, product[:, :outputs], scales)

    def _plain(self, compiled: Code | None, number: int) -> Tensor:
        """A matrix as bfloat16 [in, out up to a multiple of LANES]. It holds until the next is asked for."""
        inputs, count = self.sizes[number][1], _weights_in(self.sizes[number])
        if compiled is None:
            if (known := self._kept.get(number)) is not None:
                return known
            numbers = self._of(number) if self._eight_bits else self._of(number).view(torch.bfloat16)
            tiles = numbers.view(-1, up(inputs, DEPTH) // self._word, LANES, self._word)
            plain = tiles.permute(1, 3, 0, 2).to(torch.bfloat16).reshape(up(inputs, DEPTH), -1)[:inputs]
            if self._kernel.done():  # It will never be there: memory is spent so that replies do not crawl.
                self._kept[number] = plain
            return plain
        if len(self._plainly) < count:
            self._plainly = torch.empty(count, dtype=torch.bfloat16, device="cpu")
        target = self._plainly[: inputs * (count // up(inputs, DEPTH))].view(inputs, -1)
        call = self.call(UNPACK, number=number)
        call["target"] = checked_address(target, torch.bfloat16, inputs, up(self.sizes[number][0], LANES))
        self.crew.run(compiled, call, room=room_for_laying(inputs))
        return target

    def _of(self, number: int) -> Tensor:
        """The tiles of a matrix, as one row of whole numbers; none for those in 12 bits."""
        span = self._numbers[self._shape[number, 0] :][: _weights_in(self.sizes[number])]
        return torch.from_numpy(span.view(f"i{span.itemsize}"))


def few_rows() -> int:
    """Up to so many rows the compiled product is faster than laying the matrix out."""
    return _FEW_ROWS_OF_A_UNIT if this_processor().has_matrix_unit else _FEW_ROWS


def room_for(rows: int, inputs: int) -> int:
    """Float32 numbers: the most that is needed to multiply rows with a matrix of so many inputs, or fewer."""
    # The results of a tile, the end of a row, two blocks, a factor for each row, and rows in the form that suits the
    # processor; or else a tile.
    most = max(up(rows, WORDS), LANES // 2) if rows > MOST_ROWS else WORDS
    return 4 * MOST_ROWS * LANES + DEPTH + BLOCK + up(rows, 16) + most * up(inputs, DEPTH)


def room_for_laying(inputs: int) -> int:
    """Float32 numbers: what it takes to lay out a matrix in 12 bits, or back."""
    return LANES + LANES // 2 * up(inputs, DEPTH)


def room_for_attention(window: int, width: int) -> int:
    """Float32 numbers: the most that is needed for the attention to a whole window; `width` is that of a head."""
    tokens = up(window, LANES)
    # Shares, and what it takes to multiply them with values, or queries with keys.
    return MOST_LOOKING * tokens + room_for(MOST_LOOKING, max(tokens, width))


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


def _weights_in(size: tuple[int, int]) -> int:
    """Numbers of a matrix's tiles; `size`: outputs and inputs."""
    outputs, inputs = size
    return up(outputs, LANES) * up(inputs, DEPTH)


def common_uppers(weight: Tensor) -> Any | None:
    """The upper bytes that nearly all bfloat16 numbers of a matrix, float32 [in, out], have: uint8 [UPPERS], those
    without a sign first; or None where they are too different. Only some numbers are looked at."""
    # Runs, so that few pages of a file are read for it; by numpy, since torch's threads would take longer to meet.
    flat = (weight.flatten() if weight.is_contiguous() else weight.T.flatten()).numpy()
    step = max(len(flat) // _SAMPLES, 1)
    bits = np.concatenate([flat[start : start + _SAMPLE] for start in range(0, len(flat), step)]).view(np.uint32)
    sizes = np.bincount(bits >> np.uint32(24) & np.uint32(127), minlength=128)
    within = np.convolve(sizes, np.ones(UPPERS // 2, np.int64), "valid")
    least = int(within.argmax())
    if within[least] < (1 - MOST_STRAYS) * len(bits):
        return None
    positive = np.arange(least, least + UPPERS // 2, dtype=np.uint8)
    return np.concatenate([positive, positive | 128])


def quantized(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers from -127 to 127 (int8 [in, out]) and scales (float32 [out]) whose product is nearly `weight`."""
    weight = weight.float()
    low, high = torch.aminmax(weight, dim=0)
    scales = torch.maximum(high, -low).clamp_min_(SMALLEST).mul_(1 / 127)
    return (weight * (1 / scales)).round_().to(torch.int8), scales


def sixteen_bits(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The bits of bfloat16 numbers (int16 [in, out]), and scales of 1 (float32 [out])."""
    return weight.to(torch.bfloat16).view(torch.int16), torch.ones(weight.shape[1], dtype=torch.float32, device="cpu")
