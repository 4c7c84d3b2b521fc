"""Products with weights that lie in tiles: compiled, and run by several threads together.

A row's sums are added up in the same order whatever rows stand beside it. Knows matrices, no model.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from chat_app.kernels.activation_packing import BLOCK_INPUTS, rows_prepared
from chat_app.kernels.bf16_compression import open_tile
from chat_app.kernels.layout import (
    ADD,
    AHEAD,
    BLOCK,
    DEPTH,
    GELU_TANH,
    LANES,
    LINE,
    MOST_ROWS,
    QUICK_GELU,
    RELU,
    SET,
    SHORT_BLOCK,
    TABLE,
    WORDS,
)
from chat_app.kernels.llvm_amx import (
    HAS_MATRIX_UNIT,
    open_matrix_unit,
    product_of_halves,
    product_of_rounded,
    product_of_shorts,
    product_of_wholes,
    product_of_wholes_twice,
)
from chat_app.kernels.llvm_dot import ROW, SPAN, arrive, look, product_1, product_2, product_4, product_8
from chat_app.kernels.scalar_math import address_of, compiled, exp, floats_at, up

RESULTS = 4 * MOST_ROWS * LANES
"""Numbers: room for the results of two groups of rows times a tile, each with as much for the unit to work in."""


class Matrices(NamedTuple):
    """The weights.

    Attributes:
        numbers: all tiles, int8 or uint16 (bfloat16), one after the other; AHEAD bytes more may be asked for.
        shape: int64 [matrices, 5], of each, as `tile_shape.CALL` says: where its tiles start, its inputs, its outputs,
            where its scales and after them its biases stand among the floats, and the address of its key or 0.
        floats: the address of float32 numbers.
    """

    numbers: Any
    shape: Any
    floats: int


class Short(NamedTuple):
    """A tile whose weights of 16 bits are kept in 12. All are addresses.

    Attributes:
        tile: where it is.
        table, before, strays: what turns it back, as `short_weights.Key` takes it.
    """

    tile: Any
    table: Any
    before: Any
    strays: Any


class Crew(NamedTuple):
    """The threads that run a function together, each with its own number.

    Attributes:
        threads: how many they are.
        counter: the address of an int64 that is 0.
        work: float32 [threads + 1, words], room: the last row for all, the others for one thread each.
    """

    threads: int
    counter: int
    work: Any


@compiled
def meet(crew, met):
    """Wait for the other threads. `met` counts the meetings so far; gives how many they are then."""
    if crew.threads > 1:
        arrive(crew.counter)
        while look(crew.counter) < crew.threads * (met + 1):
            pass
    return met + 1


@compiled
def share_of(me, crew, rows):
    """The rows that this thread prepares: from the first to before the last. All of them where they are few, since
    threads that share must meet."""
    if rows <= MOST_ROWS:
        return 0, rows
    return rows * me // crew.threads, rows * (me + 1) // crew.threads


@compiled
def _tile_by_vectors(numbers, tile, first, stride, rows, inputs, ahead, out, step):
    """`rows` rows times one tile: float32 [rows, LANES], `step` bytes from row to row. Rows up to the next 1, 2, 4 or 8
    are computed too.

    Meanwhile the memory is asked for what stands `ahead` bytes after the tile.
    """
    words = (inputs * numbers.itemsize + 3) // 4
    if rows == 1:
        product_1(numbers, tile, first, stride, words, ahead, out, step)
    elif rows == 2:
        product_2(numbers, tile, first, stride, words, ahead, out, step)
    elif rows <= 4:
        product_4(numbers, tile, first, stride, words, ahead, out, step)
    elif SPAN == 16:
        product_8(numbers, tile, first, stride, words, ahead, out, step)
    else:  # More sums than there are registers.
        product_4(numbers, tile, first, stride, words, ahead, out, step)
        product_4(numbers, tile, first + 4 * stride, stride, words, ahead, out + 4 * step, step)


@compiled
def _tile_by_blocks(numbers, tile, first, stride, rows, inputs, ahead, out, step):
    """The same; the unit is open, for weights of floating point for so many rows. Of whole numbers rows up to the next
    multiple of MOST_ROWS are computed too, and results are where `result_of` says."""
    blocks = up(inputs, DEPTH) * numbers.itemsize // LINE
    if numbers.itemsize > 1:
        product_of_halves(tile, first, blocks, ahead, out, step)
    elif rows > MOST_ROWS:
        product_of_wholes_twice(tile, first, MOST_ROWS * stride, blocks, ahead, out)
    else:
        product_of_wholes(tile, first, 0, blocks, ahead, out)


@compiled
def _rounded_by_blocks(numbers, tile, first, stride, rows, inputs, ahead, out, step):
    """The same for rows of `_rows_rounded`."""
    product_of_rounded(tile, first, up(inputs, DEPTH) // BLOCK_INPUTS, ahead, out, step)


@compiled
def short_tile(matrices, number, tile):
    """A tile of a matrix that has a key."""
    start, count, outputs, _, key = matrices.shape[number]
    blocks = up(count, DEPTH) * LANES // BLOCK
    first = tile * blocks
    before = key + TABLE
    strays = before + 4 * ((outputs + LANES - 1) // LANES * blocks + 1)
    return Short(address_of(matrices.numbers) + 2 * start + first * SHORT_BLOCK, key, before + 4 * first, strays)


@compiled
def _opened(short, inputs, room):
    """A tile with so many inputs in 16 bits: its address, which is that of the room."""
    open_tile(short.tile, up(inputs, DEPTH) * LANES // BLOCK, short.table, short.before, short.strays, AHEAD, room)
    return room


@compiled
def _short_by_blocks(short, first, rows, inputs, room, out):
    """As _tile_by_blocks, with a tile that is kept in 12 bits; `room` is for two blocks."""
    blocks = up(inputs, DEPTH) * LANES // BLOCK
    product_of_shorts(short.tile, first, blocks, AHEAD, out, short.table, short.before, short.strays, room)


@compiled
def _none_opened(short, inputs, room):
    """Without the unit nothing is kept in 12 bits."""
    return room


@compiled
def _no_short(short, first, rows, inputs, room, out):
    """The same."""


@compiled
def result_of(numbers, row, results):
    """Where one of the rows is that were multiplied with a tile, ROW bytes from row to row."""
    if numbers.itemsize == 1:
        row += row // MOST_ROWS * MOST_ROWS
    return results + 4 * LANES * row


tile_product = _tile_by_blocks if HAS_MATRIX_UNIT else _tile_by_vectors
# Of rows_rounded.
rounded_product = _rounded_by_blocks if HAS_MATRIX_UNIT else _tile_by_vectors
opened = _opened if HAS_MATRIX_UNIT else _none_opened
_short_product = _short_by_blocks if HAS_MATRIX_UNIT else _no_short
AT_ONCE = 2 * MOST_ROWS if HAS_MATRIX_UNIT else MOST_ROWS  # Rows.


@njit(inline="always")
def _give(place, factor, scales, biases, wide, kind, out):
    """Set or add results, each times its scale and plus its bias, or set what an activation makes of them. All is given
    by its address.

    Source of GELU_TANH: Hendrycks and Gimpel 2016, section 2, written with the logistic function; SILU and QUICK_GELU
    are number * logistic(factor * number).
    """
    source, target = floats_at(place, wide), floats_at(out, wide)
    scale, bias = floats_at(scales, wide), floats_at(biases, wide)
    for at in range(wide):
        source[at] = source[at] * factor * scale[at] + bias[at]
    if kind == SET:
        for at in range(wide):
            target[at] = source[at]
    elif kind == ADD:
        for at in range(wide):
            target[at] += source[at]
    elif kind == RELU:
        for at in range(wide):
            target[at] = max(source[at], np.float32(0))
    elif kind == GELU_TANH:
        for at in range(wide):
            number = source[at]
            inner = np.float32(-1.5957691216057308) * (number + np.float32(0.044715) * number * number * number)
            target[at] = number / (np.float32(1) + exp(inner))
    else:
        steep = np.float32(-1.702) if kind == QUICK_GELU else np.float32(-1)
        for at in range(wide):
            target[at] = source[at] / (np.float32(1) + exp(steep * source[at]))


@compiled
def multiply(me, crew, met, matrices, number, inputs, kind, out):
    """This thread's share of rows times a matrix; `kind` is what becomes of the result. Changes its room, and where
    there are more than MOST_ROWS rows that of all. Gives how often the threads have met then.

    Args:
        inputs: float32 [rows up to a multiple of MOST_ROWS, inputs]; only this thread's share of them is looked at.
        out: float32 [rows, outputs].
    """
    numbers = matrices.numbers
    start, count, outputs, place, key = matrices.shape[number]
    tiles, rows, results = (outputs + LANES - 1) // LANES, len(out), address_of(crew.work[me])
    deep = up(count, DEPTH)
    spare = results + 4 * RESULTS
    blocks = spare + 4 * DEPTH  # Room for two, or for a tile where the rows are elsewhere.
    room = blocks + 4 * BLOCK if rows <= MOST_ROWS else address_of(crew.work[crew.threads])
    factors = floats_at(room, rows)
    first, stride = rows_prepared(numbers, inputs, share_of(me, crew, rows), room + 4 * up(rows, 16), factors, spare)
    if rows > MOST_ROWS:
        met = meet(crew, met)
    if numbers.itemsize > 1 and rows:
        open_matrix_unit(min(rows, WORDS))
    for tile in range(tiles * me // crew.threads, tiles * (me + 1) // crew.threads):
        left = tile * LANES
        wide = min(LANES, outputs - left)
        scales = matrices.floats + 4 * (place + left)
        biases = scales + 4 * outputs
        here = address_of(numbers) + (start + left * deep) * numbers.itemsize
        if key and rows > AT_ONCE:  # It is read more than once.
            here = opened(short_tile(matrices, number, tile), count, blocks)
        for begin in range(0, rows, AT_ONCE):
            some = min(rows - begin, AT_ONCE)
            if key and rows <= AT_ONCE:
                _short_product(short_tile(matrices, number, tile), first, some, count, blocks, results)
            else:
                tile_product(numbers, here, first + begin * stride, stride, some, count, AHEAD, results, ROW)
            for row in range(some):
                source, factor = result_of(numbers, row, results), factors[begin + row]
                target = address_of(out) + (begin + row) * out.strides[0] + 4 * left
                if wide == LANES:  # What is so long for certain needs no loops.
                    _give(source, factor, scales, biases, LANES, kind, target)
                else:
                    _give(source, factor, scales, biases, wide, kind, target)
    return met
