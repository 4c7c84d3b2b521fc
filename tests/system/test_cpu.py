"""How many processors there are for a process."""

from __future__ import annotations

import pytest

from chat_app.system.cpu import processors


@pytest.mark.parametrize(("said", "most"), [("100000 100000", 1), ("50000 100000", 1), ("150000 100000", 2)])
def test_a_container_has_as_many_as_its_share(said, most, tmp_path):
    (tmp_path / "cpu.max").write_text(f"{said}\n")
    assert processors(tmp_path / "cpu.max") == min(most, processors(tmp_path / "none"))


@pytest.mark.parametrize("said", ["max 100000", "", "1 0", "nonsense"])
def test_without_a_share_it_has_all(said, tmp_path):
    (tmp_path / "cpu.max").write_text(said)
    assert processors(tmp_path / "cpu.max") == processors(tmp_path / "none") >= 1
