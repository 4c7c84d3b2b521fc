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
from chat_app.kernels.arrays import KernelArrayError, checked_address
from chat_app.kernels.buffers import huge_page_array
from chat_app.kernels.compilation import get_kernel
from chat_app.kernels.layout import CACHE_LINE
from chat_app.kernels.packed_weights import PackedWeights
from tests.inference.gpt2.test_model_runner import model_of
from tests.inference.test_engine import ids_of
from tests.kernels.test_packed_weights import filled, numbers

PACKAGE = Path(__file__).parents[2] / "chat_app"
CHECKED = "kernels/arrays.py"
OTHERS = {
    *("system/memory.py", "inference/model_runner.py", "models/saving.py"),
    *("kernels/buffers.py", "kernels/guarded_memory.py", "kernels/scalar_math.py"),
}
"""Files that compare addresses or align to them, or are compiled themselves, and hand none over."""


def test_what_suits_is_where_it_is():
    floats, whole = torch.zeros(3, 8, dtype=torch.float32), np.zeros((3, 8), np.int64)
    assert checked_address(floats, torch.float32, 3, 8) == floats.data_ptr()
    assert checked_address(floats, torch.float32, 2, 8) == floats.data_ptr()  # More than is needed.
    assert checked_address(floats.T, torch.float32, 8, 3, strided=True) == floats.data_ptr()
    assert checked_address(whole, np.int64, 24) == whole.ctypes.data
    lined = huge_page_array(100, np.float32)
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
    "within a line": (huge_page_array(40, np.float32)[1:], {"line": True}),
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
                found.add(file.relative_to(PACKAGE).as_posix())
    assert CHECKED in found
    assert found - {CHECKED} <= OTHERS


@pytest.mark.parametrize("rows", [torch.zeros(2, 64), torch.zeros(4, 64, dtype=torch.bfloat16), torch.zeros(64, 4).T])
@pytest.mark.parametrize("layout", ["packed", "8-bit"])
def test_a_step_writes_into_nothing_that_does_not_suit(layout, rows):
    """Too few rows, of another type, in another order: the step fails, and the next one computes as before."""
    get_kernel(layout == "8-bit").result()
    runner = GPT2ModelRunner(model_of(), 128, layout)
    ids = ids_of(1, 4)

    def step() -> torch.Tensor:
        return runner.step([Chunk(ids, None, runner.new_kv_cache(), True)])[0]

    before = step()
    with pytest.raises(KernelArrayError):
        runner._decoder.step([Chunk(ids, None, runner.new_kv_cache(), True)], rows)
    assert torch.equal(step(), before)


@pytest.mark.parametrize("eight_bits", [True, False])
def test_a_matrix_of_another_shape_is_not_packed(eight_bits):
    packed = PackedWeights([(64, 96)], eight_bits, filled(eight_bits, True)._future)
    with pytest.raises(KernelArrayError):
        packed.pack(0, numbers(1, 96, 63), None)


@pytest.mark.parametrize("eight_bits", [True, False])
def test_scales_of_another_type_are_not_multiplied_with(eight_bits):
    packed = filled(eight_bits, True)
    rows = numbers(1, 2, 160)
    before = packed.multiply(0, rows)
    suited, packed._floats = packed._floats, [packed._all_floats.bfloat16()]
    with pytest.raises(KernelArrayError):
        packed.multiply(0, rows)
    packed._floats = suited
    assert torch.equal(packed.multiply(0, rows), before)


def test_what_is_remembered_begins_with_a_line():
    get_kernel(False).result()
    runner = GPT2ModelRunner(model_of(), 128, "packed")
    kv_cache = runner.new_kv_cache()
    assert kv_cache.slots(3)[0][0] % CACHE_LINE == 0
    kv_cache._data = kv_cache._data.float()
    with pytest.raises(KernelArrayError):
        kv_cache.slots(1)
