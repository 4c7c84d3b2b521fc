"""Products with weights that lie in tiles: compiled, and run by several threads together.

A row's sums are added up in the same order whatever rows stand beside it. Knows matrices, no model.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import carray, njit

from chat_app import tile_shape
from chat_app.matrix_unit import (
    HAS_MATRIX_UNIT,
    product_in_blocks,
    product_in_blocks_twice,
    short_product_in_blocks,
    short_product_in_blocks_twice,
    split,
)
from chat_app.short_weights import open_tile
from chat_app.tile_products import (
    SPAN,
    arrive,
    as_bits,
    as_float,
    look,
    pointer,
    product_1,
    product_2,
    product_4,
    product_8,
)
from chat_app.tile_shape import (
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
)

RESULTS = 4 * MOST_ROWS * LANES
"""Numbers: room for the results of two groups of rows times a tile, each with as much for the unit to work in."""
_LARGEST = 32639  # Of whole numbers: its upper half has 8 bits when the lower one is signed.
_SETTINGS: Any = {
    "nogil": True,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
    "error_model": "numpy",
    "fastmath": {"reassoc", "contract", "arcp", "nsz"},
}
compiled = njit(**_SETTINGS)
up = compiled(tile_shape.up)


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
def floats_at(address, count):
    """Float32 numbers in memory."""
    return carray(pointer(address), (count,), np.float32)


@compiled
def table_at(address, rows, columns):
    """Float32 numbers in memory."""
    return carray(pointer(address), (rows, columns), np.float32)


@njit(inline="always")
def exp(number):
    """e^number to the precision of float32, for -87 to 88. Source: Cephes, expf."""
    number = min(max(number, np.float32(-87)), np.float32(88))
    whole = np.floor(number * np.float32(1.44269504088896341) + np.float32(0.5))
    rest = number - whole * np.float32(0.693359375) + whole * np.float32(2.12194440e-4)
    series = np.float32(1.9875691500e-4)
    series = series * rest + np.float32(1.3981999507e-3)
    series = series * rest + np.float32(8.3334519073e-3)
    series = series * rest + np.float32(4.1665795894e-2)
    series = series * rest + np.float32(1.6666665459e-1)
    series = series * rest + np.float32(5.0000001201e-1)
    series = series * rest * rest + rest + np.float32(1)
    return series * as_float((np.int32(whole) + np.int32(127)) << np.int32(23))


@njit(inline="always")
def bits_of(number):
    """A number as bfloat16, rounded to the nearest: uint32, in the lower 16 bits."""
    bits = np.uint32(as_bits(number))
    return (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)


@njit(inline="always")
def _scale_of(given):
    """What makes a row whole numbers, as large as they can be without a sum leaving 32 bits."""
    # As whole numbers, of which vectors are compared: the bits of what is not below 0 are in its order.
    bits, total = as_bits(np.float32(1e-20)), np.float32(1e-20)
    for at in range(len(given)):
        size = abs(given[at])
        total += size
        bits = max(bits, as_bits(size))
    largest = as_float(bits)
    # Whole numbers cannot carry a NaN on, but the scale can.
    return min(np.float32(_LARGEST) / largest, np.float32(2147000000.0 / 127) / total) + total * np.float32(0)


@compiled
def _rows_as_vectors(numbers, source, share, room, factors, spare):
    """A share of rows as products in vectors take them: the address of the first of all, and the bytes from row to row.

    For 8-bit weights they become whole numbers of 16 bits, and `factors` what a result is to be multiplied by.
    """
    begin, end = share
    factors[begin:end] = np.float32(1)
    rows, width = source.shape
    padded = up(width, DEPTH)
    if numbers.itemsize > 1:
        for row in range(begin, end):
            target = floats_at(room + 4 * row * padded, width)
            for at in range(width):
                target[at] = source[row, at]
        return room, 4 * padded
    whole = carray(pointer(room), (rows, padded), np.int16)
    for row in range(begin, end):
        given, places = source[row], whole[row]
        scale = _scale_of(given)
        factors[row] = np.float32(1) / scale
        for at in range(width):
            places[at] = np.int16(np.rint(given[at] * scale))
        places[width:] = 0
    return room, 2 * padded


@compiled
def _rows_as_blocks(numbers, source, share, room, factors, spare):
    """The same as the matrix unit takes them; the bytes from row to row are an average."""
    width = source.shape[1]
    inputs = LINE // numbers.itemsize  # Of a block.
    blocks = up(width, DEPTH) // inputs
    tail = floats_at(spare, DEPTH)
    tail[:] = np.float32(0)
    for row in range(share[0], share[1]):
        place, scale = source.ctypes.data + row * source.strides[0], np.float32(1)
        if numbers.itemsize == 1:
            scale = _scale_of(source[row])
        factors[row] = np.float32(1) / scale
        upper = room + (row // MOST_ROWS * blocks * 2 * MOST_ROWS + row % MOST_ROWS) * LINE
        for block in range(blocks):
            left = block * inputs
            given = place + 4 * left
            if left + inputs > width:  # What follows the row is none of its.
                for at in range(width - left):
                    tail[at] = source[row, left + at]
                given = tail.ctypes.data
            split(numbers, given, scale, upper, upper + MOST_ROWS * LINE)
            upper += 2 * MOST_ROWS * LINE
    return room, blocks * 2 * LINE


@compiled
def _tile_by_vectors(numbers, tile, first, stride, rows, inputs, ahead, out):
    """`rows` rows times one tile: out[row, lane]. Rows up to the next 1, 2, 4 or 8 are computed too.

    Meanwhile the memory is asked for what stands `ahead` bytes after the tile.
    """
    words = (inputs * numbers.itemsize + 3) // 4
    if rows == 1:
        product_1(numbers, tile, first, stride, words, ahead, out)
    elif rows == 2:
        product_2(numbers, tile, first, stride, words, ahead, out)
    elif rows <= 4:
        product_4(numbers, tile, first, stride, words, ahead, out)
    elif SPAN == 16:
        product_8(numbers, tile, first, stride, words, ahead, out)
    else:  # More sums than there are registers.
        product_4(numbers, tile, first, stride, words, ahead, out)
        product_4(numbers, tile, first + 4 * stride, stride, words, ahead, out + 16 * LANES)


@compiled
def _tile_by_blocks(numbers, tile, first, stride, rows, inputs, ahead, out):
    """`rows` rows times one tile, as `RESULTS` says. Rows up to the next multiple of MOST_ROWS are computed too."""
    blocks = up(inputs, DEPTH) * numbers.itemsize // LINE
    if rows > MOST_ROWS:
        product_in_blocks_twice(numbers, tile, first, MOST_ROWS * stride, blocks, ahead, out)
    else:
        product_in_blocks(numbers, tile, first, 0, blocks, ahead, out)


@compiled
def short_tile(matrices, number, tile):
    """A tile of a matrix that has a key."""
    start, count, outputs, _, key = matrices.shape[number]
    blocks = up(count, DEPTH) * LANES // BLOCK
    first = tile * blocks
    before = key + TABLE
    strays = before + 4 * ((outputs + LANES - 1) // LANES * blocks + 1)
    return Short(matrices.numbers.ctypes.data + 2 * start + first * SHORT_BLOCK, key, before + 4 * first, strays)


@compiled
def _opened(short, inputs, room):
    """A tile with so many inputs in 16 bits: its address, which is that of the room."""
    open_tile(short.tile, up(inputs, DEPTH) * LANES // BLOCK, short.table, short.before, short.strays, AHEAD, room)
    return room


@compiled
def _short_by_blocks(short, first, stride, rows, inputs, room, out):
    """As _tile_by_blocks, with a tile that is kept in 12 bits; `room` is for two blocks."""
    key, blocks = (short.table, short.before, short.strays), up(inputs, DEPTH) * LANES // BLOCK
    if rows > MOST_ROWS:
        step = MOST_ROWS * stride
        short_product_in_blocks_twice(short.tile, first, step, blocks, AHEAD, out, key[0], key[1], key[2], room)
    else:
        short_product_in_blocks(short.tile, first, 0, blocks, AHEAD, out, key[0], key[1], key[2], room)


@compiled
def _none_opened(short, inputs, room):
    """Without the unit nothing is kept in 12 bits."""
    return room


@compiled
def _no_short(short, first, stride, rows, inputs, room, out):
    """The same."""


@compiled
def result_of(row, results):
    """Where one of the rows is that were multiplied with a tile."""
    return results + 4 * LANES * (row // MOST_ROWS * 2 * MOST_ROWS + row % MOST_ROWS)


rows_prepared = _rows_as_blocks if HAS_MATRIX_UNIT else _rows_as_vectors
tile_product = _tile_by_blocks if HAS_MATRIX_UNIT else _tile_by_vectors
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
    tiles, rows, results = (outputs + LANES - 1) // LANES, len(out), crew.work[me].ctypes.data
    deep = up(count, DEPTH)
    spare = results + 4 * RESULTS
    blocks = spare + 4 * DEPTH  # Room for two, or for a tile where the rows are elsewhere.
    room = blocks + 4 * BLOCK if rows <= MOST_ROWS else crew.work[crew.threads].ctypes.data
    factors = floats_at(room, rows)
    first, stride = rows_prepared(numbers, inputs, share_of(me, crew, rows), room + 4 * up(rows, 16), factors, spare)
    if rows > MOST_ROWS:
        met = meet(crew, met)
    for tile in range(tiles * me // crew.threads, tiles * (me + 1) // crew.threads):
        left = tile * LANES
        wide = min(LANES, outputs - left)
        scales = matrices.floats + 4 * (place + left)
        biases = scales + 4 * outputs
        here = numbers.ctypes.data + (start + left * deep) * numbers.itemsize
        if key and rows > AT_ONCE:  # It is read more than once.
            here = opened(short_tile(matrices, number, tile), count, blocks)
        for begin in range(0, rows, AT_ONCE):
            some = min(rows - begin, AT_ONCE)
            if key and rows <= AT_ONCE:
                _short_product(short_tile(matrices, number, tile), first, stride, some, count, blocks, results)
            else:
                tile_product(numbers, here, first + begin * stride, stride, some, count, AHEAD, results)
            for row in range(some):
                source, factor = result_of(row, results), factors[begin + row]
                target = out.ctypes.data + (begin + row) * out.strides[0] + 4 * left
                if wide == LANES:  # What is so long for certain needs no loops.
                    _give(source, factor, scales, biases, LANES, kind, target)
                else:
                    _give(source, factor, scales, biases, wide, kind, target)
    return met
