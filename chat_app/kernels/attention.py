"""What the queries of a step make of the keys and values of the tokens they see: compiled, each thread for some heads.

Keys and values are kept as tiles of weights are, so looking at them is two products like all others: queries times
keys, and what share each token gets of a look times values.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import carray

from chat_app.kernels.activation_packing import rows_prepared, rows_rounded
from chat_app.kernels.gemm import AT_ONCE, RESULTS, result_of, rounded_product, tile_product
from chat_app.kernels.layout import DEPTH, LANES, MOST_LOOKING, MOST_ROWS, WORDS
from chat_app.kernels.llvm_amx import open_matrix_unit
from chat_app.kernels.llvm_dot import ROW, as_bits, as_float, pointer
from chat_app.kernels.scalar_math import LOG2_E, address_of, bits_of, compiled, floats_at, table_at, two_to, up


class Head(NamedTuple):
    """What is kept for one head of a sequence, as `tile_shape.CALL` says.

    Attributes:
        keys, values: their addresses; as many bytes after the values come the keys of the next head.
        space: for so many tokens there is room.
    """

    keys: int
    values: int
    space: Any


@compiled
def _head_of(place, layer, heads, head, width):
    space = place[1]
    size = 2 * space * up(width, LANES)
    keys = place[0] + 2 * size * (layer * heads + head)
    return Head(keys, keys + size, space)


@compiled
def _keep(kept, token, keys, values):
    """Put a token's key and value, float32 [width] each, into the tiles as bfloat16."""
    width = len(keys)
    deep = up(width, LANES) // 2 * ROW  # Bytes of the keys of LANES tokens.
    place = kept.keys + token // LANES * deep + token % LANES * 4
    words = carray(pointer(place), (width // 2, LANES), np.uint32)
    for word in range(width // 2):
        words[word, 0] = bits_of(keys[2 * word]) | bits_of(keys[2 * word + 1]) << np.uint32(16)
    for left in range(0, width, LANES):
        place = kept.values + left // LANES * (kept.space // 2 * ROW) + token // 2 * ROW + token % 2 * 2
        halves = carray(pointer(place), (2 * LANES,), np.uint16)
        for lane in range(min(width - left, LANES)):
            halves[2 * lane] = np.uint16(bits_of(values[left + lane]))


@compiled
def _highest(products):
    """The largest number, or a NaN. As whole numbers of the same order, since only of those vectors are compared."""
    highest = np.int32(-(2**31))
    for token in range(len(products)):
        highest = max(highest, _in_order(as_bits(products[token])))
    return as_float(_in_order(highest))


@compiled
def _in_order(bits):
    """A float32's bits as a whole number that is larger for a larger one; and back."""
    return np.int32(bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@compiled
def _powers(products, scale):
    """What each token gets of a query's look, in the place of its product with the token's key; gives what all get."""
    highest, whole = _highest(products), np.float32(0)
    steep = scale * LOG2_E
    for token in range(len(products)):
        products[token] = two_to((products[token] - highest) * steep)
        whole += products[token]
    return whole


@compiled
def _attend(queries, kept, seen, scale, room, out):
    """What queries of tokens that follow one another, float32 [rows, width], make of the tokens they see: the first
    sees `seen` of them, each other one more."""
    rows, width = queries.shape
    tokens = up(seen + rows - 1, LANES)
    kind = carray(pointer(kept.keys), (1,), np.uint16)
    ahead = kept.values - kept.keys
    looks = table_at(room, up(rows, MOST_ROWS), tokens)
    results = room + looks.nbytes
    spare = results + 4 * RESULTS
    factors = floats_at(spare + 4 * DEPTH, MOST_LOOKING)
    wholes = floats_at(spare + 4 * (DEPTH + MOST_LOOKING), MOST_LOOKING)
    prepared = spare + 4 * (DEPTH + 2 * MOST_LOOKING)
    open_matrix_unit(rows)
    first, stride = rows_prepared(kind, queries, (0, rows), prepared, factors, spare)
    for left in range(0, tokens, LANES):
        tile = kept.keys + left * up(width, LANES) * 2
        tile_product(kind, tile, first, stride, rows, width, ahead, address_of(looks) + 4 * left, 4 * tokens)
    for row in range(rows):
        wholes[row] = _powers(looks[row, : seen + row], scale)
        looks[row, seen + row :] = np.float32(0)
        first, stride = rows_rounded(kind, looks, (row, row + 1), prepared, factors, spare)
    for left in range(0, width, LANES):
        tile = kept.values + left * kept.space * 2
        rounded_product(kind, tile, first, stride, rows, tokens, ahead, results, ROW)
        wide = min(width - left, LANES)
        for row in range(rows):
            source, target = floats_at(result_of(kind, row, results), wide), out[row, left : left + wide]
            factor = np.float32(1) / wholes[row]
            for lane in range(wide):
                target[lane] = source[lane] * factor


@compiled
def attention(me, crew, model, layer, mixed, places, out):
    """This thread's heads of all rows: their keys and values are kept, and their queries look at what is there.

    Args:
        mixed: float32 [rows, 3 * heads * width]: queries, keys, values. places: as `tile_shape.CALL` says.
        out: float32 [rows, heads * width].
    """
    wide, width = mixed.shape[1] // 3, model.head_width
    heads, rows, room = wide // width, len(mixed), address_of(crew.work[me])
    for head in range(heads * me // crew.threads, heads * (me + 1) // crew.threads):
        left = head * width
        for row in range(rows):
            kept = _head_of(places[row], layer, heads, head, width)
            new = mixed[row, wide:]
            _keep(kept, places[row, 2], new[left : left + width], new[wide + left : wide + left + width])
        row = 0
        while row < rows:
            end = row + 1
            while end < rows and end < row + AT_ONCE and places[end, 0] == places[row, 0]:
                end += 1
            kept = _head_of(places[row], layer, heads, head, width)
            queries, target = mixed[row:end, left : left + width], out[row:end, left : left + width]
            _attend(queries, kept, places[row, 2] + 1, model.scales[layer], room, target)
            row = end
    open_matrix_unit(WORDS)
