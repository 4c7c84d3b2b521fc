"""What compiled code is handed: of the right type, size, order and place, or an exception."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from chat_app.inference.gpt2.model_runner import GPT2ModelRunner
from chat_app.inference.model_runner import Chunk
from chat_app.kernels import packed_weights as tiles_module
from chat_app.kernels.arrays import KernelArrayError, checked_address
from chat_app.kernels.compilation import kernel
from chat_app.kernels.huge_pages import numbers_in_large_pages
from chat_app.kernels.layout import LINE
from tests.inference.gpt2.test_model_runner import model_of
from tests.inference.test_engine import ids_of
from tests.kernels.test_packed_weights import filled, numbers

PACKAGE = Path(__file__).parents[2] / "chat_app"
CHECKED = "arrays"
OTHERS = {"memory", "model_runner", "saving", "huge_pages", "scalar_math"}
"""Modules that compare addresses, or are compiled themselves, and hand none over."""


def test_what_suits_is_where_it_is():
    floats, whole = torch.zeros(3, 8, dtype=torch.float32), np.zeros((3, 8), np.int64)
    assert checked_address(floats, torch.float32, 3, 8) == floats.data_ptr()
    assert checked_address(floats, torch.float32, 2, 8) == floats.data_ptr()  # More than is needed.
    assert checked_address(floats.T, torch.float32, 8, 3, strided=True) == floats.data_ptr()
    assert checked_address(whole, np.int64, 24) == whole.ctypes.data
    lined = numbers_in_large_pages(100, np.float32)
    assert checked_address(lined, np.float32, 100, line=True) == lined.ctypes.data
    checked_address(torch.empty(0, 8, dtype=torch.float32), torch.float32, 0, 8)


BAD: dict[str, tuple[Any, dict[str, bool]]] = {
    "another type": (torch.zeros(4, 8, dtype=torch.bfloat16), {}),
    "another type of numpy": (np.zeros((4, 8), np.float64), {}),
    "another device": (torch.zeros(4, 8, dtype=torch.float32, device="meta"), {}),
    "too small": (torch.zeros(4, 7, dtype=torch.float32), {}),
    "too small, of numpy": (np.zeros(31, np.float32), {}),
    "transposed": (torch.zeros(8, 4, dtype=torch.float32).T, {}),
    "transposed, of numpy": (np.zeros((8, 4), np.float32).T, {}),
    "with gaps": (torch.zeros(8, 8, dtype=torch.float32)[::2], {}),
    "expanded": (torch.zeros(1, 8, dtype=torch.float32).expand(4, 8), {}),
    "of another shape": (torch.zeros(8, 4, dtype=torch.float32), {"strided": True}),
    "between two numbers": (np.zeros(4 * 32 + 1, np.uint8)[1:].view(np.float32), {}),
    "read-only": (np.frombuffer(bytes(128), np.float32), {}),
    "within a line": (numbers_in_large_pages(40, np.float32)[1:], {"line": True}),
}


@pytest.mark.parametrize("what", BAD)
def test_what_does_not_suit_is_an_error(what):
    array, settings = BAD[what]
    kind = torch.float32 if isinstance(array, torch.Tensor) else np.float32
    with pytest.raises(KernelArrayError, match="compiled code needs"):
        checked_address(array, kind, 4, 8, **settings)


def test_bytes_are_counted_too():
    assert checked_address(np.zeros(64, np.uint8), np.uint8, 64)
    with pytest.raises(KernelArrayError):
        checked_address(np.zeros(63, np.uint8), np.uint8, 64)


def test_an_error_says_what_it_was_given():
    with pytest.raises(KernelArrayError, match=r"float32 \[2, 3\].*given torch.bfloat16 \[2, 2\] .* on cpu"):
        checked_address(torch.zeros(2, 2, dtype=torch.bfloat16), torch.float32, 2, 3)


def test_addresses_come_from_there_only():
    found = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in (
                "data_ptr",
                "ctypes",
                "from_buffer",
                "__array_interface__",
            ):
                found.add(file.stem)
    assert CHECKED in found
    assert found - {CHECKED} <= OTHERS


@pytest.mark.parametrize("rows", [torch.zeros(2, 64), torch.zeros(4, 64, dtype=torch.bfloat16), torch.zeros(64, 4).T])
@pytest.mark.parametrize("form", ["packed", "8-bit"])
def test_a_step_writes_into_nothing_that_does_not_suit(form, rows):
    """Too few rows, of another type, in another order: the step fails, and the next one computes as before."""
    kernel(form == "8-bit").result()
    runner = GPT2ModelRunner(model_of(), 128, form)
    ids = ids_of(1, 4)

    def step() -> torch.Tensor:
        return runner.step([Chunk(ids, None, runner.new_kv_cache(), True)])[0]

    before = step()
    with pytest.raises(KernelArrayError):
        runner._decoder.step([Chunk(ids, None, runner.new_kv_cache(), True)], rows)
    assert torch.equal(step(), before)


@pytest.mark.parametrize("eight_bits", [True, False])
def test_a_matrix_of_another_shape_is_not_laid_out(eight_bits):
    tiles = tiles_module.Tiles([(64, 96)], eight_bits, filled(eight_bits, True)._kernel)
    with pytest.raises(KernelArrayError):
        tiles.put(0, numbers(1, 96, 63), None)


@pytest.mark.parametrize("eight_bits", [True, False])
def test_scales_of_another_type_are_not_multiplied_with(eight_bits):
    tiles = filled(eight_bits, True)
    rows = numbers(1, 2, 160)
    before = tiles.multiplied(0, rows)
    suited, tiles._floats = tiles._floats, [tiles._all_floats.bfloat16()]
    with pytest.raises(KernelArrayError):
        tiles.multiplied(0, rows)
    tiles._floats = suited
    assert torch.equal(tiles.multiplied(0, rows), before)


def test_what_is_remembered_begins_with_a_line():
    kernel(False).result()
    runner = GPT2ModelRunner(model_of(), 128, "packed")
    kv_cache = runner.new_kv_cache()
    assert kv_cache.places(3)[0][0] % LINE == 0
    kv_cache._data = kv_cache._data.float()
    with pytest.raises(KernelArrayError):
        kv_cache.places(1)
