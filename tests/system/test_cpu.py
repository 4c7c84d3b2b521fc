"""How many processors there are for a process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from chat_app.system.cpu import count_processors


@pytest.mark.parametrize(("said", "most"), [("100000 100000", 1), ("50000 100000", 1), ("150000 100000", 2)])
def test_a_container_has_as_many_as_its_share(said, most, tmp_path):
    (tmp_path / "cpu.max").write_text(f"{said}\n")
    assert count_processors(tmp_path / "cpu.max") == min(most, count_processors(tmp_path / "none"))


@pytest.mark.parametrize("said", ["max 100000", "", "1 0", "nonsense"])
def test_without_a_share_it_has_all(said, tmp_path):
    (tmp_path / "cpu.max").write_text(said)
    assert count_processors(tmp_path / "cpu.max") == count_processors(tmp_path / "none") >= 1


def test_the_environment_names_another_processor_to_compile_for():
    code = "from chat_app.system.cpu import target_processor as one; print(one().name, one().flags, one().has_amx)"
    forced = {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+sse2,-avx2"}
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **forced}, capture_output=True, text=True)
    assert done.stdout.split() == ["x86-64", "+sse2,-avx2", "False"]
