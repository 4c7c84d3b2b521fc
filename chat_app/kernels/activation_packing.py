"""Activations in the form that dot products with tiles take. For 8-bit weights each row is quantized by itself."""

from __future__ import annotations

import numpy as np
from numba import carray, njit

from chat_app.kernels.layout import AMX_ROWS, CACHE_LINE, MICRO_M, ROW_PADDING, TILE_K
from chat_app.kernels.llvm_amx import HAS_AMX, round_line, split_hi_lo
from chat_app.kernels.llvm_dot import as_bits, as_float, pointer
from chat_app.kernels.scalar_math import address_of, floats_at, jit, round_up

BF16_BLOCK_INPUTS = CACHE_LINE // 2  # Inputs of a block of bfloat16 activations, which is one cache line for each row.
_MAX_INT16 = 32639  # The largest that splits into two int8: 127 * 256 + 127.


@njit(inline="always")
def _quantization_scale(row):
    """What a row is multiplied by before it is rounded to integers: as much as neither they nor a sum of their products
    with int8 weights, in 32 bits, overflow."""
    # The bits of numbers that are not negative are in the order of the numbers, and integers have a vector maximum.
    max_bits, abs_sum = as_bits(np.float32(1e-20)), np.float32(1e-20)
    for index in range(len(row)):
        size = abs(row[index])
        abs_sum += size
        max_bits = max(max_bits, as_bits(size))
    abs_max = as_float(max_bits)
    # Integers cannot carry a NaN on, but the scale can.
    return min(np.float32(_MAX_INT16) / abs_max, np.float32(2147000000.0 / 127) / abs_sum) + abs_sum * np.float32(0)


@jit
def _pack_for_vectors(weights_like, source, row_range, target, factors, row_tail):
    """Pack a range of rows for vector instructions: row after row, zero-padded to TILE_K, as int16 for int8 weights and
    else as float32. After each row ROW_PADDING bytes are left out.

    Args:
        weights_like: an array of the weights' type.
        source: float32 [rows, n_in]. row_range: the first row, and the one after the last.
        target: address of the packed rows, of all of them.
        factors: float32 [rows], filled: what products of these rows are to be multiplied by.
        row_tail: address of float32 [TILE_K], scratch memory.

    Returns:
        The address of the first of all rows, and the bytes from a row to the next.
    """
    begin, end = row_range
    factors[begin:end] = np.float32(1)
    n_in = source.shape[1]
    depth = round_up(n_in, TILE_K)
    if weights_like.itemsize > 1:
        stride = 4 * depth + ROW_PADDING
        for row in range(begin, end):
            copy = floats_at(target + row * stride, n_in)
            for index in range(n_in):
                copy[index] = source[row, index]
        return target, stride
    stride = 2 * depth + ROW_PADDING
    for row in range(begin, end):
        numbers, quantized = source[row], carray(pointer(target + row * stride), (depth,), np.int16)
        scale = _quantization_scale(numbers)
        factors[row] = np.float32(1) / scale
        for index in range(n_in):
            quantized[index] = np.int16(np.rint(numbers[index] * scale))
        quantized[n_in:] = 0
    return target, stride


@jit
def _pack_for_amx(weights_like, source, row_range, target, factors, row_tail):
    """The same for AMX: rows split into hi and lo halves, block after block, as `llvm_amx` reads them.

    Rows lie in groups, of MICRO_M for int8 and of AMX_ROWS for bfloat16. A block of a group has one cache line of hi
    halves for each row, and then one of lo halves. So the bytes from a row to the next are an average.
    """
    n_in = source.shape[1]
    block_inputs = CACHE_LINE // weights_like.itemsize
    blocks = round_up(n_in, TILE_K) // block_inputs
    group = MICRO_M if weights_like.itemsize == 1 else AMX_ROWS
    tail = floats_at(row_tail, TILE_K)
    tail[:] = np.float32(0)
    for row in range(row_range[0], row_range[1]):
        begin, scale = address_of(source) + row * source.strides[0], np.float32(1)
        if weights_like.itemsize == 1:
            scale = _quantization_scale(source[row])
        factors[row] = np.float32(1) / scale
        hi = target + (row // group * blocks * 2 * group + row % group) * CACHE_LINE
        for block in range(blocks):
            left = block * block_inputs
            numbers = begin + 4 * left
            if left + block_inputs > n_in:  # The row ends within this block: what comes after it in memory is no input.
                for index in range(n_in - left):
                    tail[index] = source[row, left + index]
                numbers = address_of(tail)
            split_hi_lo(weights_like, numbers, scale, hi, hi + group * CACHE_LINE)
            hi += 2 * group * CACHE_LINE
    return target, blocks * 2 * CACHE_LINE


@jit
def _pack_rounded_for_amx(weights_like, source, row_range, target, factors, row_tail):
    """The same for bfloat16 weights with rows rounded to bfloat16 in place of hi and lo halves: half the products.

    n_in is a multiple of TILE_K, and there is one group of rows.
    """
    for row in range(row_range[0], row_range[1]):
        begin = address_of(source) + row * source.strides[0]
        line = target + row * CACHE_LINE
        for block in range(source.shape[1] // BF16_BLOCK_INPUTS):
            round_line(begin + 4 * BF16_BLOCK_INPUTS * block, line + AMX_ROWS * CACHE_LINE * block)
    return target, 0


pack_rows = _pack_for_amx if HAS_AMX else _pack_for_vectors
pack_rows_rounded = _pack_rounded_for_amx if HAS_AMX else _pack_for_vectors
"""For rows that need not be more precise than the weights. Without AMX that would save nothing."""
