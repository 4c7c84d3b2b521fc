"""What a training imports, and what it leaves for those that need it."""

from __future__ import annotations

import gc
import importlib
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from chat_app.cli.lazy_imports import when_used

ROOT = Path(__file__).resolve().parents[2]
TRAINING = """
import sys
from chat_app.cli import main
assert main(["train", "--data", "sample_data/shop.tsv", "--max-steps", "1", "--rehearse", "off"]) == 0
heavy = {"bitsandbytes.nn", "datasets.arrow_dataset", "torch._inductor.compile_fx"} & set(sys.modules)
assert not heavy, heavy
import bitsandbytes
assert bitsandbytes.nn.Linear4bit.__name__ == "Linear4bit"  # There as soon as somebody asks.
"""


def test_a_training_of_every_weight_brings_only_what_it_needs(tmp_path: Path) -> None:
    if find_spec("bitsandbytes") is None:
        pytest.skip("there is nothing to leave out")
    environment = {**os.environ, "CHAT_APP_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", TRAINING], check=True, cwd=ROOT, env=environment, capture_output=True)


def test_a_module_is_executed_when_something_of_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    package = tmp_path / "seldom"
    package.mkdir()
    (package / "__init__.py").write_text("print('executed')\nanswer = 42\n")
    (package / "part.py").write_text("other = 43\n")
    (tmp_path / "often.py").write_text("print('often')\n")
    with when_used("seldom", "nowhere"):
        seldom = importlib.import_module("seldom")
        importlib.import_module("often")
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("nowhere")
    assert capsys.readouterr().out == "often\n"
    assert importlib.import_module("seldom.part").other == 43
    assert seldom.answer == 42
    assert capsys.readouterr().out == "executed\n"
    for name in ("seldom", "seldom.part", "often"):
        del sys.modules[name]


def test_the_search_for_modules_is_as_it_was() -> None:
    before = list(sys.meta_path)
    with pytest.raises(ZeroDivisionError), when_used("seldom"):
        raise ZeroDivisionError
    assert sys.meta_path == before
    assert gc.isenabled()
