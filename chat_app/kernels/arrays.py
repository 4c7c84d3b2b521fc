"""The addresses that compiled code is handed, each checked: what it reads and writes there is of the type, the size and
the order that it takes for granted.

Compiled code knows no bounds: an array of half the bytes it expects would be written past its end, and the process
would die of it later, somewhere else. Here that is an exception, before anything is written.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np

from chat_app.kernels.layout import LINE

_WORD = 8  # Bytes: no number, and no field of a record, is longer.


class KernelArrayError(AssertionError):
    """An array does not suit the compiled code that should work on it: a fault of this program, not of its user."""


def checked_address(array: Any, dtype: Any, *shape: int, line: bool = False, strided: bool = False) -> int:
    """Where an array's numbers begin; 0 if there are none.

    Args:
        array: of torch or numpy. It must be kept until the compiled code is done.
        dtype: what its numbers must be, as the library of the array names it.
        shape: what the compiled code takes it for: the array has at least so many numbers.
        line: whether it must begin where a line of the memory begins.
        strided: for torch only: whether its numbers may lie apart, as the compiled code is told; it must have this very
            shape then.

    Raises:
        KernelArrayError: it is of another type, on another device, not contiguous, read-only, too small, or begins at
            a place where its numbers cannot.
    """
    address = -1
    # numpy's own attribute `ctypes` takes twice as long, which in a step of a small model is noticed.
    if array.dtype is dtype or array.dtype == dtype:
        if isinstance(array, np.ndarray):
            if array.flags.carray and array.size >= math.prod(shape):
                buffer: Any = array
                address = ctypes.addressof(ctypes.c_char.from_buffer(buffer)) if array.size else 0
        elif array.is_cpu:
            fits = array.shape == shape if strided else array.is_contiguous() and array.numel() >= math.prod(shape)
            address = array.data_ptr() if fits else -1
    if address < 0 or address % (LINE if line else min(array.itemsize, _WORD)):
        raise KernelArrayError(_difference(array, dtype, shape, line, strided))
    return address


def _difference(array: Any, dtype: Any, shape: tuple[int, ...], line: bool, strided: bool) -> str:
    """What compiled code needs, and what it would get."""
    order = "" if strided else "contiguous "
    start = f" beginning with a line of {LINE} bytes" if line else ""
    steps = array.strides if isinstance(array, np.ndarray) else array.stride()
    return (
        f"The compiled code needs {order}{dtype} {list(shape)} on the processor{start}, and was given {array.dtype} "
        f"{list(array.shape)} with steps of {list(steps)} on {getattr(array, 'device', 'cpu')}."
    )
