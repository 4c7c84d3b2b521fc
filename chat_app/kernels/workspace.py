"""The workspace: the scratch memory of a kernel call, laid out once for Python and for compiled code.

Python allocates it by the sizes in a layout, and compiled code finds each buffer by the offset of the same name. The
README of this package draws it.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from chat_app.kernels.buffers import huge_page_array
from chat_app.kernels.guarded_memory import PAGE, allocate_with_protected_pages
from chat_app.kernels.layout import (
    AMX_ROWS,
    CACHE_LINE,
    MAX_QUERIES_PER_BLOCK,
    MICRO_M,
    ROW_PADDING,
    TILE_K,
    TILE_N,
    round_up,
)
from chat_app.kernels.mode import memory_is_guarded

RESULT_FLOATS = 4 * MICRO_M * TILE_N
"""The results of a tile times two groups of MICRO_M rows; AMX works in as much again after each group's."""

_MIN_BYTES = 2**16  # A workspace is not allocated again for every small task.
_SHARED = ("shared_factors", "shared_rows", "qkv", "attn_out", "mlp_hidden")
_OWN = ("results", "row_tail", "factors", "packed_rows", "denominators", "scores", "ln_out", "tile")
WORKSPACE = np.dtype([(name, np.int64) for name in ("address", "shared_bytes", *_SHARED, "own_bytes", *_OWN)])
"""A workspace: one area that all threads share, and after it one area for each thread.

    address: where the shared area begins.
    shared_bytes, own_bytes: the size of the shared area, and of each thread's own.
    All other fields: the offset of a buffer in its area, in bytes, a multiple of CACHE_LINE. Buffers hold float32:
        shared_factors, shared_rows: packed activations and what their products are multiplied by, for more than MICRO_M
            rows: each thread packs some of them.
        qkv [rows, 3 * width], attn_out [rows, width], mlp_hidden [rows, mlp_width]: activations of a layer.
        results: of rows times one tile. row_tail [TILE_K]: the zero-padded end of a row.
        factors, packed_rows: as the shared ones, for up to MICRO_M rows and for attention.
        denominators [MAX_QUERIES_PER_BLOCK], scores [MAX_QUERIES_PER_BLOCK, tokens]: of one head's softmax.
        ln_out [rows, width]: the rows that this thread has put through a layer norm.
        tile: a tile or some blocks of one after decompression.
"""


class WorkspaceLayout(NamedTuple):
    """Where everything is in a workspace.

    Attributes:
        offsets: a WORKSPACE without an address, not to be changed.
        shared_pages, own_pages: the offsets of protected pages in the shared area, and in each thread's own; none
            unless memory is guarded.
    """

    offsets: Any
    shared_pages: tuple[int, ...]
    own_pages: tuple[int, ...]

    def size(self, threads: int) -> int:
        """The bytes of a workspace for so many threads."""
        return int(self.offsets["shared_bytes"][0] + threads * self.offsets["own_bytes"][0])


@lru_cache(256)
def workspace_layout(rows: int, n_in: int, width: int = 0, mlp_width: int = 0, tokens: int = 0) -> WorkspaceLayout:
    """Lay out the workspace of a task; where memory is guarded, each buffer ends where a protected page begins.

    Args:
        rows: of activations.
        n_in: the most inputs of a matrix that the task reads.
        width, mlp_width: for a decode step, those of the model.
        tokens: for a decode step, the most tokens that attention sees.
    """
    tokens = round_up(tokens, TILE_N)
    depth = round_up(max(n_in, tokens), TILE_K)
    packed_row = depth + ROW_PADDING // 4
    shared_rows = round_up(rows, AMX_ROWS) if rows > MICRO_M else 0
    shared = {
        "shared_factors": shared_rows,
        "shared_rows": shared_rows * packed_row,
        "qkv": rows * 3 * width,
        "attn_out": rows * width,
        "mlp_hidden": rows * mlp_width,
    }
    own = {
        "results": RESULT_FLOATS,
        "row_tail": TILE_K,
        "factors": AMX_ROWS,
        "packed_rows": AMX_ROWS * packed_row,
        "denominators": MAX_QUERIES_PER_BLOCK,
        "scores": MAX_QUERIES_PER_BLOCK * tokens,
        "ln_out": rows * width,
        "tile": TILE_N * depth // 2,
    }
    offsets, guarded = np.zeros(1, WORKSPACE), memory_is_guarded()
    pages = []
    for total, sizes in (("shared_bytes", shared), ("own_bytes", own)):
        rounded = [round_up(4 * size, CACHE_LINE) for size in sizes.values()]
        rooms = [round_up(size, PAGE) + PAGE if guarded else size for size in rounded]
        *_, offsets[total] = ends = list(accumulate(rooms, initial=0))
        for name, size, end in zip(sizes, rounded, ends[1:], strict=True):
            offsets[name] = end - size - (PAGE if guarded else 0)
        pages.append(tuple(end - PAGE for end in ends[1:]) if guarded else ())
    offsets.flags.writeable = False
    return WorkspaceLayout(offsets, *pages)


def allocate_workspace(layout: WorkspaceLayout, threads: int) -> Any:
    """The memory of a workspace for a team of threads, uint8. It serves other layouts of that size, too, unless memory
    is guarded."""
    size = layout.size(threads)
    if not layout.own_pages:
        return huge_page_array(max(size, _MIN_BYTES), np.uint8)
    begins = [
        int(layout.offsets["shared_bytes"][0] + thread * layout.offsets["own_bytes"][0]) for thread in range(threads)
    ]
    own_pages = [begin + page for begin in begins for page in layout.own_pages]
    return allocate_with_protected_pages(size, [*layout.shared_pages, *own_pages])
