"""Laying weights out in tiles, and back: compiled, and run by several threads together. Knows matrices, no model."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import carray, njit

from chat_app.kernels.bf16_compression import close_row
from chat_app.kernels.gemm import opened, short_tile
from chat_app.kernels.layout import BLOCK, DEPTH, LANES, LINE, SMALLEST, UPPERS, WORDS
from chat_app.kernels.llvm_dot import arrive, as_bits, pointer
from chat_app.kernels.scalar_math import address_of, bits_of, compiled, floats_at, up

_ROW = 2 * LANES  # Weights of 16 bits in a row of a tile.
_NEAR = 16  # Inputs that are laid out together, so that what is read of a transposed matrix stays near.


class Strays(NamedTuple):
    """Where the strays of a matrix go, as `tile_shape.CALL` says.

    Attributes:
        counts, named: addresses.
        most: of a tile.
    """

    counts: Any
    named: Any
    most: Any


@compiled
def unpack(me, crew, matrices, number, target):
    """This thread's share of laying a matrix out as others read it.

    Args:
        target: uint16 (bfloat16) [inputs, outputs up to a multiple of LANES], filled; whole numbers stay what they are.
    """
    numbers, start, key = matrices.numbers, matrices.shape[number, 0], matrices.shape[number, 4]
    count, wide = target.shape
    deep, word = up(count, DEPTH), 4 // numbers.itemsize
    for tile in range(wide // LANES * me // crew.threads, wide // LANES * (me + 1) // crew.threads):
        laid = numbers[start + tile * LANES * deep :]
        if key:
            room = opened(short_tile(matrices, number, tile), count, address_of(crew.work[me]))
            laid = carray(pointer(room), (LANES * deep,), numbers.dtype)
        for at in range(count):
            begin = at // word * word * LANES
            source, row = laid[begin : begin + word * LANES], target[at, tile * LANES : (tile + 1) * LANES]
            which = at % word
            for lane in range(LANES):
                value = source[word * lane + which]
                if numbers.itemsize > 1:
                    row[lane] = value
                else:
                    row[lane] = np.uint16(np.uint32(as_bits(np.float32(value))) >> np.uint32(16))


@compiled
def pack(me, crew, matrices, number, source, row_step, column_step, strays):
    """Lay a matrix out in tiles, together with the other threads; its scales are filled too.

    Args:
        source: the address of float32 [inputs, outputs], with so many numbers from a row and from a column to the next.
        strays: of a matrix with a key.
    """
    numbers = matrices.numbers
    start, count, outputs, place, key = matrices.shape[number]
    tiles, deep = (outputs + LANES - 1) // LANES, up(count, DEPTH)
    scales = floats_at(matrices.floats + 4 * place, outputs)
    factors = crew.work[me][:LANES]
    room = address_of(crew.work[me]) + 4 * LANES
    least = np.int64(carray(pointer(key), (1,), np.uint8)[0]) if key else np.int64(0)
    while True:  # Who is faster, because another program wants the other's processor, lays out more of them.
        tile = arrive(crew.counter)
        if tile >= tiles:
            return
        left = tile * LANES
        wide = min(LANES, outputs - left)
        begin = start + left * deep
        laid = carray(pointer(room), (deep * LANES,), numbers.dtype) if key else numbers[begin : begin + deep * LANES]
        if wide < LANES or count < deep:
            # With a key no strays: nobody looks at outputs that do not exist, and inputs that do not are 0.
            laid[:] = least << 8
        here = source + 4 * left * column_step
        if numbers.itemsize == 1:
            _largest(here, count, wide, row_step, column_step, factors)
            for lane in range(wide):
                scale = max(factors[lane], np.float32(SMALLEST)) * np.float32(1 / 127)
                scales[left + lane] = scale
                factors[lane] = np.float32(1) / scale
        else:
            scales[left : left + wide] = np.float32(1)
        _lay(here, count, wide, row_step, column_step, factors, laid)
        if key:
            short, blocks = short_tile(matrices, number, tile), len(laid) // BLOCK
            counts = carray(pointer(strays.counts + 4 * blocks * tile), (blocks,), np.int32)
            named = carray(pointer(strays.named + 4 * strays.most * tile), (strays.most,), np.uint32)
            _shorten(laid, least, short.tile, counts, named)


@compiled
def _shorten(laid, least, target, counts, named):
    """Keep a tile of bfloat16 in 12 bits, as `short_weights` says.

    Args:
        laid: uint16. least: as `close_row` takes it. target: the address of the tile in 12 bits.
        counts: int32 [blocks], filled: how many strays each has. named: uint32, where they go, as far as there is room.
    """
    counts[:] = 0
    found = 0
    for row in range(len(laid) // _ROW):
        source = laid[row * _ROW : (row + 1) * _ROW]
        if close_row(address_of(source), target + 3 * LINE * row, least):
            for at in range(_ROW):
                number = np.int64((source[at] >> 8) & 127) - least
                if number < 0 or number >= UPPERS // 2:
                    if found < len(named):
                        named[found] = np.uint32((row % WORDS * _ROW + at) << 16 | source[at])
                    found += 1
                    counts[row // WORDS] += 1


@compiled
def _largest(source, count, wide, row_step, column_step, out):
    """The largest size of a number in each of some columns; what is no number is larger than all."""
    # As whole numbers, of which vectors are compared: the bits of what is not below 0 are in its order.
    bits = carray(pointer(address_of(out)), (wide,), np.int32)
    bits[:] = 0
    if column_step == 1:
        for at in range(count):
            row = floats_at(source + 4 * at * row_step, wide)
            for lane in range(wide):
                bits[lane] = max(bits[lane], as_bits(abs(row[lane])))
    else:
        for lane in range(wide):
            largest = np.int32(0)
            for at in range(count):
                largest = max(largest, as_bits(abs(_float_at(source + 4 * (at * row_step + lane * column_step)))))
            bits[lane] = largest


@compiled
def _lay(source, count, wide, row_step, column_step, factors, laid):
    """Put some columns, each times its factor, into a tile."""
    word = 4 // laid.itemsize
    full = count // word
    words = carray(pointer(address_of(laid)), (len(laid) // LANES // word, LANES), np.uint32)
    down, across = 4 * row_step, 4 * column_step
    if column_step == 1:
        for at in range(full):
            here, target = source + at * word * down, words[at]
            for lane in range(wide):
                target[lane] = _word(laid, here + 4 * lane, down, factors[lane])
    else:
        for first in range(0, full, _NEAR):
            for lane in range(wide):
                for at in range(first, min(first + _NEAR, full)):
                    words[at, lane] = _word(laid, source + at * word * down + lane * across, down, factors[lane])
    for at in range(full * word, count):  # Whole numbers only: others come in pairs.
        for lane in range(wide):
            value = _float_at(source + at * down + lane * across)
            laid[full * LANES * word + lane * word + at % word] = np.int8(np.rint(value * factors[lane]))


@njit(inline="always")
def _float_at(address):
    return carray(pointer(address), (1,), np.float32)[0]


@njit(inline="always")
def _word(numbers, first, step, factor):
    """Numbers of an output that lie together as one."""
    if numbers.itemsize > 1:
        return bits_of(_float_at(first)) | (bits_of(_float_at(first + step)) << np.uint32(16))
    word = np.uint32(0)
    for at in range(4):
        whole = np.int32(np.rint(_float_at(first + at * step) * factor))
        word |= np.uint32(whole & np.int32(255)) << np.uint32(8 * at)
    return word
