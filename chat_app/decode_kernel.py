"""One step of a GPT-2 for replies that are being written, compiled for the processor it runs on.

Writing a token reads every weight once, so a step lasts as long as the memory takes to hand the weights over; what a
library does between two products (starting threads, allocating, dispatching) takes longer than the products. Here the
whole step is one compiled function, which several threads run together. A row's sums are added up in the same order
whatever rows stand beside it, so a reply does not depend on its company.

Knows arrays, no model. The functions are kept on the disk once they are compiled.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import carray, njit

from chat_app.tile_products import (
    SPAN,
    WIDE_1,
    WIDE_4,
    WIDE_8,
    arrive,
    as_bits,
    as_float,
    dot,
    look,
    mix,
    pointer,
    product_1,
    product_2,
    product_4,
    product_8,
)
from chat_app.tile_shape import LANES, MOST_ROWS

PRODUCTS = 4  # Of a layer: queries, keys and values; what joins the heads; up; down.
SET, ADD, GELU_TANH, RELU, SILU, QUICK_GELU = range(6)
_compiled = njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})


class Matrices(NamedTuple):
    """The weights.

    Attributes:
        numbers: all tiles, int8 or uint16 (bfloat16), one after the other; AHEAD bytes more may be asked for.
        shape: int64 [products, 4], of each: where its tiles start, its inputs (even), its outputs, and where its
            scales and after them its biases stand among the floats.
        floats: float32.
    """

    numbers: Any
    shape: Any
    floats: Any


class Model(NamedTuple):
    """What is added to the weights to make a GPT-2 of them.

    Attributes:
        norms: int64 [2 * layers + 1]: where the factors and after them the biases of each norm stand.
        scales: float32 [layers]: what products of queries and keys are multiplied by.
        epsilon: float32, of the norms.
        head_width: of an attention head.
        activation: between a layer's last two products.
    """

    norms: Any
    scales: Any
    epsilon: Any
    head_width: int
    activation: int


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


@_compiled
def _meet(crew, met):
    """Wait for the other threads; `met` counts the meetings, this one included."""
    if crew.threads > 1:
        arrive(crew.counter)
        while look(crew.counter) < crew.threads * met:
            pass


@njit(inline="always")
def _exp(number):
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


@_compiled
def _normed(hidden, floats, start, epsilon, out):
    """The layer norm of rows; its factors and biases stand among the floats."""
    width = hidden.shape[1]
    factor, bias = floats[start : start + width], floats[start + width : start + 2 * width]
    for row in range(len(hidden)):
        source, target = hidden[row], out[row]
        total = np.float32(0)
        for at in range(width):
            total += source[at]
        mean = total / np.float32(width)
        squares = np.float32(0)
        for at in range(width):
            apart = source[at] - mean
            squares += apart * apart
        scale = np.float32(1) / np.sqrt(squares / np.float32(width) + epsilon)
        for at in range(width):
            target[at] = (source[at] - mean) * scale * factor[at] + bias[at]


@_compiled
def _prepared(numbers, source, rows, target, factors):
    """Rows in the form that products with these weights take: the address of the first, and the bytes from row to row.

    For 8-bit weights they become whole numbers of 16 bits in `target`, as large as they can be without a sum leaving 32
    bits, and `factors` what a result is to be multiplied by.
    """
    factors[:rows] = np.float32(1)
    if numbers.itemsize > 1:
        return source.ctypes.data, source.strides[0]
    width = source.shape[1]
    whole = target.view(np.int16)
    for row in range(rows):
        given = source[row]
        largest, total = np.float32(1e-20), np.float32(1e-20)
        for at in range(width):
            size = abs(given[at])
            total += size
            largest = max(largest, size)
        scale = min(np.float32(32767) / largest, np.float32(2147000000.0 / 127) / total)
        factors[row] = np.float32(1) / scale + total * np.float32(0)  # Whole numbers cannot carry a NaN on.
        places = whole[row]
        for at in range(width):
            places[at] = np.int16(np.rint(given[at] * scale))
    return whole.ctypes.data, whole.strides[0]


@_compiled
def _tile(numbers, tile, first, stride, rows, pairs, out):
    """`rows` rows times one tile: out[row, lane]. Rows up to the next 1, 2, 4 or 8 are computed too."""
    across = out.strides[0]
    wide = WIDE_1 if rows <= 2 else WIDE_4 if rows <= 4 else WIDE_8
    for left in range(0, LANES, wide):
        part = tile + left * 2 * numbers.itemsize
        target = out.ctypes.data + left * 4
        if rows == 1:
            product_1(numbers, part, first, stride, pairs, target, across)
        elif rows == 2:
            product_2(numbers, part, first, stride, pairs, target, across)
        elif rows <= 4:
            product_4(numbers, part, first, stride, pairs, target, across)
        else:
            product_8(numbers, part, first, stride, pairs, target, across)


@_compiled
def _give(source, wide, kind, target):
    """Set or add numbers, or set what an activation makes of them.

    Source of GELU_TANH: Hendrycks and Gimpel 2016, section 2, written with the logistic function; SILU and QUICK_GELU
    are number * logistic(factor * number).
    """
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
            target[at] = number / (np.float32(1) + _exp(inner))
    else:
        factor = np.float32(-1.702) if kind == QUICK_GELU else np.float32(-1)
        for at in range(wide):
            target[at] = source[at] / (np.float32(1) + _exp(factor * source[at]))


@_compiled
def _multiply(me, crew, matrices, number, inputs, kind, out):
    """This thread's share of rows times a matrix; `kind` is what becomes of the result. Changes its room."""
    numbers, floats = matrices.numbers, matrices.floats
    start, count, outputs, place = matrices.shape[number]
    tiles, rows, room = (outputs + LANES - 1) // LANES, len(out), crew.work[me]
    scales, biases = floats[place : place + outputs], floats[place + outputs : place + 2 * outputs]
    scratch = room[: MOST_ROWS * LANES].reshape(MOST_ROWS, LANES)
    factors = room[MOST_ROWS * LANES : MOST_ROWS * LANES + rows]
    whole = room[MOST_ROWS * LANES + len(inputs) :][: inputs.size].reshape(inputs.shape)
    first, stride = _prepared(numbers, inputs, rows, whole, factors)
    for tile in range(tiles * me // crew.threads, tiles * (me + 1) // crew.threads):
        left = tile * LANES
        wide = min(LANES, outputs - left)
        here = numbers.ctypes.data + (start + left * count) * numbers.itemsize
        for begin in range(0, rows, MOST_ROWS):
            some = min(rows - begin, MOST_ROWS)
            _tile(numbers, here, first + begin * stride, stride, some, count // 2, scratch)
            for row in range(some):
                source, factor = scratch[row], factors[begin + row]
                for at in range(wide):
                    source[at] = source[at] * factor * scales[left + at] + biases[left + at]
                _give(source, wide, kind, out[begin + row, left : left + wide])


@_compiled
def _keep(new, target):
    """Numbers as bfloat16, rounded to the nearest."""
    for at in range(len(target)):
        bits = np.uint32(as_bits(new[at]))
        bits += np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
        target[at] = np.uint16(bits >> np.uint32(16))


@_compiled
def _attend(query, keys, values, scale, shares, out):
    """What a query makes of the tokens it sees: keys and values are bfloat16 [tokens, width]."""
    tokens, width = keys.shape
    highest = np.float32(-np.inf)
    for token in range(tokens):
        shares[token] = dot(query.ctypes.data, keys.ctypes.data + token * keys.strides[0], width) * scale
        highest = max(highest, shares[token])
    whole = np.float32(0)
    for token in range(tokens):
        shares[token] = _exp(shares[token] - highest)
        whole += shares[token]
    for token in range(tokens):
        shares[token] /= whole
    for left in range(0, width, SPAN):
        first, target = values.ctypes.data + 2 * left, out.ctypes.data + 4 * left
        mix(shares.ctypes.data, first, values.strides[0], tokens, target)


@_compiled
def _attention(me, crew, model, layer, mixed, memories, out):
    """This thread's heads of all rows: their keys and values are kept, and their queries look at what is there."""
    wide, width = mixed.shape[1] // 3, model.head_width
    heads, room = wide // width, crew.work[me]
    for head in range(heads * me // crew.threads, heads * (me + 1) // crew.threads):
        left = head * width
        for row in range(len(mixed)):
            address, space, length = memories[row]
            across = 2 * heads * space * width
            kept = carray(pointer(address + 2 * layer * across), (2, heads, space, width), np.uint16)
            _keep(mixed[row, wide + left : wide + left + width], kept[0, head, length])
            _keep(mixed[row, 2 * wide + left : 2 * wide + left + width], kept[1, head, length])
            seen = kept[:, head, : length + 1]
            query, target = mixed[row, left : left + width], out[row, left : left + width]
            _attend(query, seen[0], seen[1], model.scales[layer], room, target)


@_compiled
def step(me, crew, matrices, model, hidden, memories, wanted, scores):
    """What thread `me` of the crew does of a step.

    Args:
        hidden: float32 [rows, width]: what goes into the first layer; changed. Tokens of one sequence stand in their
            order.
        memories: int64 [rows, 3]: the address of each row's keys and values, bfloat16 [layers, 2, heads, room, head
            width]; their room; and how many tokens come before the row's.
        wanted: int64 [scores]: the rows after which the next token is asked for.
        scores: float32 [scores, vocabulary], filled.
    """
    rows, width = hidden.shape
    padded = (rows + MOST_ROWS - 1) // MOST_ROWS * MOST_ROWS
    layers, widest = len(model.scales), matrices.shape[2, 2]
    shared, own = crew.work[crew.threads], crew.work[me]
    mixed = shared[: padded * 3 * width].reshape(padded, 3 * width)[:rows]
    attended = shared[padded * 3 * width :][: padded * width].reshape(padded, width)
    between = shared[padded * 4 * width :][: padded * widest].reshape(padded, widest)
    normed = own[len(own) - padded * width :].reshape(padded, width)
    for layer in range(layers):
        number = PRODUCTS * layer
        _normed(hidden, matrices.floats, model.norms[2 * layer], model.epsilon, normed)
        _multiply(me, crew, matrices, number, normed, SET, mixed)
        _meet(crew, 5 * layer + 1)
        _attention(me, crew, model, layer, mixed, memories, attended)
        _meet(crew, 5 * layer + 2)
        _multiply(me, crew, matrices, number + 1, attended, ADD, hidden)
        _meet(crew, 5 * layer + 3)
        _normed(hidden, matrices.floats, model.norms[2 * layer + 1], model.epsilon, normed)
        _multiply(me, crew, matrices, number + 2, normed, model.activation, between[:rows])
        _meet(crew, 5 * layer + 4)
        _multiply(me, crew, matrices, number + 3, between, ADD, hidden)
        _meet(crew, 5 * layer + 5)
    _normed(hidden, matrices.floats, model.norms[2 * layers], model.epsilon, normed)
    for place in range(len(wanted)):  # Never above the row it comes from.
        normed[place] = normed[wanted[place]]
    _multiply(me, crew, matrices, PRODUCTS * layers, normed, SET, scores)
    _meet(crew, 5 * layers + 1)


@_compiled
def multiply(me, crew, matrices, number, inputs, out):
    """What thread `me` of the crew does of rows times one matrix.

    Args:
        inputs: float32 [rows up to a multiple of MOST_ROWS, inputs].
        out: float32 [rows, outputs], filled.
    """
    _multiply(me, crew, matrices, number, inputs, SET, out)
    _meet(crew, 1)


@_compiled
def unpack(me, crew, matrices, number, target):
    """What thread `me` of the crew does to lay a matrix out as others read it.

    Args:
        target: uint16 (bfloat16) [inputs, outputs up to a multiple of LANES], filled; whole numbers stay what they are.
    """
    numbers, start = matrices.numbers, matrices.shape[number, 0]
    count, wide = target.shape
    for tile in range(wide // LANES * me // crew.threads, wide // LANES * (me + 1) // crew.threads):
        for pair in range(count // 2):
            begin = start + tile * LANES * count + pair * 2 * LANES
            source = numbers[begin : begin + 2 * LANES]
            for which in range(2):
                row = target[2 * pair + which, tile * LANES : (tile + 1) * LANES]
                for lane in range(LANES):
                    value = source[2 * lane + which]
                    if numbers.itemsize > 1:
                        row[lane] = value
                    else:
                        row[lane] = np.uint16(np.uint32(as_bits(np.float32(value))) >> np.uint32(16))
    _meet(crew, 1)
