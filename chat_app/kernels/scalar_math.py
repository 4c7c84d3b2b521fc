"""What all kernels share: how they are compiled, views of memory, and functions of single numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, njit

from chat_app.kernels import layout
from chat_app.kernels.llvm_dot import as_bits, as_float, pointer

_SETTINGS: Any = {
    "nogil": True,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
    "error_model": "numpy",
    "fastmath": {"reassoc", "contract", "arcp", "nsz"},
}
LOG2_E = np.float32(1.44269504088896341)
jit = njit(**_SETTINGS)
round_up = jit(layout.round_up)


@njit(inline="always")
def address_of(array):
    """Where an array begins. It is an int64: numpy gives a uint64, and numba adds that to an int64 as float64."""
    return np.int64(array.ctypes.data)


@jit
def floats_at(address, count):
    """float32 [count] in memory."""
    return carray(pointer(address), (count,), np.float32)


@jit
def table_at(address, rows, columns):
    """float32 [rows, columns] in memory."""
    return carray(pointer(address), (rows, columns), np.float32)


@njit(inline="always")
def exp(number):
    """e^number to the precision of float32, for -87 to 88."""
    return exp2(number * LOG2_E)


@njit(inline="always")
def exp2(number):
    """2^number to the precision of float32, for -126 to 127; smaller numbers count as -126. Source: Cephes, exp2f."""
    number = min(max(number, np.float32(-126)), np.float32(127))
    whole = np.rint(number)
    rest = number - whole
    series = np.float32(1.535336188319500e-4)
    series = series * rest + np.float32(1.339887440266574e-3)
    series = series * rest + np.float32(9.618437357674640e-3)
    series = series * rest + np.float32(5.550332471162809e-2)
    series = series * rest + np.float32(2.402264791363012e-1)
    series = series * rest + np.float32(6.931472028550421e-1)
    series = series * rest + np.float32(1)
    return as_float(as_bits(series) + (np.int32(whole) << np.int32(23)))


@njit(inline="always")
def round_to_bf16(number):
    """The bits of a float32 as bfloat16, rounded to nearest even: uint32, in the lower 16 bits."""
    bits = np.uint32(as_bits(number))
    return (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
