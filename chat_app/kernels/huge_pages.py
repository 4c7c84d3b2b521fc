"""Arrays that lie in huge pages where the system has them: numpy asks for those, torch does not.

With pages of 4 KB half of the time of reading weights goes into looking up their pages.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from chat_app.kernels.layout import CACHE_LINE


def huge_page_array(count: int, dtype: Any) -> Any:
    """An uninitialized array [count] that is aligned to CACHE_LINE."""
    return _align(np.empty(_bytes_with_slack(count, dtype), np.uint8), count, dtype)


def huge_page_zeros(count: int, dtype: Any) -> Any:
    """The same, filled with zeros. Pages that are never written to take no memory on most systems."""
    return _align(np.zeros(_bytes_with_slack(count, dtype), np.uint8), count, dtype)


def _bytes_with_slack(count: int, dtype: Any) -> int:
    return count * int(np.dtype(dtype).itemsize) + CACHE_LINE


def _align(memory: Any, count: int, dtype: Any) -> Any:
    start = -memory.ctypes.data % CACHE_LINE
    return memory[start : start + count * np.dtype(dtype).itemsize].view(dtype)
