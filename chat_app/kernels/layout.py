"""The layout of packed weights: its constants, the activations that kernels know, and which models can have it.

Everything that packs weights, lays out a workspace or is compiled takes these constants from here. The README of this
package draws the layout. Loads neither torch nor numba.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CACHE_LINE = 64  # Bytes. Tiles and the buffers of a workspace are aligned to it.

# A tile holds the weights of TILE_N outputs, for all inputs of its matrix.
TILE_N = 64
TILE_K = 64  # The inputs of a tile are zero-padded to a multiple of it.
MICRO_M = 8  # Rows of activations of a group; up to so many are packed by each thread for itself.
ROW_PADDING = (
    256  # Bytes after a row of packed activations: rows a multiple of 4 KB apart evict each other from caches.
)
AMX_ROWS = 16  # Rows of an AMX tile register, which is as many rows of activations or of weight words.
MAX_QUERIES_PER_BLOCK = 2 * MICRO_M  # Queries of one sequence that go through attention together.
HEAD_WIDTH_MULTIPLE = 16  # The width of an attention head is a multiple of it.
PREFETCH_BYTES = 4096  # How far ahead weights are prefetched. As many bytes after the last tile are readable.

# bf16 compression: 16 bits in 12.
BLOCK_WEIGHTS = 2 * AMX_ROWS * TILE_N  # Weights that are decompressed together: AMX_ROWS rows of a tile.
BLOCK_BYTES = 3 * BLOCK_WEIGHTS // 2  # Their size after compression.
CODEBOOK_SIZE = 16  # Sign/exponent bytes that a 4-bit code can stand for.
CODEBOOK_BYTES = 64  # The codebook, repeated until it fills a vector register.

MIN_ABS_MAX = 1e-30  # Lower bound of an output's largest weight, so that a column of zeros has a scale.

# Epilogues: what a product does with its results.
SET, ADD, GELU_TANH, RELU, SILU, QUICK_GELU = range(6)

ACTIVATIONS = {
    **dict.fromkeys(("gelu_new", "gelu_fast", "gelu_pytorch_tanh"), GELU_TANH),
    **dict.fromkeys(("silu", "swish"), SILU),
    "relu": RELU,
    "quick_gelu": QUICK_GELU,
}
"""The epilogue of each activation function that the compiled decode step has, by its name in a config.json."""


def round_up(number: int, multiple: int) -> int:
    """The smallest multiple that is not below a number."""
    return (number + multiple - 1) // multiple * multiple


def packed_size(n_out: int, n_in: int) -> int:
    """Weights of a matrix after padding, which all its tiles together hold."""
    return round_up(n_out, TILE_N) * round_up(n_in, TILE_K)


def can_pack(config: Mapping[str, Any]) -> bool:
    """Whether the weights of a GPT-2 can be packed; `config` is the content of its config.json."""
    width, heads, mlp_width = config.get("n_embd", 768), config.get("n_head", 12), config.get("n_inner") or 0
    if not width or not heads or mlp_width % 2 or width % (heads * HEAD_WIDTH_MULTIPLE):
        return False
    return str(config.get("activation_function", "gelu_new")) in ACTIVATIONS
