"""What the queries of a step make of the keys and values of the tokens they see: compiled, each thread for some heads.

Few queries look at one token after the other. The many of a prompt's piece look at LANES tokens at once where the
processor has a matrix unit: keys and values are laid out as tiles of weights, then both are products like others.
"""

from __future__ import annotations

import numpy as np
from numba import carray

from chat_app.matrix_unit import HAS_MATRIX_UNIT, turn
from chat_app.tile_kernel import (
    AT_ONCE,
    RESULTS,
    bits_of,
    compiled,
    exp,
    floats_at,
    result_of,
    rows_prepared,
    table_at,
    tile_product,
    up,
)
from chat_app.tile_products import (
    ROW,
    SPAN,
    TOGETHER,
    as_bits,
    as_float,
    dots_alone,
    dots_together,
    mix_alone,
    mix_together,
    mix_wide_alone,
    mix_wide_together,
    pointer,
)
from chat_app.tile_shape import DEPTH, LANES, LINE, MOST_LOOKING

_FEWEST = 8  # Queries for which it pays to lay keys and values out.
_WORDS = LINE // 4  # Of a line.


@compiled
def _keep(new, target):
    """Numbers as bfloat16."""
    for at in range(len(target)):
        target[at] = np.uint16(bits_of(new[at]))


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
    return bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))


@compiled
def _shares(products, scale):
    """What share of a query's look each token gets, in the place of its product with the token's key."""
    highest, whole = _highest(products), np.float32(0)
    for token in range(len(products)):
        products[token] = exp((products[token] - highest) * scale)
        whole += products[token]
    for token in range(len(products)):
        products[token] /= whole


@compiled
def _mixed(rows, shares, share_bytes, value, value_bytes, tokens, width, out, out_bytes):
    """Add what one query or TOGETHER make of the values of some tokens."""
    left = 0
    while left < width:
        first, target, wide = value + 2 * left, out + 4 * left, 4 * SPAN
        if left + 4 * SPAN > width:
            wide = SPAN
        if rows == 1 and wide == SPAN:
            mix_alone(shares, share_bytes, first, value_bytes, tokens, target, out_bytes)
        elif rows == 1:
            mix_wide_alone(shares, share_bytes, first, value_bytes, tokens, target, out_bytes)
        elif wide == SPAN:
            mix_together(shares, share_bytes, first, value_bytes, tokens, target, out_bytes)
        else:
            mix_wide_together(shares, share_bytes, first, value_bytes, tokens, target, out_bytes)
        left += wide


@compiled
def _looked(rows, query, query_bytes, key, begin, seen, width, shares, share_bytes):
    """Products of one query, or TOGETHER of tokens that follow one another, with the keys of the tokens from `begin`
    on: the first sees `seen` tokens, each other one more."""
    step = 2 * width
    first, target = key + begin * step, shares + 4 * begin
    if rows == 1:
        dots_alone(query, query_bytes, first, step, seen - begin, width, target, share_bytes)
    else:
        dots_together(query, query_bytes, first, step, seen - begin, width, target, share_bytes)
    for row in range(1, rows):
        here, target = query + row * query_bytes, shares + row * share_bytes + 4 * seen
        dots_alone(here, query_bytes, key + seen * step, step, row, width, target, share_bytes)


@compiled
def _taken(rows, value, begin, seen, width, shares, share_bytes, out, out_bytes):
    """Add what the same queries make of the values of these tokens."""
    step = 2 * width
    _mixed(rows, shares + 4 * begin, share_bytes, value + begin * step, step, seen - begin, width, out, out_bytes)
    for row in range(1, rows):
        here, target = shares + row * share_bytes + 4 * seen, out + row * out_bytes
        _mixed(1, here, share_bytes, value + seen * step, step, row, width, target, out_bytes)


@compiled
def _keys_as_tiles(key, tokens, width, tiles):
    """A tile for every LANES tokens: an output is a token, its inputs are its key."""
    for token in range(0, tokens, SPAN):
        tile = tiles + token // LANES * (width // 2 * ROW) + token % LANES * 4
        for word in range(0, width // 2, SPAN):
            turn(key + token * 2 * width + 4 * word, 2 * width, tile + word * ROW, ROW)


@compiled
def _values_as_tiles(value, tokens, width, tiles):
    """A tile for every LANES numbers of a value: these are the outputs, the inputs are tokens."""
    for pair in range(tokens // 2):
        for left in range(0, width, LANES):
            here = value + 4 * pair * width + 2 * left
            one = carray(pointer(here), (LANES,), np.uint16)
            next_one = carray(pointer(here + 2 * width), (LANES,), np.uint16)
            words = carray(pointer(tiles + 2 * left * tokens + pair * ROW), (LANES,), np.uint32)
            for lane in range(LANES):
                words[lane] = np.uint32(one[lane]) | np.uint32(next_one[lane]) << np.uint32(16)


@compiled
def _times_tiles(kept, rows, tiles, coming, results, out):
    """Rows, float32 [rows, inputs], times tiles of bfloat16; both inputs and outputs are whole tiles. Meanwhile the
    memory is asked for as much that stands at `coming`."""
    count, inputs = rows.shape
    spare = results + 4 * RESULTS
    factors = floats_at(spare + 4 * DEPTH, MOST_LOOKING)
    first, stride = rows_prepared(kept, rows, (0, count), spare + 4 * (DEPTH + MOST_LOOKING), factors, spare)
    for left in range(0, out.shape[1], LANES):
        tile = tiles + left * 2 * inputs
        tile_product(kept, tile, first, stride, count, inputs, coming - tiles, results)
        for row in range(count):
            source = floats_at(result_of(row, results), LANES)
            target = floats_at(out.ctypes.data + row * out.strides[0] + 4 * left, LANES)
            for lane in range(LANES):
                target[lane] = source[lane]


@compiled
def _attend(is_first, keys, queries, key, value, seen, tiled, tiles, scale, room, out):
    """What queries of tokens that follow one another, float32 [rows, width], make of the tokens they see: the first
    sees `seen` of them, each other one more.

    Args:
        is_first: whether they are the first that look at these tokens.
        keys: all there is room for; after them come those of the next head.
        tiled: of so many tokens the keys stand at `tiles`, and after them the values, unless these are the first.
    """
    rows, width = queries.shape
    most = seen + rows - 1
    shares, results = table_at(room, rows, most), room + 4 * up(rows * most, _WORDS)
    query, query_bytes, target, out_bytes = queries.ctypes.data, queries.strides[0], out.ctypes.data, out.strides[0]
    if tiled:
        _times_tiles(keys, queries, tiles, value, results, shares[:, :tiled])
    row = 0
    while row < rows:
        some = TOGETHER if row + TOGETHER <= rows else 1
        here = query + row * query_bytes
        _looked(some, here, query_bytes, key, tiled, seen + row, width, room + 4 * row * most, 4 * most)
        row += some
    for row in range(rows):
        _shares(shares[row, : seen + row], scale)
    if tiled:
        if is_first:
            _values_as_tiles(value, tiled, width, tiles + 2 * tiled * width)
        _times_tiles(keys, shares[:, :tiled], tiles + 2 * tiled * width, key + 2 * keys.size, results, out)
    else:
        out[:] = np.float32(0)
    row = 0
    while row < rows:
        some = TOGETHER if row + TOGETHER <= rows else 1
        here = room + 4 * row * most
        _taken(some, value, tiled, seen + row, width, here, 4 * most, target + row * out_bytes, out_bytes)
        row += some


@compiled
def attention(me, crew, model, layer, mixed, places, out):
    """This thread's heads of all rows: their keys and values are kept, and their queries look at what is there.

    Args:
        mixed: float32 [rows, 3 * heads * width]: queries, keys, values. places: as `tile_shape.CALL` says.
        out: float32 [rows, heads * width].
    """
    wide, width = mixed.shape[1] // 3, model.head_width
    heads, rows, room = wide // width, len(mixed), crew.work[me].ctypes.data
    for head in range(heads * me // crew.threads, heads * (me + 1) // crew.threads):
        left = head * width
        for row in range(rows):
            kept = _head_of(places[row], layer, heads, head, width)
            _keep(mixed[row, wide + left : wide + left + width], kept[0, places[row, 2]])
            _keep(mixed[row, 2 * wide + left : 2 * wide + left + width], kept[1, places[row, 2]])
        row = 0
        while row < rows:
            end = row + 1
            while end < rows and places[end, 0] == places[row, 0]:
                end += 1
            kept, seen, tiled = _head_of(places[row], layer, heads, head, width), places[row, 2] + 1, 0
            key, value = kept[0].ctypes.data, kept[1].ctypes.data
            if HAS_MATRIX_UNIT and end - row >= _FEWEST and width % LANES == 0:
                tiled = seen // LANES * LANES
                _keys_as_tiles(key, tiled, width, room)
            work = room + 4 * tiled * width
            for first in range(row, end, AT_ONCE):
                last = min(first + AT_ONCE, end)
                queries, target = mixed[first:last, left : left + width], out[first:last, left : left + width]
                scale, length = model.scales[layer], seen + first - row
                _attend(first == row, kept[0], queries, key, value, length, tiled, room, scale, work, target)
            row = end


@compiled
def _head_of(place, layer, heads, head, width):
    """The keys and the values of a head, uint16 (bfloat16) [2, room, width]."""
    space = place[1]
    address = place[0] + 4 * layer * heads * space * width
    whole = carray(pointer(address), (2, heads, space, width), np.uint16)
    return whole[:, head]
