"""Products of activations with packed weights, computed by a team of threads.

The sums of a row are added up in the same order whatever rows are beside it and however many threads there are. Knows
matrices, but no model.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from chat_app.kernels.activation_packing import BF16_BLOCK_INPUTS, pack_rows
from chat_app.kernels.barrier import barrier, row_range, thread_range
from chat_app.kernels.bf16_compression import decompress_tile
from chat_app.kernels.layout import (
    ADD,
    AMX_ROWS,
    BLOCK_BYTES,
    BLOCK_WEIGHTS,
    CACHE_LINE,
    CODEBOOK_BYTES,
    GELU_TANH,
    MICRO_M,
    PREFETCH_BYTES,
    QUICK_GELU,
    RELU,
    SET,
    TILE_K,
    TILE_N,
)
from chat_app.kernels.llvm_amx import (
    HAS_AMX,
    amx_dot_bf16,
    amx_dot_bf16_rounded,
    amx_dot_compressed,
    amx_dot_int8,
    amx_dot_int8_pair,
    configure_amx,
)
from chat_app.kernels.llvm_dot import TILE_ROW_BYTES, VECTOR_WIDTH, dot_1, dot_2, dot_4, dot_8
from chat_app.kernels.scalar_math import address_of, exp, floats_at, jit, round_up

ROWS_AT_ONCE = 2 * MICRO_M  # Rows that one pass over a tile multiplies.
_ROWS_PER_DOT = 8 if VECTOR_WIDTH == 16 else 4  # 8 rows need more accumulators than there are smaller registers.
_WORDS_AT_ONCE = 32  # Of each output, which are 8 KB.
# Vectors go through these words strip by strip, so they prefetch the next ones.
_AHEAD = PREFETCH_BYTES if HAS_AMX else TILE_ROW_BYTES * _WORDS_AT_ONCE


class WeightsView(NamedTuple):
    """Packed weights, as compiled code sees them.

    Attributes:
        tiles: of all matrices, int8 or uint16 (bfloat16); PREFETCH_BYTES more are readable.
        matrices: MATRIX [matrices].
        floats: address of float32: scales, biases and layer norms.
    """

    tiles: Any
    matrices: Any
    floats: int


class Buffers(NamedTuple):
    """The buffers of a workspace that one thread uses, as addresses; `workspace.WORKSPACE` says what each holds."""

    shared_factors: int
    shared_rows: int
    qkv: int
    attn_out: int
    mlp_hidden: int
    results: int
    row_tail: int
    factors: int
    packed_rows: int
    denominators: int
    scores: int
    ln_out: int
    tile: int


class PackedRows(NamedTuple):
    """Activations as `activation_packing` packs them.

    Attributes:
        first: address of the first row. stride: bytes from a row to the next.
        factors: float32 [rows], what their products are multiplied by.
    """

    first: int
    stride: int
    factors: Any


class CompressedTile(NamedTuple):
    """A tile of compressed bfloat16. All are addresses.

    Attributes:
        blocks: its compressed blocks.
        exponents, outliers_before, outliers: as `bf16_compression.Codebook` takes them.
    """

    blocks: int
    exponents: int
    outliers_before: int
    outliers: int


@jit
def buffers_of(workspace, thread_id):
    """The buffers of a thread in a WORKSPACE."""
    shared = workspace.address
    own = shared + workspace.shared_bytes + thread_id * workspace.own_bytes
    return Buffers(
        shared + workspace.shared_factors,
        shared + workspace.shared_rows,
        shared + workspace.qkv,
        shared + workspace.attn_out,
        shared + workspace.mlp_hidden,
        own + workspace.results,
        own + workspace.row_tail,
        own + workspace.factors,
        own + workspace.packed_rows,
        own + workspace.denominators,
        own + workspace.scores,
        own + workspace.ln_out,
        own + workspace.tile,
    )


@jit
def _vector_dot(weights_like, tile, first, stride, rows, n_in, ahead, out, out_bytes):
    """Rows times one tile, _WORDS_AT_ONCE of each output after the other: so many fit into the first-level cache and
    stay there for all strips of outputs and all rows.

    Args:
        weights_like: an array of the weights' type.
        tile: its address. first, stride: as PackedRows. rows: up to ROWS_AT_ONCE.
        ahead: bytes from a weight to what is prefetched with it.
        out, out_bytes: address of the results, float32 [rows, TILE_N], and the bytes from a row of them to the next.
            Results are also written for the rows up to the next of 1, 2, 4 or 8, or the next multiple of these.
    """
    like, words = weights_like, (n_in * weights_like.itemsize + 3) // 4
    for begin in range(0, words, _WORDS_AT_ONCE):
        count = min(words - begin, _WORDS_AT_ONCE)
        is_first, is_last = begin == 0, begin + count == words
        here = tile + TILE_ROW_BYTES * begin
        for row in range(0, rows, _ROWS_PER_DOT):
            source, target = first + row * stride + 8 * begin, out + row * out_bytes
            distance = 0 if row else ahead
            if rows - row == 1:
                dot_1(like, here, source, stride, count, distance, target, out_bytes, is_first, is_last)
            elif rows - row == 2:
                dot_2(like, here, source, stride, count, distance, target, out_bytes, is_first, is_last)
            elif rows - row <= 4 or VECTOR_WIDTH < 16:
                dot_4(like, here, source, stride, count, distance, target, out_bytes, is_first, is_last)
            else:
                dot_8(like, here, source, stride, count, distance, target, out_bytes, is_first, is_last)


@jit
def _amx_dot(weights_like, tile, first, stride, rows, n_in, ahead, out, out_bytes):
    """The same by AMX, which is configured, for bfloat16 for so many rows. For int8 the results are of TILE_ROW_BYTES a
    row, where `result_of` says, and also written for the rows up to the next multiple of MICRO_M."""
    blocks = round_up(n_in, TILE_K) * weights_like.itemsize // CACHE_LINE
    if weights_like.itemsize > 1:
        amx_dot_bf16(tile, first, blocks, ahead, out, out_bytes)
    elif rows > MICRO_M:
        amx_dot_int8_pair(tile, first, MICRO_M * stride, blocks, ahead, out)
    else:
        amx_dot_int8(tile, first, 0, blocks, ahead, out)


@jit
def _amx_dot_rounded(weights_like, tile, first, stride, rows, n_in, ahead, out, out_bytes):
    """The same for rows of `pack_rows_rounded`."""
    amx_dot_bf16_rounded(tile, first, round_up(n_in, TILE_K) // BF16_BLOCK_INPUTS, ahead, out, out_bytes)


@jit
def compressed_tile(weights, matrix, tile):
    """A tile of a matrix that has a codebook.

    At the codebook's address are the exponents, CODEBOOK_BYTES; then, for every block of the matrix, how many outliers
    come before it, int32, and how many there are in all; then the outliers.
    """
    n_tiles = (matrix.n_out + TILE_N - 1) // TILE_N
    blocks = round_up(matrix.n_in, TILE_K) * TILE_N // BLOCK_WEIGHTS
    first = tile * blocks
    outliers_before = matrix.codebook + CODEBOOK_BYTES
    outliers = outliers_before + 4 * (n_tiles * blocks + 1)
    address = address_of(weights.tiles) + 2 * matrix.offset + first * BLOCK_BYTES
    return CompressedTile(address, matrix.codebook, outliers_before + 4 * first, outliers)


@jit
def _decompress_by_vectors(tile, n_in, target):
    """Decompress a tile for so many inputs; gives the address of the result."""
    blocks = round_up(n_in, TILE_K) * TILE_N // BLOCK_WEIGHTS
    before, outliers = tile.outliers_before, tile.outliers
    decompress_tile(tile.blocks, blocks, tile.exponents, before, outliers, PREFETCH_BYTES, target)
    return target


@jit
def _compressed_dot_by_amx(tile, first, n_in, scratch, out):
    """As `_amx_dot` for a compressed tile; `scratch` is the address of memory for two blocks."""
    blocks = round_up(n_in, TILE_K) * TILE_N // BLOCK_WEIGHTS
    before, outliers = tile.outliers_before, tile.outliers
    amx_dot_compressed(tile.blocks, first, blocks, PREFETCH_BYTES, out, tile.exponents, before, outliers, scratch)


@jit
def _decompress_nothing(tile, n_in, target):
    """Without AMX no weights are compressed."""
    return target


@jit
def _no_compressed_dot(tile, first, n_in, scratch, out):
    """The same."""


dot_tile = _amx_dot if HAS_AMX else _vector_dot
dot_tile_rounded = _amx_dot_rounded if HAS_AMX else _vector_dot  # For rows of pack_rows_rounded.
decompress = _decompress_by_vectors if HAS_AMX else _decompress_nothing
_dot_compressed = _compressed_dot_by_amx if HAS_AMX else _no_compressed_dot


@jit
def result_of(weights_like, row, results):
    """The address of the results of a row, of a tile times up to ROWS_AT_ONCE rows, with TILE_ROW_BYTES a row."""
    if HAS_AMX and weights_like.itemsize == 1:  # After each group of rows are the lo results.
        row += row // MICRO_M * MICRO_M
    return results + TILE_ROW_BYTES * row


@njit(inline="always")
def _apply_epilogue(results, factor, scales, biases, count, epilogue, out):
    """results * factor * scales + biases, which an epilogue sets, adds, or puts through an activation function.

    All but the factor are addresses of `count` float32. Source of GELU_TANH: Hendrycks and Gimpel 2016, section 2, with
    the logistic function for the tangent; SILU and QUICK_GELU are number * logistic(slope * number).
    """
    source, target = floats_at(results, count), floats_at(out, count)
    scale, bias = floats_at(scales, count), floats_at(biases, count)
    for index in range(count):
        source[index] = source[index] * factor * scale[index] + bias[index]
    if epilogue == SET:
        for index in range(count):
            target[index] = source[index]
    elif epilogue == ADD:
        for index in range(count):
            target[index] += source[index]
    elif epilogue == RELU:
        for index in range(count):
            target[index] = max(source[index], np.float32(0))
    elif epilogue == GELU_TANH:
        for index in range(count):
            number = source[index]
            inner = np.float32(-1.5957691216057308) * (number + np.float32(0.044715) * number * number * number)
            target[index] = number / (np.float32(1) + exp(inner))
    else:
        slope = np.float32(-1.702) if epilogue == QUICK_GELU else np.float32(-1)
        for index in range(count):
            target[index] = source[index] / (np.float32(1) + exp(slope * source[index]))


@jit
def _write_results(weights, matrix, packed, begin, count, tile, epilogue, results, out):
    """Put the results of `count` rows, from row `begin` on, times a tile into their columns of `out`."""
    left = tile * TILE_N
    columns = min(TILE_N, matrix.n_out - left)
    scales = weights.floats + 4 * (matrix.scales + left)
    biases = scales + 4 * matrix.n_out
    for row in range(count):
        source, factor = result_of(weights.tiles, row, results), packed.factors[begin + row]
        target = address_of(out) + (begin + row) * out.strides[0] + 4 * left
        if columns == TILE_N:  # A constant number of columns is compiled without loops.
            _apply_epilogue(source, factor, scales, biases, TILE_N, epilogue, target)
        else:
            _apply_epilogue(source, factor, scales, biases, columns, epilogue, target)


@jit
def _find_tile(weights, matrix, tile, rows, buffers):
    """The address of a tile as `dot_tile` reads it. A compressed tile that is read more than once is decompressed."""
    if matrix.codebook and rows > ROWS_AT_ONCE:
        return decompress(compressed_tile(weights, matrix, tile), matrix.n_in, buffers.tile)
    first = matrix.offset + tile * TILE_N * round_up(matrix.n_in, TILE_K)
    return address_of(weights.tiles) + first * weights.tiles.itemsize


@jit
def _dot(weights, matrix, tile, here, first, stride, count, only, buffers):
    """Up to ROWS_AT_ONCE rows, from address `first` on, times a tile that `_find_tile` has found at `here`.

    If these are the `only` rows, the blocks of a compressed tile are decompressed just before they are used, so that no
    decompressed weight leaves the first-level cache.
    """
    if matrix.codebook and only:
        compressed = compressed_tile(weights, matrix, tile)
        _dot_compressed(compressed, first, matrix.n_in, buffers.tile, buffers.results)
    else:
        results, ahead = buffers.results, _AHEAD
        dot_tile(weights.tiles, here, first, stride, count, matrix.n_in, ahead, results, TILE_ROW_BYTES)


@jit
def _multiply_tiles(tiles, weights, matrix, packed, epilogue, buffers, out):
    """Packed rows times a range of tiles: each tile is read from memory once, for all rows."""
    rows = len(out)
    for tile in range(tiles[0], tiles[1]):
        here = _find_tile(weights, matrix, tile, rows, buffers)
        for begin in range(0, rows, ROWS_AT_ONCE):
            count, first = min(rows - begin, ROWS_AT_ONCE), packed.first + begin * packed.stride
            _dot(weights, matrix, tile, here, first, packed.stride, count, rows <= ROWS_AT_ONCE, buffers)
            _write_results(weights, matrix, packed, begin, count, tile, epilogue, buffers.results, out)


@jit
def multiply(team, phase, weights, number, inputs, epilogue, buffers, out):
    """Multiply rows with matrix `number`, together with the other threads; the results are complete after a barrier.

    Args:
        phase: as `barrier` counts. There is one barrier in here if there are more than MICRO_M rows.
        inputs: float32 [rows, n_in]; a thread looks only at its `row_range`.
        epilogue: what to do with the results.
        out: float32 [rows, n_out]; a thread writes only the columns of its tiles.

    Returns:
        The phase.
    """
    matrix, rows = weights.matrices[number], len(out)
    # 1) Pack the rows: up to MICRO_M in every thread for itself, more of them a share in each thread for all.
    if rows <= MICRO_M:
        target, factors = buffers.packed_rows, floats_at(buffers.factors, rows)
    else:
        target, factors = buffers.shared_rows, floats_at(buffers.shared_factors, rows)
    first, stride = pack_rows(weights.tiles, inputs, row_range(team, rows), target, factors, buffers.row_tail)
    if rows > MICRO_M:
        phase = barrier(team, phase)
    packed = PackedRows(first, stride, factors)
    # 2) Multiply them with this thread's tiles.
    if weights.tiles.itemsize > 1 and rows:
        configure_amx(min(rows, AMX_ROWS))
    tiles = thread_range(team, (matrix.n_out + TILE_N - 1) // TILE_N)
    _multiply_tiles(tiles, weights, matrix, packed, epilogue, buffers, out)
    return phase
