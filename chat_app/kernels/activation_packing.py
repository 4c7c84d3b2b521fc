"""Rows in the form in which products with tiles take them: compiled. Knows no tiles."""

from __future__ import annotations

import numpy as np
from numba import carray, njit

from chat_app.kernels.layout import DEPTH, LINE, MOST_ROWS, WORDS
from chat_app.kernels.llvm_amx import HAS_MATRIX_UNIT, rounded_line, split
from chat_app.kernels.llvm_dot import as_bits, as_float, pointer
from chat_app.kernels.scalar_math import address_of, compiled, floats_at, up

BLOCK_INPUTS = LINE // 2  # Of a block of 16 bits.
_LARGEST = 32639  # Of whole numbers: its upper half has 8 bits when the lower one is signed.


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
    together = MOST_ROWS if numbers.itemsize == 1 else WORDS  # Rows.
    tail = floats_at(spare, DEPTH)
    tail[:] = np.float32(0)
    for row in range(share[0], share[1]):
        place, scale = address_of(source) + row * source.strides[0], np.float32(1)
        if numbers.itemsize == 1:
            scale = _scale_of(source[row])
        factors[row] = np.float32(1) / scale
        upper = room + (row // together * blocks * 2 * together + row % together) * LINE
        for block in range(blocks):
            left = block * inputs
            given = place + 4 * left
            if left + inputs > width:  # What follows the row is none of its.
                for at in range(width - left):
                    tail[at] = source[row, left + at]
                given = address_of(tail)
            split(numbers, given, scale, upper, upper + together * LINE)
            upper += 2 * together * LINE
    return room, blocks * 2 * LINE


@compiled
def _rows_rounded(numbers, source, share, room, factors, spare):
    """As _rows_as_blocks for floating point, but rows become bfloat16: half as much is to be multiplied. Their width
    is a multiple of DEPTH."""
    for row in range(share[0], share[1]):
        place = address_of(source) + row * source.strides[0]
        target = room + row * LINE
        for block in range(source.shape[1] // BLOCK_INPUTS):
            rounded_line(place + 4 * BLOCK_INPUTS * block, target + WORDS * LINE * block)
    return room, 0


rows_prepared = _rows_as_blocks if HAS_MATRIX_UNIT else _rows_as_vectors
rows_rounded = _rows_rounded if HAS_MATRIX_UNIT else _rows_as_vectors
"""For rows that need not be more precise than the weights; without the unit that would save nothing."""
