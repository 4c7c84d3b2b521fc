"""Memory for very many numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from chat_app.tile_shape import LINE


def numbers_in_large_pages(count: int, kind: Any) -> Any:
    """So many numbers of a kind, uninitialized, where a line of the memory begins.

    numpy asks for large pages, unlike torch: reading weights takes half the time with them.
    """
    size = np.dtype(kind).itemsize
    whole = np.empty(count * size + LINE, np.uint8)
    first = -whole.ctypes.data % LINE
    return whole[first : first + count * size].view(kind)
