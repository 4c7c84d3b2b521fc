"""The command train never ignores what was asked for, and says before hours of work what cannot be."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from chat_app.data.writers import write_jsonl
from chat_app.runs.run import Run
from tests.cli.test_cli import Shell
from tests.conftest import reading_of

pytestmark = pytest.mark.slow_file


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path / "home")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_jsonl(reading_of(8).conversations, tmp_path / "data.jsonl")
    return tmp_path / "data.jsonl"


@pytest.fixture
def flags(tmp_path: Path, data: Path, make_folder: Callable[..., Path]) -> list[str]:
    """Flags of a training of one step with a run folder of its own."""
    model = make_folder("m")
    return [
        *("--data", str(data), "--model", str(model), "--run", str(tmp_path / "run"), "--device", "cpu"),
        *("--max-steps", "1", "--threads", "1"),
    ]


def test_what_a_run_was_not_prepared_with_is_refused(
    shell: Shell, flags: list[str], tmp_path: Path, data: Path
) -> None:
    first = shell("train", *flags)
    assert "done" in first.stderr
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    other = tmp_path / "other.jsonl"
    write_jsonl(reading_of(6).conversations, other)
    run = ["train", "--run", str(tmp_path / "run")]

    told = shell(*run, "--data", str(other), "--max-steps", "50", code=2).stderr
    assert f"--data {other} (the run: data.jsonl)" in told
    assert "--max-steps 50 (the run: 1)" in told
    assert "another folder with --run" in told
    told = shell(*run, "--question", "Who?", "--valid", str(other), code=2).stderr
    assert "--question" in told
    assert f"--valid {other} (the run: a share of its data)" in told
    told = shell("train", "--resume", str(tmp_path / "run"), "--batch-size", "2", "--epochs", "3", code=2).stderr
    assert "--batch-size 2 (the run: 8)" in told
    assert "--epochs" in told
    settings = tmp_path / "settings.yaml"
    settings.write_text("learning_rate: 0.05\n")
    assert "--learning-rate 0.05 (the run: 0)" in shell(*run, "--config", str(settings), code=2).stderr
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == config

    assert "done" in shell("train", *flags).stderr  # The same again is the same run.
    write_jsonl(reading_of(7).conversations, data)
    assert "content has changed since" in shell("train", *flags, code=2).stderr


def test_what_cannot_be_is_said_before_anything_is_prepared(shell: Shell, flags: list[str], tmp_path: Path) -> None:
    told = shell("train", *flags, "--learning-rate", "0.1", "--rate-factor", "10", code=2).stderr
    assert "rate_factor" in told
    assert "becomes 1" in told
    assert "The model sees 128 tokens at most" in shell("train", *flags, "--window", "999", code=2).stderr
    assert shell("train", *flags, "--model", str(tmp_path / "no-such-model"), code=2).stderr
    assert not (tmp_path / "run").exists()


def test_half_a_preparation_is_told_and_done_again(shell: Shell, flags: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".preparing").write_text("")
    told = shell("train", "--run", str(folder), code=2).stderr
    assert "ended while it prepared this run" in told
    assert "done" in shell("train", *flags).stderr
    assert Run(folder).state().status == "done"


def test_the_check_of_the_data_and_missing_tests_are_told(shell: Shell, flags: list[str], data: Path) -> None:
    said = reading_of(2).conversations
    write_jsonl([*said, *said], data)
    told = shell("train", *flags).stderr
    assert "--repair duplicates" in told
    assert "none to test on, since" in told
    assert "data.jsonl, line 3" in told


def test_a_run_is_exported_by_its_folder_and_a_stop_leaves_a_sentence(
    shell: Shell, flags: list[str], tmp_path: Path
) -> None:
    shell("train", *flags)
    shell("export", "--model", str(tmp_path / "run"), "--out", str(tmp_path / "model.zip"))
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        assert "model.safetensors" in archive.namelist()
        assert "conversations learned" in archive.read("README.md").decode()
    for path in (tmp_path / "run" / "model").iterdir():
        path.unlink()
    (tmp_path / "run" / "model").rmdir()
    assert (
        "has no model yet"
        in shell("export", "--model", str(tmp_path / "run"), "--out", str(tmp_path / "none.zip"), code=2).stderr
    )


def test_lost_checkpoints_and_changed_data_are_allowed_by_flags(shell: Shell, flags: list[str], tmp_path: Path) -> None:
    shell("train", *flags, "--wordings", "off")
    run = Run(tmp_path / "run")
    more = ["train", "--resume", str(run.folder), "--max-steps", "2"]
    (run.data / "valid.jsonl").write_text("")
    for path in run.checkpoints.rglob("optimizer.pt"):
        path.write_bytes(b"")
    told = shell(*more, code=2).stderr
    assert "valid.jsonl has 0 lines" in told
    assert "--accept-changes" in told
    told = shell(*more, "--accept-changes", code=2).stderr
    assert "optimizer.pt has changed" in told
    assert "--restart" in told
    assert "done" in shell(*more, "--restart").stderr
    assert run.state().step == 2
