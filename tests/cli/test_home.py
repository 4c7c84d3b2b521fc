"""A home folder that cannot be written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chat_app.cli import main
from chat_app.config.paths import Paths
from chat_app.errors import SettingError


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of conversations, while a file stands where the home should be."""
    (tmp_path / "home").write_text("This is a file.")
    monkeypatch.setenv("CHAT_APP_HOME", str(tmp_path / "home"))
    table = tmp_path / "table.tsv"
    table.write_text("When do you open?\tAt nine.\nWhere are you?\tIn Mill Lane.\n")
    return table


def test_a_look_at_a_file_needs_no_home(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(table), "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["conversations"] == 2
    assert "Nothing can be written in" in told.err


@pytest.mark.parametrize("command", ["train", "pretrain"])
def test_a_training_says_what_to_do(table: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--tokenizer", "starter", "--out", str(table.with_name("out"))] if command == "pretrain" else []
    assert main([command, "--data", str(table), *more]) == 2
    told = capsys.readouterr().err
    assert "CHAT_APP_HOME: Nothing can be written in" in told
    assert "to a folder that you may write to" in told
    assert (table.parent / "home").read_text() == "This is a file."


def test_a_home_that_is_missing_is_made(tmp_path: Path) -> None:
    assert Paths(tmp_path / "a" / "b").make_home().home.is_dir()
    (tmp_path / "c").write_text("")
    with pytest.raises(SettingError):
        Paths(tmp_path / "c" / "d").make_home()
