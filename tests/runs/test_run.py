"""The run folder: whole files, torn lines, honest states."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from chat_app.config.training import TrainConfig
from chat_app.errors import RunError, SettingError
from chat_app.runs.files import read_json, seal, verify, write_json, write_text
from chat_app.runs.run import STATUSES, Run, find_run, list_runs, new_id


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "runs" / "one", TrainConfig(epochs=3), {"files": ["a.tsv"]})


def test_settings_come_back(run: Run) -> None:
    assert run.config() == TrainConfig(epochs=3)
    assert run.about()["files"] == ["a.tsv"]
    run.note(format="roles")
    assert run.about()["format"] == "roles"
    assert run.config() == TrainConfig(epochs=3)
    run.change(epochs=9)
    assert run.config().epochs == 9


def test_a_folder_is_not_used_twice(run: Run) -> None:
    with pytest.raises(RunError, match="already"):
        Run.create(run.folder, TrainConfig())


def test_damaged_settings_are_told(run: Run) -> None:
    (run.folder / "config.json").write_text('{"epochs": "many"}')
    with pytest.raises(RunError, match="epochs"):
        run.config()
    for name in ("config.json", "config.copy.json"):
        (run.folder / name).write_text("{")
    with pytest.raises(RunError, match="damaged"):
        run.config()


def test_states(run: Run) -> None:
    assert run.state().status == "queued"
    with run.lock():
        run.set_state("running", "Learning.", 3, 9)
        state = run.state()
        assert (state.status, state.step, state.total_steps) == ("running", 3, 9)
    run.set_state("done", "All epochs are done.")
    assert run.state().step == 3
    assert {"queued", "running", "stopping", "stopped", "interrupted", "failed", "done"} == set(STATUSES)


def test_running_without_a_process_is_interrupted(run: Run) -> None:
    run.set_state("running", "Learning.", 5, 9)
    assert run.state().status == "interrupted"
    assert read_json(run.folder / "state.json")["status"] == "interrupted"
    assert "last checkpoint" in run.state().reason


def test_a_killed_process_lets_go_of_its_run(run: Run) -> None:
    code = (
        "import time\nfrom pathlib import Path\nfrom chat_app.runs.run import Run\n"
        f"run = Run(Path({str(run.folder)!r}))\n"
        "with run.lock():\n    run.set_state('running')\n    print('locked', flush=True)\n    time.sleep(600)"
    )
    root = Path(__file__).resolve().parents[2]
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=root)
    assert child.stdout is not None
    assert child.stdout.readline() == b"locked\n"
    assert run.is_locked()
    assert run.state().status == "running"
    with pytest.raises(RunError, match="trained"):
        run.remove()
    child.kill()
    child.wait()
    child.stdout.close()
    assert not run.is_locked()
    assert run.state().status == "interrupted"


def test_an_unreadable_state_is_a_failure(run: Run) -> None:
    (run.folder / "state.json").write_text('{"status": "flying"}')
    assert run.state().status == "failed"


def test_torn_lines_are_read_past(run: Run) -> None:
    run.append("metrics.jsonl", {"step": 1, "train_loss": 2.0})
    with open(run.folder / "metrics.jsonl", "a") as file:
        file.write('[1]\n{"step": 2, "tra')
    assert run.metrics() == [{"step": 1, "train_loss": 2.0}]


def test_history_after_a_checkpoint_is_forgotten(run: Run) -> None:
    for step in range(6):
        run.append("metrics.jsonl", {"step": step, "train_loss": 1.0})
        run.append("samples.jsonl", {"step": step, "reply": "é"})
    run.forget_after(3)
    assert [line["step"] for line in run.metrics()] == [0, 1, 2, 3]
    assert len(run.samples()) == 4


def test_a_manifest_sees_every_change(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-1"
    (folder / "inner").mkdir(parents=True)
    (folder / "weights").write_bytes(b"x" * 5000)
    (folder / "inner" / "state").write_text("{}")
    assert not verify(folder)
    seal(folder)
    assert verify(folder)
    for damage in ("weights", "inner/state"):
        good = (folder / damage).read_bytes()
        (folder / damage).write_bytes(good[:-1] + b"!")
        assert not verify(folder)
        (folder / damage).write_bytes(good)
    (folder / "extra").write_text("")
    assert not verify(folder)
    (folder / "extra").unlink()
    (folder / "weights").unlink()
    assert not verify(folder)


def test_writing_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.json"
    write_json(path, {"a": 1})

    def broken(*arguments: object) -> None:
        raise OSError("no")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="no"):
        write_text(path, "half")
    assert read_json(path) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["state.json"]


def test_readers_never_see_half_a_state(run: Run) -> None:
    done = threading.Event()

    def write() -> None:
        for step in range(300):
            run.set_state("done", "x" * 200, step)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        assert run.state().status in ("queued", "done")
    writer.join()


def test_names_from_people_stay_inside(tmp_path: Path, run: Run) -> None:
    home = run.folder.parent
    assert find_run(home, "one").folder == run.folder
    for name in ("../one", "/etc", "", "a/b", ".hidden", "x" * 65, "one\n"):
        with pytest.raises(RunError, match="no run"):
            find_run(home, name)
    assert [one.id for one in list_runs(home)] == ["one"]
    assert new_id(home, "/some where/My Model!") != new_id(home, "/some where/My Model!")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("epochs", float("nan")),
        ("epochs", "3"),
        ("batch_size", 1.5),
        ("batch_size", True),
        ("learn", "nothing"),
        ("format", "chatml"),
        ("learning_rate", float("inf")),
        ("seed", -1),
    ],
)
def test_settings_have_limits(name: str, value: object) -> None:
    with pytest.raises(SettingError) as caught:
        TrainConfig(**{name: value})  # type: ignore[arg-type]
    assert caught.value.field == name
