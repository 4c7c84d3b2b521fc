"""Processors with VNNI multiply and add 8-bit weights in one instruction. Only the code is looked at: it runs there."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from chat_app.system.cpu import Processor

pytestmark = [
    pytest.mark.long,
    pytest.mark.dependencies,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="they are processors of this kind"),
]

SCRIPT = """
import numpy as np
from numba import njit, types
from chat_app.kernels.gemm import dot_tile

@njit
def multiply(weights, address, rows, out):
    dot_tile(weights, address, address, np.int64(64), rows, 64, 0, out, 256)

multiply.compile((types.Array(types.int8, 1, "C"), types.int64, types.int64, types.int64))
print(*dot_tile.inspect_asm().values())
"""
AVX2 = frozenset({"avx", "avx2", "fma", "sse4.2"})
AVX512 = AVX2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl"}


@pytest.mark.parametrize(
    ("processor", "instruction", "registers"),
    [
        (Processor("alderlake", AVX2 | {"avxvnni"}), "vpdpwssd", "%ymm"),
        (Processor("znver4", AVX512 | {"avx512vnni"}), "vpdpwssd", "%zmm"),
        (Processor("znver3", AVX2), "vpmaddwd", "%ymm"),
    ],
)
def test_the_best_instruction_is_chosen(processor, instruction, registers):
    environment = {**os.environ, **processor.environment}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=600, check=True
    )
    lines = [line for line in done.stdout.splitlines() if "vpdpwssd" in line or "vpmaddwd" in line]
    assert any(instruction in line for line in lines)
    assert all(registers in line for line in lines)
    assert instruction == "vpdpwssd" or not any("vpdpwssd" in line for line in lines)
