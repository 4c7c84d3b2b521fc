"""What a compiled kernel is handed: structures with named fields, which Python fills and compiled code reads.

A call hands over one KERNEL_ARGS. It names the task and holds what all tasks need; `task_args` is the address of the
structure of that task. A field called an address holds one; all other fields are numbers. Counts and offsets are in
elements of the array that they belong to, unless "bytes" is said.
"""

from __future__ import annotations

import numpy as np

from chat_app.kernels.workspace import WORKSPACE

STEP, MATMUL, UNPACK, PACK = range(4)  # Tasks.


def _structure(*fields: str) -> np.dtype:
    return np.dtype([(name, np.int64) for name in fields])


TEAM = _structure("threads", "counter")
"""The threads that run a task together. counter: address of an int64 that is 0 at the start, for barriers."""

MATRIX = _structure("offset", "n_in", "n_out", "scales", "codebook")
"""One packed matrix.

    offset: its first weight, in `WEIGHTS.tiles`.
    scales: the first of its n_out scales, in `WEIGHTS.floats`; its n_out biases follow them.
    codebook: 0, or the address of what decompresses a matrix of 12-bit weights, as `gemm.compressed_tile` reads it.
"""

WEIGHTS = _structure("tiles", "tiles_size", "matrices", "n_matrices", "floats")
"""All packed weights of a model.

    tiles: address of int8 or uint16 (bfloat16) [tiles_size].
    matrices: address of MATRIX [n_matrices].
    floats: address of float32: scales, biases and layer norms.
"""

KV_SLOT = _structure("cache", "capacity", "position")
"""Where the key and the value of one row's token go.

    cache: address of the sequence's KV cache, bfloat16 [layers, heads, 2, capacity * round_up(head width, TILE_N)]. A
        head has its keys as packed weights whose outputs are tokens, and then its values as packed weights whose inputs
        are tokens. Slots of later tokens hold finite numbers, and the padding of a head's width holds 0.
    capacity: tokens that the cache has room for, a multiple of TILE_N.
    position: tokens of the sequence before this one.
"""

STEP_ARGS = np.dtype(
    [
        *((name, np.int64) for name in ("hidden", "logits", "kv_slots", "wanted", "norms", "attention_scales")),
        *((name, np.int64) for name in ("rows", "width", "n_wanted", "layers", "head_width", "activation")),
        ("epsilon", np.float64),
    ]
)
"""STEP: all layers of a GPT-2 for some tokens, one a row. The tokens of one sequence are neighbours, in their order.

    hidden: address of float32 [rows, width], the embeddings; it is overwritten.
    logits: address of float32 [n_wanted, vocabulary], the result.
    kv_slots: address of KV_SLOT [rows].
    wanted: address of int64 [n_wanted], the rows whose logits are computed.
    norms: address of int64 [2 * layers + 1], for each layer norm its first weight in `WEIGHTS.floats`; biases follow.
    attention_scales: address of float32 [layers], the factors of attention scores.
    activation: the epilogue of fc_in. epsilon: of the layer norms.
"""

MATMUL_ARGS = _structure("matrix", "rows", "source", "target")
"""MATMUL: rows times one matrix, plus its bias.

    source: address of float32 [rows, n_in]. target: address of float32 [rows, n_out], the result.
"""

UNPACK_ARGS = _structure("matrix", "target")
"""UNPACK: a matrix in the order that torch reads.

    target: address of bfloat16 [n_in, n_out rounded up to TILE_N], the result. 8-bit weights are not scaled.
"""

PACK_ARGS = _structure(
    *("matrix", "source", "row_stride", "column_stride", "scales"),
    *("outlier_counts", "outliers", "max_outliers"),
)
"""PACK: fill the tiles of a matrix.

    source: address of float32 [n_in, n_out], with these strides.
    scales: address of float32 [n_out], filled.
    outlier_counts, outliers: only with a codebook, of which only the exponent table is read then: the addresses of
        int32 [blocks] and uint32 [tiles, max_outliers], filled. A tile with more outliers than that drops some.
"""

KERNEL_ARGS = np.dtype(
    [
        *(("task", np.int64), ("task_args", np.int64)),
        *(("team", TEAM), ("weights", WEIGHTS), ("workspace", WORKSPACE)),
    ]
)
"""What every task is handed."""
