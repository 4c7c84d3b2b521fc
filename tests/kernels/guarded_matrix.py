"""Runs the compiled step in guarded memory: many shapes of models, batches and teams of threads.

    CHAT_APP_KERNELS=guarded python -m tests.kernels.guarded_matrix share|all|overrun|underrun|unguarded

An access outside of a buffer ends the process by a signal. "share" takes every number of rows once; "all" takes every
number of rows with every number of threads. The last three do deliberately what must be noticed.
"""

from __future__ import annotations

import ctypes
import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from chat_app.inference.gpt2.model_runner import GPT2ModelRunner
from chat_app.inference.model_runner import Chunk
from chat_app.kernels import packed_weights
from chat_app.kernels.buffers import huge_page_array
from chat_app.kernels.guarded_memory import check_fills
from chat_app.kernels.layout import ACTIVATIONS
from chat_app.kernels.packed_weights import KV_SLOT, checked_address, get_kernel
from tests.inference.gpt2.test_model_runner import model_of

MOST_ROWS, MOST_THREADS = 200, 4
FEW_ROWS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33, 64, 96, 97, 112, 113, 200)


@dataclass(frozen=True)
class Shape:
    """A model: its head width, heads, vocabulary, window and activation."""

    head_width: int
    heads: int
    vocabulary: int
    window: int
    activation: str


_HEADS = ((16, 4), (32, 3), (48, 2), (64, 2), (80, 1), (96, 2), (112, 1), (128, 1))
_VOCABULARIES, _WINDOWS = (257, 300, 321, 1001, 64, 65, 511, 130), (1024, 256, 320, 512, 1000, 264, 300, 777)
SHAPES = [
    Shape(*heads, vocabulary, window, activation)
    for heads, vocabulary, window, activation in zip(
        _HEADS, _VOCABULARIES, _WINDOWS, (sorted(ACTIVATIONS) * 8)[: len(_HEADS)], strict=True
    )
]


def ids_of(seed: int, length: int, vocabulary: int) -> list[int]:
    """Random tokens."""
    return torch.randint(vocabulary, (length,), generator=torch.Generator().manual_seed(seed)).tolist()  # type: ignore[no-any-return]


@cache
def build_runner(shape: Shape, layout: str) -> GPT2ModelRunner:
    """A runner of its own for each layout of the weights."""
    model = model_of(
        n_embd=shape.head_width * shape.heads,
        n_head=shape.heads,
        vocab_size=shape.vocabulary,
        n_positions=shape.window,
        activation_function=shape.activation,
        n_layer=2,
    )
    return GPT2ModelRunner(model.to(torch.bfloat16) if layout == "packed" else model, shape.window, layout)  # type: ignore[arg-type]


def cases(share: str) -> Iterator[tuple[int, int, Shape]]:
    """Rows, threads and a model for each step to take."""
    for rows in FEW_ROWS if share == "share" else range(1, MOST_ROWS + 1):
        for threads in [rows % MOST_THREADS + 1] if share == "share" else range(1, MOST_THREADS + 1):
            yield rows, threads, SHAPES[(rows + threads) % len(SHAPES)]
    for number, activation in enumerate(sorted(ACTIVATIONS)):
        yield 1 + number, 1 + number % MOST_THREADS, Shape(16, 2, 97, 256, activation)


def check(rows: int, threads: int, shape: Shape, layout: str) -> bytes:
    """A step of so many rows, some of which decode: the bits of its logits."""
    torch.set_num_threads(threads)
    runner, decoding = build_runner(shape, layout), min(rows, 1 + rows % 16)
    ids = [ids_of(seed, 5 + seed, shape.vocabulary) for seed in range(decoding)]
    caches = [runner.new_kv_cache() for _ in range(decoding + 1)]
    for one, kv_cache in zip(ids, caches, strict=False):
        runner.step([Chunk(one[:-1], None, kv_cache, False)])
    chunks = [Chunk(one[-1:], None, kv_cache, True) for one, kv_cache in zip(ids, caches, strict=False)]
    if rows > decoding:
        chunks.append(Chunk(ids_of(77, rows - decoding, shape.vocabulary), None, caches[-1], True))
    logits = runner.step(chunks)
    assert len(logits) == len(chunks)
    assert all(bool(torch.isfinite(row).all()) for row in logits), "something was read that was never written"
    return b"".join(row.numpy().tobytes() for row in logits)


def run_matrix(share: str) -> str:
    """All cases; how many there were, and a digest of all logits."""
    steps, digest = 0, hashlib.sha256()
    for layout in ("8-bit", "packed"):
        get_kernel(layout == "8-bit").result()
        for rows, threads, shape in cases(share):
            digest.update(check(rows, threads, shape, layout))
            steps += 1
    return f"{steps} steps {digest.hexdigest()}"


def run_with_wrong_rows(extra: int) -> None:
    """A step that is told of more tokens than there are, past the gate."""
    kernel = get_kernel(True).result()
    runner = build_runner(SHAPES[0], "8-bit")
    step = runner._decoder._decode_step  # type: ignore[union-attr]
    kv_cache = runner.new_kv_cache()
    slots = np.array(kv_cache.slots(1), KV_SLOT)

    class Longer(np.ndarray[Any, Any]):
        def __len__(self) -> int:
            return 1 + extra

    real = packed_weights.checked_address

    def unchecked(array: Any, dtype: Any, *shape: int, **options: bool) -> int:
        return real(array, dtype, **options)  # The shape is not looked at.

    packed_weights.checked_address = unchecked  # type: ignore[assignment]
    hidden = torch.zeros(1, SHAPES[0].head_width * SHAPES[0].heads)
    step(kernel, hidden, slots.view(Longer), np.zeros(1, np.int64))


def main(what: str) -> None:
    """Do one of the things that the module's docstring lists."""
    if what in ("share", "all"):
        print(run_matrix(what))
    elif what == "overrun":
        run_with_wrong_rows(40)
    elif what == "underrun":
        buffer = huge_page_array(100, np.uint8)
        ctypes.c_ubyte.from_address(buffer.ctypes.data - 1).value = 0
        check_fills()
    else:
        checked_address(np.zeros(4, np.int64), np.int64, 4)


if __name__ == "__main__":
    main(sys.argv[1])
