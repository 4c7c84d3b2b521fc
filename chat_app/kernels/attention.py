"""Attention of a step's tokens to the KV caches of their sequences: each thread computes some of the heads.

Keys and values are kept in the layout of packed weights, so attention is two products like all others: queries times
keys give the scores, and softmax numerators times values give the output.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import carray

from chat_app.kernels.activation_packing import pack_rows, pack_rows_rounded
from chat_app.kernels.barrier import thread_range
from chat_app.kernels.gemm import ROWS_AT_ONCE, dot_tile, dot_tile_rounded, result_of
from chat_app.kernels.layout import AMX_ROWS, MAX_QUERIES_PER_BLOCK, MICRO_M, TILE_N
from chat_app.kernels.llvm_amx import configure_amx
from chat_app.kernels.llvm_dot import TILE_ROW_BYTES, as_bits, as_float, pointer
from chat_app.kernels.scalar_math import LOG2_E, address_of, exp2, floats_at, jit, round_to_bf16, round_up, table_at


class HeadCache(NamedTuple):
    """The KV cache of one head of one sequence.

    Attributes:
        keys, values: addresses of its keys and of its values.
        capacity: tokens that there is room for.
    """

    keys: int
    values: int
    capacity: int


@jit
def _head_cache(slot, layer, heads, head, head_width):
    """The cache of a head, in that of a KV_SLOT."""
    size = 2 * slot.capacity * round_up(head_width, TILE_N)
    keys = slot.cache + 2 * size * (layer * heads + head)
    return HeadCache(keys, keys + size, slot.capacity)


@jit
def _append(cache, position, key, value):
    """Write a token's key and value, float32 [head width] each, into the cache as bfloat16.

    The token is an output of the keys' tiles: its key goes down one column, a word of two numbers at a time. It is an
    input of the values' tiles: its value goes along half of a row of words, into the lower or upper halves.
    """
    head_width = len(key)
    tile_bytes = round_up(head_width, TILE_N) // 2 * TILE_ROW_BYTES  # Of the keys of TILE_N tokens.
    column = cache.keys + position // TILE_N * tile_bytes + position % TILE_N * 4
    words = carray(pointer(column), (head_width // 2, TILE_N), np.uint32)
    for word in range(head_width // 2):
        words[word, 0] = round_to_bf16(key[2 * word]) | round_to_bf16(key[2 * word + 1]) << np.uint32(16)
    for left in range(0, head_width, TILE_N):
        tile = cache.values + left // TILE_N * (cache.capacity // 2 * TILE_ROW_BYTES)
        halves = carray(pointer(tile + position // 2 * TILE_ROW_BYTES + position % 2 * 2), (2 * TILE_N,), np.uint16)
        for column in range(min(head_width - left, TILE_N)):
            halves[2 * column] = np.uint16(round_to_bf16(value[left + column]))


@jit
def _sortable(bits):
    """The bits of a float32 as an int32 in the same order; and back."""
    return np.int32(bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@jit
def _row_max(scores):
    """The largest score, or a NaN if there is one. By integers, which have a vector maximum."""
    largest = np.int32(-(2**31))
    for token in range(len(scores)):
        largest = max(largest, _sortable(as_bits(scores[token])))
    return as_float(_sortable(largest))


@jit
def _softmax_numerators(scores, scale):
    """Replace scores, times a scale, by their softmax numerators; gives the denominator."""
    largest, denominator = _row_max(scores), np.float32(0)
    slope = scale * LOG2_E
    for token in range(len(scores)):
        scores[token] = exp2((scores[token] - largest) * slope)
        denominator += scores[token]
    return denominator


@jit
def _attend(queries, cache, visible, scale, buffers, out):
    """Attention of one head: queries of neighbouring tokens, float32 [rows, head width], to the tokens that they see.

    Args:
        visible: tokens that the first query sees; each other query sees one more.
        out: float32 [rows, head width].
    """
    rows, head_width = queries.shape
    tokens = round_up(visible + rows - 1, TILE_N)
    bf16_like = carray(pointer(cache.keys), (1,), np.uint16)
    ahead = cache.values - cache.keys  # Prefetches values with keys, and the next head's keys with values.
    scores = table_at(buffers.scores, round_up(rows, MICRO_M), tokens)
    factors = floats_at(buffers.factors, MAX_QUERIES_PER_BLOCK)
    denominators = floats_at(buffers.denominators, MAX_QUERIES_PER_BLOCK)
    target, tail = buffers.packed_rows, buffers.row_tail
    configure_amx(rows)
    # 1) Scores: queries times keys, [rows, tokens].
    first, stride = pack_rows(bf16_like, queries, (0, rows), target, factors, tail)
    for left in range(0, tokens, TILE_N):
        tile = cache.keys + left * round_up(head_width, TILE_N) * 2
        here = address_of(scores) + 4 * left
        dot_tile(bf16_like, tile, first, stride, rows, head_width, ahead, here, 4 * tokens)
    # 2) Softmax numerators, 0 for tokens that a query does not see.
    for row in range(rows):
        denominators[row] = _softmax_numerators(scores[row, : visible + row], scale)
        scores[row, visible + row :] = np.float32(0)
        first, stride = pack_rows_rounded(bf16_like, scores, (row, row + 1), target, factors, tail)
    # 3) Numerators times values, divided by the denominators, [rows, head width].
    for left in range(0, head_width, TILE_N):
        tile = cache.values + left * cache.capacity * 2
        dot_tile_rounded(bf16_like, tile, first, stride, rows, tokens, ahead, buffers.results, TILE_ROW_BYTES)
        columns = min(head_width - left, TILE_N)
        for row in range(rows):
            source = floats_at(result_of(bf16_like, row, buffers.results), columns)
            weighted, factor = out[row, left : left + columns], np.float32(1) / denominators[row]
            for column in range(columns):
                weighted[column] = source[column] * factor


@jit
def attention(team, layer, model, slots, qkv, buffers, out):
    """Attention of all rows, for this thread's heads; the output is complete after a barrier.

    Args:
        slots: KV_SLOT [rows].
        qkv: float32 [rows, 3 * heads * head width]: queries, keys and values.
        out: float32 [rows, heads * head width].
    """
    width, head_width = qkv.shape[1] // 3, model.head_width
    heads, rows = width // head_width, len(qkv)
    begin, end = thread_range(team, heads)
    for head in range(begin, end):
        left, right = head * head_width, (head + 1) * head_width
        # 1) Append the keys and values of all rows, as later tokens of a sequence see earlier ones of the same step.
        for row in range(rows):
            cache = _head_cache(slots[row], layer, heads, head, head_width)
            keys, values = qkv[row, width : 2 * width], qkv[row, 2 * width :]
            _append(cache, slots[row].position, keys[left:right], values[left:right])
        # 2) Attend, for up to ROWS_AT_ONCE neighbouring tokens of a sequence at once.
        row = 0
        while row < rows:
            stop = row + 1
            while stop < rows and stop < row + ROWS_AT_ONCE and slots[stop].cache == slots[row].cache:
                stop += 1
            cache = _head_cache(slots[row], layer, heads, head, head_width)
            queries, target = qkv[row:stop, left:right], out[row:stop, left:right]
            _attend(queries, cache, slots[row].position + 1, model.attention_scales[layer], buffers, target)
            row = stop
    configure_amx(AMX_ROWS)
