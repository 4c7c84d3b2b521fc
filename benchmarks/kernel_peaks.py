"""What this machine can do at best: multiply-adds in registers, and reading memory, each by a loop of nothing else.

The loops are compiled for the same processor as the kernels, so the environment can force another instruction set.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from llvmlite import ir
from llvmlite.binding import initialize_native_asmparser
from numba import njit, types
from numba.extending import intrinsic

from chat_app.kernels.llvm_dot import INT, LONG, VECTOR_WIDTH, IRWriter
from chat_app.kernels.numba_internals import cgutils
from chat_app.system.cpu import target_processor

_REPEATS, _LOOPS = 100, 1_000_000  # A loop takes milliseconds: starting the threads does not count beside it.
_MEMORY_BYTES, _PART_BYTES = 800 << 20, 32 << 20
_READ_AHEAD = 4096  # Bytes, as far ahead as the processor's own prefetching needs to be told.
_FEATURES = target_processor().features
_REGISTER = "zmm" if VECTOR_WIDTH == 16 else "ymm"


def _product_lines(eight_bits: bool) -> tuple[list[str], int]:
    """Instructions that multiply and add, independent of each other, in x86's assembly; and multiply-adds of each."""
    registers = range(10)
    if not eight_bits:
        return [f"vfmadd231ps %{_REGISTER}15, %{_REGISTER}14, %{_REGISTER}{one}" for one in registers], VECTOR_WIDTH
    if ("avx512vnni" if VECTOR_WIDTH == 16 else "avxvnni") in _FEATURES:
        vex = "" if VECTOR_WIDTH == 16 else "{vex} "
        lines = [f"{vex}vpdpwssd %{_REGISTER}15, %{_REGISTER}14, %{_REGISTER}{one}" for one in registers]
    else:
        lines = [
            f"vpmaddwd %{_REGISTER}15, %{_REGISTER}14, %{_REGISTER}{10 + one % 4}\n"
            f"vpaddd %{_REGISTER}{10 + one % 4}, %{_REGISTER}{one}, %{_REGISTER}{one}"
            for one in registers
        ]
    return lines, 2 * VECTOR_WIDTH


def _product_loop(eight_bits: bool) -> Any:
    lines, _ = _product_lines(eight_bits)

    @intrinsic
    def products(_context):
        def write(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
            clobbers = ",".join(f"~{{xmm{one}}}" for one in range(14))
            builder.asm(ir.FunctionType(ir.VoidType(), []), "\n".join(lines), clobbers, [], True)
            return context.get_dummy_value()

        return types.void(), write

    @njit(nogil=True)
    def run(count):
        for _ in range(count):
            products()

    return run


@intrinsic
def _read(_context, address, count):
    """Add up the vectors of some memory; gives a number that depends on all of it."""

    def write(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        address, count = arguments
        writer, vector = IRWriter(builder), ir.VectorType(INT, VECTOR_WIDTH)
        total = cgutils.alloca_once_value(builder, ir.Constant(vector, None))
        with cgutils.for_range(builder, builder.udiv(count, LONG(256))) as line:
            here = builder.add(address, builder.mul(line.index, LONG(256)))
            found = builder.load(total)
            for start in range(0, 256, 64):
                writer.prefetch(builder.add(here, LONG(_READ_AHEAD + start)))
            for start in range(0, 256, 4 * VECTOR_WIDTH):
                found = builder.add(found, writer.load(builder.add(here, LONG(start)), vector))
            builder.store(found, total)
        return builder.zext(builder.extract_element(builder.load(total), INT(0)), LONG)

    return types.int64(types.int64, types.int64), write


@njit(nogil=True)
def _read_part(address, count):
    return _read(address, count)


def _best_together(threads: int, work: Any) -> float:
    """The least seconds in which as many threads, each with its number, did some work at the same time."""
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for repeat in range(_REPEATS):
            started = time.perf_counter()
            list(pool.map(lambda number, repeat=repeat: work(number, repeat), range(threads)))
            best = min(best, time.perf_counter() - started)
    return best


def multiply_adds_per_second(eight_bits: bool, threads: int) -> float:
    """At best, of int16 or of float32; 0 where it is not known how."""
    if "avx2" not in _FEATURES or "fma" not in _FEATURES:
        return 0.0
    initialize_native_asmparser()  # For the instructions in the loop; numba needs only the printer.
    run = _product_loop(eight_bits)
    run(1)
    lines, each = _product_lines(eight_bits)
    return threads * _LOOPS * len(lines) * each / _best_together(threads, lambda number, repeat: run(_LOOPS))


def bytes_per_second(threads: int) -> float:
    """Of reading memory that is in no cache."""
    memory = np.ones(_MEMORY_BYTES, np.uint8)
    first, parts = memory.ctypes.data, _MEMORY_BYTES // _PART_BYTES - 1
    _read_part(first, 256)

    def work(number: int, repeat: int) -> None:
        part = (repeat * threads + number) % parts
        _read_part(first + part * _PART_BYTES, _PART_BYTES)

    return threads * _PART_BYTES / _best_together(threads, work)
