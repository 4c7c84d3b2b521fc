"""One step of a GPT-2 for replies that are being written, compiled for the processor it runs on.

Writing a token reads every weight once, so a step lasts as long as the memory takes to hand the weights over; what a
library does between two products (starting threads, allocating, dispatching) takes longer than the products. Here the
whole step is one compiled function, which several threads run together.

Knows arrays, no model.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import carray

from chat_app.kernels.attention import attention
from chat_app.kernels.gemm import Crew, Matrices, meet, multiply, share_of
from chat_app.kernels.layout import ADD, CALL, LANES, MOST_ROWS, MULTIPLY, PACK, SET, STEP, UNPACK, WORDS
from chat_app.kernels.llvm_amx import close_matrix_unit, open_matrix_unit
from chat_app.kernels.llvm_dot import pointer, root
from chat_app.kernels.scalar_math import address_of, compiled, floats_at, table_at, up
from chat_app.kernels.weight_packing import Strays, pack, unpack

PRODUCTS = 4  # Of a layer: queries, keys and values; what joins the heads; up; down.


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


@compiled
def _normed(source, floats, start, epsilon, target):
    """The layer norm of a row; `start` is where its factors and biases stand among the floats."""
    width = len(source)
    factor, bias = floats_at(floats + 4 * start, width), floats_at(floats + 4 * (start + width), width)
    total = np.float32(0)
    for at in range(width):
        total += source[at]
    mean = total / np.float32(width)
    squares = np.float32(0)
    for at in range(width):
        apart = source[at] - mean
        squares += apart * apart
    scale = np.float32(1) / root(squares / np.float32(width) + epsilon)
    for at in range(width):
        target[at] = (source[at] - mean) * scale * factor[at] + bias[at]


@compiled
def _all_normed(me, crew, matrices, model, number, hidden, out):
    """This thread's share of rows through norm `number`."""
    begin, end = share_of(me, crew, len(hidden))
    for row in range(begin, end):
        _normed(hidden[row], matrices.floats, model.norms[number], model.epsilon, out[row])


@compiled
def _step(me, crew, matrices, model, hidden, places, wanted, scores):
    """What thread `me` of the crew does of a step, as `tile_shape.CALL` says."""
    rows, width = hidden.shape
    padded = up(rows, MOST_ROWS)
    layers, widest = len(model.scales), matrices.shape[2, 2]
    shared, own = address_of(crew.work[crew.threads]), address_of(crew.work[me])
    end, size = 4 * crew.work.shape[1], 4 * padded * width
    normed = table_at(own + end - size, padded, width)  # Rooms begin with what products need.
    mixed = table_at(shared + end - 3 * size, rows, 3 * width)
    attended = table_at(shared + end - 4 * size, padded, width)
    between = table_at(shared + end - 4 * size - 4 * padded * widest, padded, widest)
    met = 0
    for layer in range(layers):
        number = PRODUCTS * layer
        _all_normed(me, crew, matrices, model, 2 * layer, hidden, normed)
        met = multiply(me, crew, met, matrices, number, normed, SET, mixed)
        met = meet(crew, met)
        attention(me, crew, model, layer, mixed, places, attended)
        met = meet(crew, met)
        met = multiply(me, crew, met, matrices, number + 1, attended, ADD, hidden)
        met = meet(crew, met)
        _all_normed(me, crew, matrices, model, 2 * layer + 1, hidden, normed)
        met = multiply(me, crew, met, matrices, number + 2, normed, model.activation, between[:rows])
        met = meet(crew, met)
        met = multiply(me, crew, met, matrices, number + 3, between, ADD, hidden)
        met = meet(crew, met)
    for place in range(len(wanted)):
        _normed(hidden[wanted[place]], matrices.floats, model.norms[2 * layers], model.epsilon, normed[place])
    met = multiply(me, crew, met, matrices, PRODUCTS * layers, normed, SET, scores)
    meet(crew, met)


def entry(eight_bits: bool) -> Any:
    """The function that is compiled: what a thread of the crew does of a task.

    Its arguments: the thread's number, and the address of a `tile_shape.CALL`.
    """
    kind = np.int8 if eight_bits else np.uint16

    @compiled
    def run(me, address):
        call = carray(pointer(address), (1,), CALL)[0]
        crew = Crew(call.threads, call.counter, table_at(call.work, call.threads + 1, call.words))
        shape = carray(pointer(call.shape), (call.matrices, 5), np.int64)
        numbers = carray(pointer(call.numbers), (call.size,), kind)
        matrices = Matrices(numbers, shape, call.floats)
        open_matrix_unit(WORDS)
        if call.task == STEP:
            norms = carray(pointer(call.norms), (2 * call.layers + 1,), np.int64)
            scales, epsilon = floats_at(call.scales, call.layers), np.float32(call.epsilon)
            model = Model(norms, scales, epsilon, call.head_width, call.activation)
            hidden = table_at(call.source, call.rows, call.width)
            places = carray(pointer(call.places), (call.rows, 3), np.int64)
            wanted = carray(pointer(call.wanted), (call.results,), np.int64)
            scores = table_at(call.target, call.results, shape[call.matrices - 1, 2])
            _step(me, crew, matrices, model, hidden, places, wanted, scores)
        elif call.task == MULTIPLY:
            padded = up(call.rows, MOST_ROWS)
            source = table_at(call.source, padded, shape[call.number, 1])
            target = table_at(call.target, call.rows, shape[call.number, 2])
            multiply(me, crew, 0, matrices, call.number, source, SET, target)
        elif call.task == UNPACK:
            columns = up(shape[call.number, 2], LANES)
            target = carray(pointer(call.target), (shape[call.number, 1], columns), np.uint16)
            unpack(me, crew, matrices, call.number, target)
        elif call.task == PACK:
            strays = Strays(call.places, call.target, call.results)
            pack(me, crew, matrices, call.number, call.source, call.row_step, call.column_step, strays)
        close_matrix_unit()

    return run
