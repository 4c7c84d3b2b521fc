"""The addresses that compiled code is handed, each checked: what it reads and writes there is of the type, the size and
the order that it takes for granted.

Compiled code knows no bounds: an array of half the bytes it expects would be written past its end, and the process
would die of it later, somewhere else. Here that is an exception, before anything is written.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from chat_app.tile_shape import LINE

_WORD = 8  # Bytes: no number, and no field of a record, is longer.


class KernelArrayError(AssertionError):
    """An array does not suit the compiled code that should work on it: a fault of this program, not of its user."""


def checked_address(array: Any, dtype: Any, *shape: int, line: bool = False, strided: bool = False) -> int:
    """Where an array's numbers begin.

    Args:
        array: of torch or numpy. It must be kept until the compiled code is done.
        dtype: what its numbers must be, as the library of the array names it.
        shape: what the compiled code takes it for: the array has at least so many numbers.
        line: whether it must begin where a line of the memory begins.
        strided: whether its numbers may lie apart, as the compiled code is told; it must have this very shape then.

    Raises:
        KernelArrayError: it is of another type, on another device, not contiguous, too small, or begins at a place
            where its numbers cannot.
    """
    if isinstance(array, Tensor):
        there, contiguous, size, bytes_of_one = array.is_cpu, array.is_contiguous(), array.numel(), array.itemsize
        address = array.data_ptr() if there else 0
    else:
        there, contiguous, size, bytes_of_one = True, array.flags.c_contiguous, array.size, array.itemsize
        address = array.ctypes.data
    fits = tuple(array.shape) == shape if strided else contiguous and size >= math.prod(shape)
    is_of_type = array.dtype is dtype or array.dtype == dtype
    if not (there and is_of_type and fits) or address % (LINE if line else min(bytes_of_one, _WORD)):
        raise KernelArrayError(_difference(array, dtype, shape, address, line, strided))
    return int(address)


def _difference(array: Any, dtype: Any, shape: tuple[int, ...], address: int, line: bool, strided: bool) -> str:
    """What compiled code wants, and what it would get."""
    order = "" if strided else "contiguous "
    start = f" beginning with a line of {LINE} bytes" if line else ""
    steps = array.stride() if isinstance(array, Tensor) else array.strides
    return (
        f"The compiled code needs {order}{dtype} {list(shape)} on the processor{start}, and was given {array.dtype} "
        f"{list(array.shape)} with steps of {list(steps)} on {getattr(array, 'device', 'cpu')} at {address:#x}."
    )
