"""How weights lie in tiles, and what is handed to the compiled functions that read them.

What lays weights out, what asks for room, and what is compiled must agree on both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

LINE = 64  # Bytes that the memory hands over at once. Tiles and rooms begin with a line.
LANES = 64  # Outputs in a tile.
DEPTH = 64  # The inputs of a tile are a multiple of it; those that a matrix lacks weigh nothing.
MOST_ROWS = 8  # Rows that one pass over a tile multiplies; rooms for rows are a multiple of it.
MOST_LOOKING = 2 * MOST_ROWS  # Queries that look at tokens together.
WORDS = 16  # Of an output: those that the matrix unit multiplies at once.
BLOCK = 2 * WORDS * LANES  # Weights of 16 bits: so many of a tile lie together when they are kept in 12.
SHORT_BLOCK = 3 * BLOCK // 2  # Bytes of them then.
UPPERS = 16  # Different upper bytes that weights in 12 bits can have.
TABLE = 64  # Bytes: the upper bytes by their numbers, again and again.
HEAD_STEP = 16  # The width of an attention head is a multiple of it.
AHEAD = 4096  # Bytes: how far before its use a weight is asked for, so many more may be asked for at the end.
SMALLEST = 1e-30  # The largest number of an output's weights is taken to be at least so large.

SET, ADD, GELU_TANH, RELU, SILU, QUICK_GELU = range(6)  # What becomes of the results of a product.
STEP, MULTIPLY, UNPACK, PACK = range(4)  # Tasks.
_ADDRESSES = (
    "counter",
    "work",
    "numbers",
    "shape",
    "floats",
    "norms",
    "scales",
    "source",
    "target",
    "places",
    "wanted",
)
_COUNTS = (
    *("task", "threads", "words", "size", "matrices", "layers", "head_width", "activation"),
    *("number", "rows", "width", "row_step", "column_step", "results"),
)
CALL = np.dtype([*((name, np.int64) for name in (*_ADDRESSES, *_COUNTS)), ("epsilon", np.float64)])
"""A task. Addresses:
    counter: of an int64 that is 0. work: of float32 [threads + 1, words], room.
    numbers: of the weights, `size` of them, int8 or uint16 (bfloat16).
    shape: of int64 [matrices, 5], of each where its tiles start, its inputs, its outputs, where its scales and after
        them its biases stand among the floats, and 0, or where its weights are kept in 12 bits the address of their
        key: their table, for each block how many strays come before it (int32, and how many there are in all), and the
        strays, as `short_weights` says.
    floats: of float32.
    STEP
        norms: of int64 [2 * layers + 1]: where the factors and after them the biases of each norm stand.
        scales: of float32 [layers]: what products of queries and keys are multiplied by.
        source: of float32 [rows, width]: what goes into the first layer; changed. Tokens of one sequence stand in
            their order.
        places: of int64 [rows, 3]: the address of what is kept of each row's sequence; for how many tokens it has room,
            a multiple of LANES; and how many tokens come before the row's. It is of bfloat16 [layers, heads, 2, room *
            head width up to a multiple of LANES]: first a tile for every LANES tokens, whose outputs are tokens and
            whose inputs are their keys, then a tile for every LANES numbers of values, whose inputs are tokens. What no
            token has filled must be numbers, and 0 where a width is filled up.
        wanted: of int64 [results]: the rows after which the next token is asked for.
        target: of float32 [results, vocabulary], filled.
    MULTIPLY, with the matrix `number`
        source: of float32 [rows up to a multiple of MOST_ROWS, inputs]. target: of float32 [rows, outputs], filled.
    UNPACK, the matrix `number`
        target: of uint16 (bfloat16) [inputs, outputs up to a multiple of LANES], filled; whole numbers stay what they
            are.
    PACK, the matrix `number`
        source: of float32 [inputs, outputs] with `row_step` and `column_step` numbers from one to the next; its tiles
            and scales are filled.
        With a key, only its table is looked at. places: of int32 [blocks], filled: how many strays each has. target: of
            uint32 [tiles, results], of which each tile's first are filled with its strays, as far as there is room.
"""


def up(number: int, step: int) -> int:
    """The next multiple of a step."""
    return (number + step - 1) // step * step


COMPILED = {
    **dict.fromkeys(("gelu_new", "gelu_fast", "gelu_pytorch_tanh"), GELU_TANH),
    **dict.fromkeys(("silu", "swish"), SILU),
    "relu": RELU,
    "quick_gelu": QUICK_GELU,
}
"""Activations that the compiled step knows, and what it calls them."""


def can_pack(config: Mapping[str, Any]) -> bool:
    """Whether a GPT-2 can have its weights in tiles; `config` is what stands in its config.json."""
    width, heads, inner = config.get("n_embd", 768), config.get("n_head", 12), config.get("n_inner") or 0
    if not width or not heads or inner % 2 or width % (heads * HEAD_STEP):
        return False
    return str(config.get("activation_function", "gelu_new")) in COMPILED
