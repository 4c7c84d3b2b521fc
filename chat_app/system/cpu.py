"""The processor that functions are compiled for, and what it can do."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from dataclasses import dataclass, replace
from functools import cache

_NAME, _FEATURES = "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"  # Where the compiler is told so.
_SYSTEM_CALL, _ASK_FOR_STATE, _MATRIX_REGISTERS = 158, 0x1023, 18


@dataclass(frozen=True)
class Processor:
    """A kind of processor, in LLVM's words.

    Attributes:
        name: such as "skylake".
        features: what it has, such as "avx2".
        lacks: what it has not.
    """

    name: str
    features: frozenset[str]
    lacks: frozenset[str] = frozenset()

    @property
    def has_matrix_unit(self) -> bool:
        """Whether it multiplies matrices of 8 bits and of bfloat16 at once (Intel's AMX)."""
        return {"amx-tile", "amx-int8", "amx-bf16", "avx512bf16", "avx512bw"} <= self.features

    @property
    def environment(self) -> dict[str, str]:
        """What tells the compiler in another process."""
        flags = [*(f"+{one}" for one in sorted(self.features)), *(f"-{one}" for one in sorted(self.lacks))]
        return {_NAME: self.name, _FEATURES: ",".join(flags)}

    @property
    def flags(self) -> str:
        """What tells LLVM."""
        return self.environment[_FEATURES]


@cache
def this_processor() -> Processor:
    """The one this runs on; this process may use all that it has."""
    from llvmlite import binding

    try:
        known = dict(binding.get_host_cpu_features())
    except RuntimeError:  # LLVM cannot tell for every kind of processor.
        known = {}
    features = frozenset(name for name, has in known.items() if has)
    if not _may_use_matrix_unit():
        features -= {one for one in features if one.startswith("amx-")}
    processor = Processor(binding.get_host_cpu_name(), features, frozenset(known) - features)
    if processor.has_matrix_unit:  # Whatever has one does not slow down for the longest vectors, as LLVM fears.
        processor = replace(processor, lacks=processor.lacks | {"prefer-256-bit"})
    return processor


def compiled_for() -> Processor:
    """The one that functions are compiled for in this process."""
    if _NAME not in os.environ:
        return this_processor()
    flags = [one for one in os.environ.get(_FEATURES, "").split(",") if one]
    has, lacks = (frozenset(one[1:] for one in flags if one[0] == sign) for sign in "+-")
    return Processor(os.environ[_NAME], has, lacks)


def _may_use_matrix_unit() -> bool:
    """Ask the system for the registers of the matrix unit. Source: Linux, Documentation/arch/x86/xstate.rst."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    return bool(ctypes.CDLL(None).syscall(_SYSTEM_CALL, _ASK_FOR_STATE, _MATRIX_REGISTERS) == 0)
