"""The gate to compiled code: every address that it is handed is taken here, from an array that was checked first.

Compiled code knows no bounds. An array with half of the bytes that it expects would be written past its end, and the
process would die of it later, somewhere else. Here that is an exception before anything is written.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np

from chat_app.kernels.guarded_memory import is_guarded
from chat_app.kernels.layout import CACHE_LINE
from chat_app.kernels.mode import memory_is_guarded

_WORD = 8  # Bytes of the largest element, and of the largest field of a structure.


class KernelArrayError(AssertionError):
    """An array does not suit the compiled code that would work on it: a fault of this program, not of its user."""


def checked_address(array: Any, dtype: Any, *shape: int, line: bool = False, strided: bool = False) -> int:
    """The address of an array's first element; 0 if it has none.

    Args:
        array: of torch or numpy. The caller keeps it until the compiled code is done.
        dtype: what its elements must be, as the library of the array names it.
        shape: what the compiled code takes it for; the array has at least as many elements.
        line: whether it must be aligned to CACHE_LINE.
        strided: for torch only: whether its strides are handed over with it; it must have this very shape then.

    Raises:
        KernelArrayError: it is of another type, on another device, not contiguous, read-only, too small or unaligned.
    """
    address = -1
    # numpy's own attribute `ctypes` takes twice as long, which can be measured in a step of a small model.
    if array.dtype is dtype or array.dtype == dtype:
        if isinstance(array, np.ndarray):
            if array.flags.carray and array.size >= math.prod(shape):
                # A structure's fields would be described to ctypes one by one: bytes are not.
                buffer: Any = array.view(np.uint8) if array.dtype.names else array
                address = ctypes.addressof(ctypes.c_char.from_buffer(buffer)) if array.size else 0
        elif array.is_cpu:
            fits = array.shape == shape if strided else array.is_contiguous() and array.numel() >= math.prod(shape)
            address = array.data_ptr() if fits else -1
    if address < 0 or address % (CACHE_LINE if line else min(array.itemsize, _WORD)):
        raise KernelArrayError(_difference(array, dtype, shape, line, strided))
    if memory_is_guarded() and address and not is_guarded(address, array.nbytes):
        raise KernelArrayError(f"{dtype} {list(shape)} is not in guarded memory.")
    return address


def _difference(array: Any, dtype: Any, shape: tuple[int, ...], line: bool, strided: bool) -> str:
    """What the compiled code needs, and what it was given."""
    order = "" if strided else "contiguous "
    alignment = f" aligned to {CACHE_LINE} bytes" if line else ""
    strides = array.strides if isinstance(array, np.ndarray) else array.stride()
    return (
        f"The compiled code needs {order}{dtype} {list(shape)} on the processor{alignment}, and was given "
        f"{array.dtype} {list(array.shape)} with strides {list(strides)} on {getattr(array, 'device', 'cpu')}."
    )
