"""The house: which package imports which, what is public, and that the light packages load neither torch nor gradio."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "chat_app"

# A package imports only what stands before it.
ORDER = (
    *("_version", "errors", "conversation", "formatting", "system", "tokenization", "config", "runs", "kernels"),
    *("models", "data", "inference", "training", "evaluation", "compat", "services", "ui", "server", "cli"),
)
DOORS = {"ui", "server", "cli"}
# The server mounts the page; the command `serve` starts the server.
MAY_OPEN = {("server", "ui"), ("cli", "server")}
LIGHT = ("errors", "conversation", "formatting", "system", "tokenization", "config", "runs", "data.readers")
HEAVY = ("torch", "gradio", "transformers", "pandas")

FILES = sorted(PACKAGE.rglob("*.py"))
PACKAGES = sorted(path for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE)


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> set[str]:
    """The modules of chat_app that a file imports, at its top or inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return {module_of(name) for name in found if name.startswith("chat_app.")}


def module_of(name: str) -> str:
    """The module in a dotted name such as chat_app.runs.run.Run."""
    while not (path := ROOT / name.replace(".", "/")).with_suffix(".py").exists() and not path.is_dir():
        name = name.rpartition(".")[0]
    return name


def top_of(name: str) -> str:
    return name.split(".")[1] if "." in name else "chat_app"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_package_imports_only_what_stands_before_it(path: Path) -> None:
    top = top_of(name_of(path))
    for name in imports_of(path) - {"chat_app"}:
        other = top_of(name)
        if top in ORDER:
            assert ORDER.index(other) <= ORDER.index(top), f"{name_of(path)} imports {name}"
        assert other == top or not {top, other} <= DOORS or (top, other) in MAY_OPEN, f"{name_of(path)} imports {name}"


def test_every_package_has_its_place() -> None:
    here = {top_of(name_of(path)) for path in FILES}
    assert here - set(ORDER) <= {"chat_app", "__main__"}


@pytest.mark.parametrize("path", PACKAGES, ids=name_of)
def test_a_package_says_what_is_in_it_and_what_others_may_use(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    public = importlib.import_module(name_of(path)).__all__
    assert public
    for name in public:
        module, package = path.parent / f"{name}.py", path.parent / name / "__init__.py"
        assert hasattr(importlib.import_module(name_of(path)), name) or module.exists() or package.exists()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_imports_only_public_modules_of_other_packages(path: Path) -> None:
    package = name_of(path) if path.name == "__init__.py" else name_of(path).rpartition(".")[0]
    for name in imports_of(path):
        parent, _, module = name.rpartition(".")
        if parent in ("", "chat_app") or package.startswith(parent):
            continue
        assert module in importlib.import_module(parent).__all__, f"{name_of(path)} imports {name}"


def test_only_two_modules_of_the_kernels_are_public() -> None:
    assert importlib.import_module("chat_app.kernels").__all__ == ["layout", "packed_weights"]


def test_the_light_packages_load_neither_torch_nor_gradio() -> None:
    light = [name_of(path) for path in FILES if name_of(path).startswith(tuple(f"chat_app.{one}" for one in LIGHT))]
    code = "\n".join(f"import {name}" for name in light)
    code += f"\nimport sys\nheavy = {set(HEAVY)!r} & set(sys.modules)\nassert not heavy, heavy"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom chat_app.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"heavy = { ({*HEAVY, 'fastapi'})!r} & set(sys.modules)\nassert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_stay_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
