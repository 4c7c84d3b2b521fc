"""The decode step of a GPT-2 for a few tokens: all layers in one compiled function, run by a team of threads.

A step reads every weight once, so it lasts as long as memory takes to deliver them. What a library does between two
products (starting threads, allocating, dispatching) would take longer than the products.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import carray

from chat_app.kernels.attention import attention
from chat_app.kernels.barrier import TeamView, barrier, row_range
from chat_app.kernels.gemm import WeightsView, buffers_of, multiply
from chat_app.kernels.kernel_args import (
    KERNEL_ARGS,
    KV_SLOT,
    MATMUL,
    MATMUL_ARGS,
    MATRIX,
    PACK,
    PACK_ARGS,
    STEP,
    STEP_ARGS,
    UNPACK,
    UNPACK_ARGS,
)
from chat_app.kernels.layout import ADD, AMX_ROWS, SET
from chat_app.kernels.llvm_amx import configure_amx, release_amx
from chat_app.kernels.llvm_dot import pointer, sqrt
from chat_app.kernels.scalar_math import floats_at, jit, table_at
from chat_app.kernels.weight_packing import pack, unpack

MATRICES_PER_LAYER = 4  # qkv_proj, out_proj, fc_in, fc_out; after all layers comes the head.


class Model(NamedTuple):
    """What makes a GPT-2 of packed weights; `kernel_args.STEP_ARGS` says more.

    Attributes:
        norms: int64 [2 * layers + 1].
        attention_scales: float32 [layers].
        epsilon: float32.
        head_width, activation: numbers.
    """

    norms: Any
    attention_scales: Any
    epsilon: Any
    head_width: int
    activation: int


@jit
def _layer_norm(source, floats, start, epsilon, target):
    """Layer norm of a row; `start` is the first of its weights among the floats, and its biases follow them."""
    width = len(source)
    weight, bias = floats_at(floats + 4 * start, width), floats_at(floats + 4 * (start + width), width)
    total = np.float32(0)
    for index in range(width):
        total += source[index]
    mean = total / np.float32(width)
    squares = np.float32(0)
    for index in range(width):
        deviation = source[index] - mean
        squares += deviation * deviation
    scale = np.float32(1) / sqrt(squares / np.float32(width) + epsilon)
    for index in range(width):
        target[index] = (source[index] - mean) * scale * weight[index] + bias[index]


@jit
def _layer_norm_rows(team, weights, model, norm, hidden, ln_out):
    """Layer norm number `norm` of the rows that this thread packs next."""
    begin, end = row_range(team, len(hidden))
    for row in range(begin, end):
        _layer_norm(hidden[row], weights.floats, model.norms[norm], model.epsilon, ln_out[row])


@jit
def _run_layers(team, weights, model, buffers, hidden, slots, wanted, logits):
    """The transformer: hidden [rows, width] -> logits [wanted, vocabulary].

    After each barrier all threads see the whole of what was computed before it. `hidden`, `qkv`, `attn_out` and
    `mlp_hidden` are shared by all threads; each has its own `ln_out`.
    """
    rows, width = hidden.shape
    layers, mlp_width = len(model.attention_scales), weights.matrices[2].n_out
    qkv = table_at(buffers.qkv, rows, 3 * width)
    attn_out = table_at(buffers.attn_out, rows, width)
    mlp_hidden = table_at(buffers.mlp_hidden, rows, mlp_width)
    ln_out = table_at(buffers.ln_out, rows, width)
    phase = 0
    for layer in range(layers):
        matrix = MATRICES_PER_LAYER * layer
        # 1) qkv = ln_1(hidden) @ qkv_proj
        _layer_norm_rows(team, weights, model, 2 * layer, hidden, ln_out)
        phase = multiply(team, phase, weights, matrix, ln_out, SET, buffers, qkv)
        phase = barrier(team, phase)
        # 2) attn_out = attention(qkv), one head after the other
        attention(team, layer, model, slots, qkv, buffers, attn_out)
        phase = barrier(team, phase)
        # 3) hidden += attn_out @ out_proj
        phase = multiply(team, phase, weights, matrix + 1, attn_out, ADD, buffers, hidden)
        phase = barrier(team, phase)
        # 4) mlp_hidden = activation(ln_2(hidden) @ fc_in)
        _layer_norm_rows(team, weights, model, 2 * layer + 1, hidden, ln_out)
        phase = multiply(team, phase, weights, matrix + 2, ln_out, model.activation, buffers, mlp_hidden)
        phase = barrier(team, phase)
        # 5) hidden += mlp_hidden @ fc_out
        phase = multiply(team, phase, weights, matrix + 3, mlp_hidden, ADD, buffers, hidden)
        phase = barrier(team, phase)
    # 6) logits = ln_f(hidden[wanted]) @ head, for which every thread normalizes all wanted rows
    for index in range(len(wanted)):
        norm = model.norms[2 * layers]
        _layer_norm(hidden[wanted[index]], weights.floats, norm, model.epsilon, ln_out[index])
    multiply(team, phase, weights, MATRICES_PER_LAYER * layers, ln_out, SET, buffers, logits)


@jit
def _step(team, weights, args, buffers):
    """Do a STEP task."""
    norms = carray(pointer(args.norms), (2 * args.layers + 1,), np.int64)
    attention_scales, epsilon = floats_at(args.attention_scales, args.layers), np.float32(args.epsilon)
    model = Model(norms, attention_scales, epsilon, args.head_width, args.activation)
    hidden = table_at(args.hidden, args.rows, args.width)
    slots = carray(pointer(args.kv_slots), (args.rows,), KV_SLOT)
    wanted = carray(pointer(args.wanted), (args.n_wanted,), np.int64)
    logits = table_at(args.logits, args.n_wanted, weights.matrices[MATRICES_PER_LAYER * args.layers].n_out)
    _run_layers(team, weights, model, buffers, hidden, slots, wanted, logits)


@jit
def _matmul(team, weights, args, buffers):
    """Do a MATMUL task."""
    matrix = weights.matrices[args.matrix]
    source = table_at(args.source, args.rows, matrix.n_in)
    target = table_at(args.target, args.rows, matrix.n_out)
    multiply(team, 0, weights, args.matrix, source, SET, buffers, target)


def build_kernel(eight_bits: bool) -> Any:
    """The function that is compiled for one type of weights: what a thread of the team does of a task.

    Its arguments: the thread's number, from 0 on, and the address of a KERNEL_ARGS. The task is done when all threads
    have returned.
    """
    weight_type = np.int8 if eight_bits else np.uint16

    @jit
    def run(thread_id, address):
        args = carray(pointer(address), (1,), KERNEL_ARGS)[0]
        team = TeamView(thread_id, args.team.threads, args.team.counter)
        tiles = carray(pointer(args.weights.tiles), (args.weights.tiles_size,), weight_type)
        matrices = carray(pointer(args.weights.matrices), (args.weights.n_matrices,), MATRIX)
        weights = WeightsView(tiles, matrices, args.weights.floats)
        buffers = buffers_of(args.workspace, thread_id)
        configure_amx(AMX_ROWS)
        if args.task == STEP:
            _step(team, weights, carray(pointer(args.task_args), (1,), STEP_ARGS)[0], buffers)
        elif args.task == MATMUL:
            _matmul(team, weights, carray(pointer(args.task_args), (1,), MATMUL_ARGS)[0], buffers)
        elif args.task == UNPACK:
            unpack(team, weights, carray(pointer(args.task_args), (1,), UNPACK_ARGS)[0], buffers)
        elif args.task == PACK:
            pack(team, weights, carray(pointer(args.task_args), (1,), PACK_ARGS)[0], buffers)
        release_amx()

    return run
