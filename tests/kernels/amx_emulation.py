"""The kernels as they are compiled for AMX, on a processor that has none: AMX is emulated, everything else is compiled.

    python -m tests.kernels.amx_emulation 8-bit FILE

writes the LLVM IR of a kernel that was compiled for AMX. It is started with `AMX.environment`, since the kernels choose
their functions when they are imported. `load_emulated` links that with functions that stand for the instructions: slow,
but with the same results up to the order of some sums.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from chat_app.kernels import compilation
from chat_app.kernels.compilation import CompiledKernel
from chat_app.system.cpu import Processor, target_processor

_LEVELS = {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd", "avx512vnni", "avx512bf16", "avx", "avx2", "fma"}
AMX = Processor(
    "sapphirerapids", frozenset({*_LEVELS, "amx-tile", "amx-int8", "amx-bf16"}), frozenset({"prefer-256-bit"})
)

# What LLVM has no code for without AVX-512, written with what it has. bfloat16 are whole numbers here.
_VECTOR_INSTRUCTIONS = """
declare <16 x i8> @llvm.x86.ssse3.pshuf.b.128(<16 x i8>, <16 x i8>)
define internal <64 x i8> @emulated_pshufb(<64 x i8> %table, <64 x i8> %codes) {{
{parts}
  %low = shufflevector <16 x i8> %r0, <16 x i8> %r1, <32 x i32> <{to_32}>
  %high = shufflevector <16 x i8> %r2, <16 x i8> %r3, <32 x i32> <{to_32}>
  %all = shufflevector <32 x i8> %low, <32 x i8> %high, <64 x i32> <{to_64}>
  ret <64 x i8> %all
}}
define internal <16 x i16> @emulated_cvtneps2bf16(<16 x float> %numbers) {{
  %bits = bitcast <16 x float> %numbers to <16 x i32>
  %upper = lshr <16 x i32> %bits, <{sixteens}>
  %odd = and <16 x i32> %upper, <{ones}>
  %half = add <16 x i32> %odd, <{halves}>
  %sum = add <16 x i32> %bits, %half
  %rounded = lshr <16 x i32> %sum, <{sixteens}>
  %result = trunc <16 x i32> %rounded to <16 x i16>
  ret <16 x i16> %result
}}
"""
_REPLACED = {
    "llvm.x86.avx512.pshuf.b.512": "emulated_pshufb",
    "llvm.x86.avx512bf16.cvtneps2bf16.512": "emulated_cvtneps2bf16",
    **{f"llvm.x86.{name}": f"emulated_{name}" for name in ("ldtilecfg", "tilerelease", "tilezero")},
    **{f"llvm.x86.{name}": f"emulated_{name}" for name in ("tileloadd64", "tilestored64", "tdpbssd", "tdpbf16ps")},
}


def compile_emulated(eight_bits: bool, file: Path) -> CompiledKernel:
    """A kernel for AMX; `file` is where its IR may be put."""
    command = [sys.executable, "-m", "tests.kernels.amx_emulation", "8-bit" if eight_bits else "bfloat16", str(file)]
    subprocess.run(command, env={**os.environ, **AMX.environment}, check=True, cwd=Path(__file__).parents[2])
    return load_emulated(file.read_text())


def load_emulated(ir: str) -> CompiledKernel:
    """The kernel of a module whose instructions of AMX are emulated."""
    from llvmlite import binding

    from chat_app.system.cpu import target_processor

    compilation._initialize_llvm()
    registers = _TileRegisters()
    for name, function in registers.functions.items():
        binding.add_symbol(name, ctypes.cast(function, ctypes.c_void_p).value)
    engine = binding.create_mcjit_compiler(
        binding.parse_assembly(_emulate(ir)), compilation._machine(target_processor())
    )
    engine.finalize_object()
    kernel = CompiledKernel(engine)
    kernel._registers = registers  # type: ignore[attr-defined]  # They live as long as what calls them.
    return kernel


def _emulate(ir: str) -> str:
    """Put the emulating functions in the place of the instructions."""
    ir = ir.replace("<16 x bfloat>", "<16 x i16>")
    lines = []
    for line in ir.splitlines():
        found = [name for name in _REPLACED if f"@{name}(" in line]
        if line.startswith("declare") and found:
            if "512" in found[0]:
                continue  # It is defined here.
            line = re.sub(r" immarg| nocapture| captures\(none\)|( #\d+)$", "", line)
        for name in found:
            line = line.replace(f"@{name}(", f"@{_REPLACED[name]}(")
        lines.append(line)
    return "\n".join(lines) + _VECTOR_INSTRUCTIONS.format(
        parts="\n".join(_lane(lane) for lane in range(4)),
        to_32=_mask(range(32)),
        to_64=_mask(range(64)),
        sixteens=_mask([16] * 16),
        ones=_mask([1] * 16),
        halves=_mask([0x7FFF] * 16),
    )


def _lane(lane: int) -> str:
    places = _mask(range(16 * lane, 16 * lane + 16))
    return "\n".join(
        [
            *(
                f"  %{one}{lane} = shufflevector <64 x i8> %{whole}, <64 x i8> undef, <16 x i32> <{places}>"
                for one, whole in (("t", "table"), ("c", "codes"))
            ),
            f"  %r{lane} = call <16 x i8> @llvm.x86.ssse3.pshuf.b.128(<16 x i8> %t{lane}, <16 x i8> %c{lane})",
        ]
    )


def _mask(numbers: Any) -> str:
    return ", ".join(f"i32 {number}" for number in numbers)


class _TileRegisters:
    """The tile registers of one thread, and what the instructions do with them."""

    def __init__(self) -> None:
        self._data = np.zeros((8, 16, 64), np.uint8)
        self._rows = [0] * 8
        i8, i64, pointer = ctypes.c_int8, ctypes.c_int64, ctypes.c_void_p
        signatures: dict[str, tuple[Any, ...]] = {
            "ldtilecfg": (pointer,), "tilerelease": (), "tilezero": (i8,), "tileloadd64": (i8, pointer, i64),
            "tilestored64": (i8, pointer, i64), "tdpbssd": (i8, i8, i8), "tdpbf16ps": (i8, i8, i8),
        }  # fmt: skip
        self.functions = {
            f"emulated_{name}": ctypes.CFUNCTYPE(None, *arguments)(getattr(self, name))
            for name, arguments in signatures.items()
        }

    def ldtilecfg(self, address: int) -> None:
        config = ctypes.string_at(address, 64)
        assert config[0] == 1
        assert all(config[16 + 2 * register] == 64 for register in range(8))
        self._rows = list(config[48:56])

    def tilerelease(self) -> None:
        self._rows = [0] * 8

    def tilezero(self, register: int) -> None:
        self._data[register] = 0

    def tileloadd64(self, register: int, address: int, stride: int) -> None:
        self._data[register] = 0
        for row in range(self._rows[register]):
            self._data[register, row] = np.frombuffer(ctypes.string_at(address + row * stride, 64), np.uint8)

    def tilestored64(self, register: int, address: int, stride: int) -> None:
        for row in range(self._rows[register]):
            ctypes.memmove(address + row * stride, self._data[register, row].tobytes(), 64)

    def tdpbssd(self, out: int, rows: int, weights: int) -> None:
        left = self._data[rows].view(np.int8).reshape(16, 16, 4).astype(np.int32)
        right = self._data[weights].view(np.int8).reshape(16, 16, 4).astype(np.int32)
        self._data[out].view(np.int32)[:] += np.einsum("mki,kni->mn", left, right)

    def tdpbf16ps(self, out: int, rows: int, weights: int) -> None:
        left, right = (
            (self._data[one].view(np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(16, 16, 2)
            for one in (rows, weights)
        )
        with np.errstate(over="ignore", invalid="ignore"):
            self._data[out].view(np.float32)[:] += np.einsum("mki,kni->mn", left, right)


def _write_ir(eight_bits: bool, file: Path) -> None:
    """In the other process: what would be machine code is its source."""

    class Machine:
        def emit_object(self, module: Any) -> bytes:
            return str(module).encode()

    compilation._machine = lambda processor: Machine()  # type: ignore[assignment]
    file.write_bytes(compilation._compile(eight_bits, target_processor()))


if __name__ == "__main__":
    _write_ir(sys.argv[1] == "8-bit", Path(sys.argv[2]))
