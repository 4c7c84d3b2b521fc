"""Weight packing: from a matrix as torch has it to tiles, and back, by a team of threads. Knows matrices, no model."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import carray, njit

from chat_app.kernels.barrier import thread_range
from chat_app.kernels.bf16_compression import compress_row
from chat_app.kernels.gemm import compressed_tile, decompress
from chat_app.kernels.layout import AMX_ROWS, BLOCK_WEIGHTS, CACHE_LINE, CODEBOOK_SIZE, MIN_ABS_MAX, TILE_K, TILE_N
from chat_app.kernels.llvm_dot import as_bits, atomic_fetch_add, pointer
from chat_app.kernels.scalar_math import address_of, floats_at, jit, round_to_bf16, round_up

_ROW_WEIGHTS = 2 * TILE_N  # bfloat16 weights in a row of a tile.
_WORDS_AT_ONCE = 16  # Of an output: what is read of a transposed matrix then still is in the cache for the next output.


class Columns(NamedTuple):
    """Some columns of a matrix in memory, float32.

    Attributes:
        first: address of the upper left number.
        n_in, n_out: rows and columns.
        row_stride, column_stride: numbers from one to the next.
    """

    first: int
    n_in: int
    n_out: int
    row_stride: int
    column_stride: int


@jit
def unpack(team, weights, args, buffers):
    """Do an UNPACK task for this thread's share of the tiles."""
    matrix, tiles = weights.matrices[args.matrix], weights.tiles
    n_in, columns = matrix.n_in, round_up(matrix.n_out, TILE_N)
    target = carray(pointer(args.target), (n_in, columns), np.uint16)
    depth, word = round_up(n_in, TILE_K), 4 // tiles.itemsize
    begin, end = thread_range(team, columns // TILE_N)
    for tile in range(begin, end):
        packed = tiles[matrix.offset + tile * TILE_N * depth :]
        if matrix.codebook:
            address = decompress(compressed_tile(weights, matrix, tile), n_in, buffers.tile)
            packed = carray(pointer(address), (TILE_N * depth,), tiles.dtype)
        for row in range(n_in):
            first = row // word * word * TILE_N
            words, out = packed[first : first + word * TILE_N], target[row, tile * TILE_N : (tile + 1) * TILE_N]
            index = row % word
            for column in range(TILE_N):
                value = words[word * column + index]
                if tiles.itemsize > 1:
                    out[column] = value
                else:
                    out[column] = np.uint16(np.uint32(as_bits(np.float32(value))) >> np.uint32(16))


@jit
def pack(team, weights, args, buffers):
    """Do a PACK task together with the other threads.

    There is no barrier: the team's counter is a work queue. A thread takes the next tile when it has finished one, so
    one that the system interrupts packs fewer.
    """
    matrix = weights.matrices[args.matrix]
    tiles = (matrix.n_out + TILE_N - 1) // TILE_N
    least = np.int64(carray(pointer(matrix.codebook), (1,), np.uint8)[0]) if matrix.codebook else np.int64(0)
    while True:
        tile = atomic_fetch_add(team.counter)
        if tile >= tiles:
            return
        _pack_tile(weights, matrix, args, tile, least, buffers)


@jit
def _pack_tile(weights, matrix, args, tile, least, buffers):
    """Pack one tile; `least` is the least exponent byte of the codebook, if the matrix has one."""
    tiles, depth, left = weights.tiles, round_up(matrix.n_in, TILE_K), tile * TILE_N
    count = min(TILE_N, matrix.n_out - left)
    first = args.source + 4 * left * args.column_stride
    columns = Columns(first, matrix.n_in, count, args.row_stride, args.column_stride)
    # 1) Where the tile goes: to its place, or to the workspace if it will be compressed.
    begin = matrix.offset + left * depth
    packed = tiles[begin : begin + depth * TILE_N]
    if matrix.codebook:
        packed = carray(pointer(buffers.tile), (depth * TILE_N,), tiles.dtype)
    if count < TILE_N or matrix.n_in < depth:
        # Padding is 0 for int8. Where it is compressed it must be no outlier; its inputs are 0, its outputs not read.
        packed[:] = least << 8
    # 2) The scales of its columns.
    scales, factors = floats_at(args.scales + 4 * left, count), floats_at(buffers.results, TILE_N)
    if tiles.itemsize == 1:
        _abs_max_of_columns(columns, factors)
        for column in range(count):
            scale = max(factors[column], np.float32(MIN_ABS_MAX)) * np.float32(1 / 127)
            scales[column] = scale
            factors[column] = np.float32(1) / scale
    else:
        scales[:] = np.float32(1)
    # 3) Its weights.
    _pack_columns(columns, factors, packed)
    if matrix.codebook:
        compressed, blocks = compressed_tile(weights, matrix, tile), len(packed) // BLOCK_WEIGHTS
        counts = carray(pointer(args.outlier_counts + 4 * blocks * tile), (blocks,), np.int32)
        most = args.max_outliers
        outliers = carray(pointer(args.outliers + 4 * most * tile), (most,), np.uint32)
        _compress(packed, least, compressed.blocks, counts, outliers)


@jit
def _compress(packed, least, target, counts, outliers):
    """Compress a tile of bfloat16, as `bf16_compression` draws it.

    Args:
        packed: uint16. least: the least exponent byte of the codebook.
        target: address of the compressed tile.
        counts: int32 [blocks], filled: the outliers of each block.
        outliers: uint32, filled as far as they fit.
    """
    counts[:] = 0
    found = 0
    for row in range(len(packed) // _ROW_WEIGHTS):
        source = packed[row * _ROW_WEIGHTS : (row + 1) * _ROW_WEIGHTS]
        if compress_row(address_of(source), target + 3 * CACHE_LINE * row, least):
            for index in range(_ROW_WEIGHTS):
                code = np.int64((source[index] >> 8) & 127) - least
                if code < 0 or code >= CODEBOOK_SIZE // 2:
                    if found < len(outliers):
                        position = row % AMX_ROWS * _ROW_WEIGHTS + index
                        outliers[found] = np.uint32(position << 16 | source[index])
                    found += 1
                    counts[row // AMX_ROWS] += 1


@jit
def _abs_max_of_columns(columns, out):
    """The largest absolute value in each column; a NaN counts as larger than all numbers."""
    # The bits of numbers that are not negative are in the order of the numbers, and integers have a vector maximum.
    max_bits = carray(pointer(address_of(out)), (columns.n_out,), np.int32)
    max_bits[:] = 0
    if columns.column_stride == 1:
        for index in range(columns.n_in):
            row = floats_at(columns.first + 4 * index * columns.row_stride, columns.n_out)
            for column in range(columns.n_out):
                max_bits[column] = max(max_bits[column], as_bits(abs(row[column])))
    else:
        for column in range(columns.n_out):
            largest = np.int32(0)
            for index in range(columns.n_in):
                offset = index * columns.row_stride + column * columns.column_stride
                largest = max(largest, as_bits(abs(_float_at(columns.first + 4 * offset))))
            max_bits[column] = largest


@jit
def _pack_columns(columns, factors, packed):
    """Put columns, each times its factor for int8, into a tile."""
    word = 4 // packed.itemsize
    full = columns.n_in // word
    words = carray(pointer(address_of(packed)), (len(packed) // TILE_N // word, TILE_N), np.uint32)
    down, across = 4 * columns.row_stride, 4 * columns.column_stride
    if columns.column_stride == 1:
        for index in range(full):
            here, target = columns.first + index * word * down, words[index]
            for column in range(columns.n_out):
                target[column] = _pack_word(packed, here + 4 * column, down, factors[column])
    else:
        for begin in range(0, full, _WORDS_AT_ONCE):
            for column in range(columns.n_out):
                for index in range(begin, min(begin + _WORDS_AT_ONCE, full)):
                    here = columns.first + index * word * down + column * across
                    words[index, column] = _pack_word(packed, here, down, factors[column])
    for row in range(full * word, columns.n_in):  # The last, incomplete word of int8; n_in is even for bfloat16.
        for column in range(columns.n_out):
            value = _float_at(columns.first + row * down + column * across)
            packed[full * TILE_N * word + column * word + row % word] = np.int8(np.rint(value * factors[column]))


@njit(inline="always")
def _float_at(address):
    return carray(pointer(address), (1,), np.float32)[0]


@njit(inline="always")
def _pack_word(packed_like, first, stride, factor):
    """A word: the weights of one output for neighbouring inputs, `stride` bytes apart."""
    if packed_like.itemsize > 1:
        return round_to_bf16(_float_at(first)) | (round_to_bf16(_float_at(first + stride)) << np.uint32(16))
    word = np.uint32(0)
    for index in range(4):
        whole = np.int32(np.rint(_float_at(first + index * stride) * factor))
        word |= np.uint32(whole & np.int32(255)) << np.uint32(8 * index)
    return word
