"""Memory for very many numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from chat_app.kernels.layout import LINE


def numbers_in_large_pages(count: int, kind: Any) -> Any:
    """So many numbers of a kind, uninitialized, where a line of the memory begins.

    numpy asks for large pages, unlike torch: reading weights takes half the time with them.
    """
    return _aligned(np.empty(_bytes_for(count, kind), np.uint8), count, kind)


def zeros_in_large_pages(count: int, kind: Any) -> Any:
    """The same, and all are 0. What nobody writes to takes hardly any memory on most systems."""
    return _aligned(np.zeros(_bytes_for(count, kind), np.uint8), count, kind)


def _bytes_for(count: int, kind: Any) -> int:
    return count * int(np.dtype(kind).itemsize) + LINE


def _aligned(whole: Any, count: int, kind: Any) -> Any:
    first = -whole.ctypes.data % LINE
    return whole[first : first + count * np.dtype(kind).itemsize].view(kind)
