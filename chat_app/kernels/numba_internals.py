"""What this project knows of the inside of numba, beyond its documented interface: how its compiled functions are put
together from LLVM's instructions, and what they are called in LLVM's code.

The kernels' tests carry the mark `dependencies`, which `.ci/run` runs with the oldest and the newest version that
pyproject.toml allows.
"""

from __future__ import annotations

from typing import Any

from numba.core import cgutils

__all__ = ["cgutils", "llvm_code"]


def llvm_code(function: Any, signature: tuple[Any, ...]) -> tuple[str, str]:
    """A compiled function as LLVM's assembly, and its name in there.

    Args:
        function: what `numba.njit` gives.
        signature: numba's types of the arguments.
    """
    function.compile(signature)
    name: str = function.overloads[signature].fndesc.llvm_func_name
    return function.inspect_llvm(signature), name
