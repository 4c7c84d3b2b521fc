"""The buffers that compiled code reads and writes. Every one is allocated here, or passes `as_buffer`.

Large ones lie in huge pages where the system has them: numpy asks for those, torch does not. With pages of 4 KB half of
the time of reading weights goes into looking up their pages. With CHAT_APP_KERNELS=guarded all of them are allocated by
`guarded_memory`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chat_app.kernels.guarded_memory import allocate_guarded
from chat_app.kernels.layout import CACHE_LINE
from chat_app.kernels.mode import memory_is_guarded

_WORD = 8  # Bytes: the largest element, and the largest field of a structure.
_SAME_SIZE: dict[torch.dtype, Any] = {torch.float32: np.int32, torch.bfloat16: np.int16, torch.int8: np.int8}


def huge_page_array(count: int, dtype: Any) -> Any:
    """An uninitialized array [count] that is aligned to CACHE_LINE."""
    if memory_is_guarded():
        return allocate_guarded(count * np.dtype(dtype).itemsize, CACHE_LINE).view(dtype)
    return _align(np.empty(_bytes_with_slack(count, dtype), np.uint8), count, dtype)


def huge_page_zeros(count: int, dtype: Any) -> Any:
    """The same, filled with zeros. Pages that are never written to take no memory on most systems."""
    if memory_is_guarded():
        return allocate_guarded(count * np.dtype(dtype).itemsize, CACHE_LINE, zeros=True).view(dtype)
    return _align(np.zeros(_bytes_with_slack(count, dtype), np.uint8), count, dtype)


def buffer_zeros(count: int, dtype: Any) -> Any:
    """An array [count] of numbers or structures, filled with zeros."""
    if memory_is_guarded():
        element = np.dtype(dtype)
        return allocate_guarded(count * element.itemsize, min(element.itemsize, _WORD), zeros=True).view(element)
    return np.zeros(count, dtype)


def buffer_tensor(*shape: int, dtype: torch.dtype) -> Tensor:
    """An uninitialized tensor on the processor."""
    if memory_is_guarded():
        memory = allocate_guarded(math.prod(shape) * dtype.itemsize, dtype.itemsize).view(_SAME_SIZE[dtype])
        return torch.from_numpy(memory).view(dtype).view(shape)
    return torch.empty(shape, dtype=dtype, device="cpu")


def as_buffer(array: Any) -> Any:
    """An array of numpy or tensor of torch that was not allocated here: itself, or a copy where memory is guarded. What
    compiled code writes into a copy is lost.

    The strides of a tensor of two dimensions stay in their order.
    """
    if not memory_is_guarded():
        return array
    if isinstance(array, np.ndarray):
        copy = allocate_guarded(array.nbytes, min(array.itemsize, _WORD)).view(array.dtype).reshape(array.shape)
        copy[...] = array
        return copy
    if array.dim() == 2 and not array.is_contiguous():
        return buffer_tensor(*reversed(array.shape), dtype=array.dtype).copy_(array.T).T
    return buffer_tensor(*array.shape, dtype=array.dtype).copy_(array)


def _bytes_with_slack(count: int, dtype: Any) -> int:
    return count * int(np.dtype(dtype).itemsize) + CACHE_LINE


def _align(memory: Any, count: int, dtype: Any) -> Any:
    start = -memory.ctypes.data % CACHE_LINE
    return memory[start : start + count * np.dtype(dtype).itemsize].view(dtype)
