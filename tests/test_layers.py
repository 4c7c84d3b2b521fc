"""The house: which package may import which, and that the light packages need neither torch nor gradio."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "chat_app"

# A package imports only what stands before it.
ORDER = """
_version errors conversation formatting system tokenization config runs kernels models data inference training
evaluation compat services ui server cli
""".split()  # noqa: SIM905 - a list of so many would be a line each.
EITHER = {"compat": {"services"}, "services": {"compat"}}  # They stand beside each other.
DOORS = {"ui", "server", "cli"}
EXCEPTIONS = {("server", "ui")}  # The server mounts the page.
LIGHT = ["errors", "conversation", "formatting", "system", "tokenization", "config", "runs", "data.readers", "data.quality"]
HEAVY = ["torch", "gradio", "transformers", "pandas"]


def package_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """The dotted names inside chat_app that a file imports, at its top or inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return {name for name in found if name.startswith("chat_app.")}


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__main__.py" and path.parent != PACKAGE or path.stem in ORDER)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_package_imports_only_what_stands_before_it(path: Path) -> None:
    package = package_of(path)
    allowed = set(ORDER[: ORDER.index(package) + 1])
    for name in imports_of(path):
        other = name.split(".")[1]
        assert other in allowed or other == "__version__", f"{package} imports {name}"
