"""The house: who may import whom, and that the pure part needs neither torch nor gradio."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "chat_app"

# A part imports only what stands above it.
ORDER = """
errors sizes cache conversation replies formats settings config templates encoding reading checking split plain_text
scoring material questions runs recipe followup collection run_comparison ranks wording curves verdict originality
copies duel comparison corrections remote_stream remote cards
logprobs sampling batching processor devices likelihood recognition memory model_building model_checks gpt2_files
adapter_files model_folder adapters merged_weights optimizers lesson rows hub_data run_writer shares training
linear tile_shape kernel_arrays large_memory tile_products short_weights matrix_unit number_kernel row_kernel
tile_kernel laying_kernel attention_kernel decode_kernel machine_code tiles key_values tiled_key_values pages prefixes
forward
attention graph_step gpt2_weights gpt2_writer gpt2_forward request thread_pace engine
loaded_size empty_model model_files model_engine recommended models merging methods memory_plan pace rehearsal fitting
chat evaluation measuring convmodel export_card exporting gathering teaching correcting pretraining from_nothing jobs
services
""".split()  # noqa: SIM905 - a list of so many would be a line each.
DOORS = ["cli", "api", "ui"]
PURE = ORDER[: ORDER.index("cards") + 1]


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """The parts of the package that a file imports, at its top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "chat_app" else [f"chat_app.{one.name}" for one in node.names]
        elif isinstance(node, ast.Import):
            names = [one.name for one in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("chat_app.")}
    return found - {"__version__"}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_part_imports_only_what_stands_above_it(path: Path) -> None:
    part = part_of(path)
    if part in ORDER:
        above = set(ORDER[: ORDER.index(part) + 1])
        assert imports_of(path) <= above
    elif part in DOORS:
        others = set(DOORS) - {part}
        assert not imports_of(path) & others


def test_every_part_has_its_place() -> None:
    parts = {part_of(path) for path in PACKAGE.rglob("*.py")}
    assert parts - set(ORDER) - set(DOORS) <= {"__init__", "__main__", *SERVER}


SERVER = ["server", "web", "guard", "accounts", "relay", "api_schema", "api_answers", "api_docs"]


def test_the_pure_part_needs_neither_torch_nor_gradio() -> None:
    code = "\n".join(f"import chat_app.{name}" for name in PURE)
    code += "\nimport sys\nheavy = {'torch', 'gradio', 'transformers', 'pandas'} & set(sys.modules)"
    code += "\nassert not heavy, heavy"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom chat_app.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'gradio', 'transformers', 'pandas', 'fastapi'} & set(sys.modules)\nassert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_stay_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
