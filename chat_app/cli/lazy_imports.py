"""What must happen before a training, as quickly as it can: its libraries are brought, those that only some trainings
need are left for those.

Imports take most of the time between the start of a run and its first step. Knows nothing of runs.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType

# What the Trainer imports on its way without using it: quantized weights with the compiler of PyTorch behind them, and
# tables. They take a quarter of all its imports, and 130 MB.
SELDOM_USED = ("bitsandbytes", "datasets")


def bring_libraries() -> None:
    """Import everything that a training runs through."""
    # Threads that wait for one another must sleep. By default they turn on the spot for milliseconds, at each of the
    # hundreds of products of a step; where another program wants a processor too, a step takes seconds that way. The
    # library of threads reads this once, when PyTorch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    was_enabled = gc.isenabled()
    gc.disable()  # Modules are never garbage: looking through them again and again takes a tenth of the imports.
    try:
        with when_used(*SELDOM_USED):
            from chat_app.cli import training_progress  # noqa: F401
            from chat_app.training import trainer  # noqa: F401
    finally:
        gc.freeze()  # Nor will they be.
        if was_enabled:
            gc.enable()


class _Later(MetaPathFinder):
    """Finds some modules as always, and lets them be executed when something of them is first asked for."""

    def __init__(self, names: Sequence[str]):
        self._names = names

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname in self._names else None
        if spec is not None and spec.loader is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = LazyLoader(spec.loader)
        return spec


@contextmanager
def when_used(*names: str) -> Iterator[None]:
    """What is imported in this block and has one of these names is executed when it is first used, then or later."""
    finder = _Later(names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
