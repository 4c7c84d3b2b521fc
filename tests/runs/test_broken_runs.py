"""A damaged run folder is shown with what is wrong in it, restored where that is possible, and in nobody's way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from chat_app.config.paths import Paths
from chat_app.config.training import TrainConfig
from chat_app.errors import RunError
from chat_app.runs import catalog
from chat_app.runs.compare import list_differences
from chat_app.runs.data_manifest import describe_changes, seal_data
from chat_app.runs.files import explain_damage, seal, verify
from chat_app.runs.run import Run, find_run, list_runs
from chat_app.training.autotune import read_plan
from chat_app.training.job_queue import Jobs
from chat_app.ui.training import run_report


@pytest.fixture
def run(paths: Paths) -> Run:
    run = Run.create(paths.runs / "one", TrainConfig(epochs=3), {"files": ["a.tsv"]})
    seal_data(run.data)
    return run


def set_fact(name: str, value: object) -> Callable[[Run], None]:
    def damage(run: Run) -> None:
        for file in ("config.json", "config.copy.json"):
            values = json.loads((run.folder / file).read_text())
            values["about"][name] = value
            (run.folder / file).write_text(json.dumps(values))

    return damage


def without_facts(run: Run) -> None:
    values = json.loads((run.folder / "config.json").read_text())
    (run.folder / "config.json").write_text(json.dumps({**values, "about": None}))


def replace_by_folder(*names: str) -> Callable[[Run], None]:
    def damage(run: Run) -> None:
        for name in names:
            (run.folder / name).unlink(missing_ok=True)
            (run.folder / name).mkdir()

    return damage


def replace_by_file(name: str) -> Callable[[Run], None]:
    def damage(run: Run) -> None:
        if (run.folder / name).is_dir():
            for file in (run.folder / name).iterdir():
                file.unlink()
            (run.folder / name).rmdir()
        (run.folder / name).write_text("")

    return damage


def tear_settings(run: Run) -> None:
    for file in ("config.json", "config.copy.json"):
        (run.folder / file).write_text("{")


DAMAGES = {
    "about is null": (without_facts, "about"),
    "files is a number": (set_fact("files", 7), "files"),
    "a count is a text": (set_fact("train_conversations", "many"), "train_conversations"),
    "the plan is a list": (set_fact("plan", []), "plan"),
    "the settings are torn": (tear_settings, "damaged"),
    "the settings are folders": (replace_by_folder("config.json", "config.copy.json"), "damaged"),
    "the log is a folder": (replace_by_folder("log.txt"), "log.txt"),
    "the curves are a folder": (replace_by_folder("metrics.jsonl"), "metrics.jsonl"),
    "the state is a folder": (replace_by_folder("state.json"), "state.json"),
    "the data are a file": (replace_by_file("data"), "data"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_broken_run_is_shown_with_what_is_wrong_and_blocks_nothing(run: Run, paths: Paths, damage: str) -> None:
    queue = Jobs(paths)
    queue.close()
    queue.submit(run)
    good = Run.create(paths.runs / "two", TrainConfig(epochs=3), {"files": ["b.tsv"]})
    queue.submit(good)
    do, word = DAMAGES[damage]
    do(run)
    state = run.state()
    assert state.status == "failed"
    assert word in state.reason
    assert {one.id for one in list_runs(paths.runs)} == {"one", "two"}
    assert find_run(paths.runs, "one").id == "one"
    assert dict(map(reversed, run_report.label_runs([run, good])))["one"].endswith("Failed")
    assert run_report.render_status(run, state, run.metrics(), said=run_report.diagnose_run(run, state, run.metrics()))
    assert catalog.search([run, good], "b.tsv") == [good]
    assert list_differences([run, good])
    assert catalog.measure_contents(run).all_bytes > 0
    following = queue._next()
    assert following is not None
    assert following.id == "two"
    with pytest.raises(RunError, match=word):
        queue.submit(run)
    catalog.delete(run)
    assert [one.id for one in list_runs(paths.runs)] == ["two"]


def test_a_run_whose_log_cannot_be_opened_fails_and_the_queue_goes_on(run: Run, paths: Paths) -> None:
    queue = Jobs(paths)
    queue.close()
    queue.submit(run)
    (run.folder / "log.txt").symlink_to(run.folder)  # After the look at the folder, as it were.
    queue._train(run)
    assert run.state().status == "failed"
    assert "log.txt" in run.state().reason
    assert queue._next() is None


@pytest.mark.parametrize("torn", [b"", b'{"epochs": 3, "mod', None, b"\xff\xfe\x00"])
def test_torn_or_missing_settings_are_restored(run: Run, paths: Paths, torn: bytes | None) -> None:
    run.note(title="kept")
    if torn is None:
        (run.folder / "config.json").unlink()
    else:
        (run.folder / "config.json").write_bytes(torn)
    assert [one.id for one in list_runs(paths.runs)] == ["one"]
    assert run.config().epochs == 3
    assert run.about()["title"] == "kept"
    assert json.loads((run.folder / "config.json").read_text())["epochs"] == 3


def test_wrong_kinds_in_the_curves_are_left_out_and_counted(run: Run) -> None:
    lines: list[object] = [
        {"step": 1, "train_loss": 2.0, "time": 1.0},
        {"step": "two", "train_loss": 1.9},
        {"step": 3, "train_loss": "low", "valid_loss": 2.5, "tokens_per_second": None},
        {"step": 4, "valid_perplexity": [1], "valid_loss": True},
        [5],
    ]
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    samples = '{"step": "x", "prompt": "a", "reply": "b"}\n{"step": 3, "prompt": [1]}\n'
    (run.folder / "samples.jsonl").write_text(samples)
    assert [line["step"] for line in run.metrics()] == [1, 3, 4]
    assert run.metrics()[1] == {"step": 3, "valid_loss": 2.5}
    assert run.samples() == []
    shown = run_report.render_status(run, run.state(), run.metrics())
    assert "3 damaged lines left out" in shown
    assert len(run_report.make_loss_table(run.metrics())) == 2
    run.forget_after(3)
    assert [line["step"] for line in run.metrics()] == [1, 3]


PLAN = {
    "method": "full",
    "batch_size": 4,
    "accumulation": 1,
    "checkpointing": False,
    "optimizer": "adamw",
    "predicted_bytes": 1,
    "free_bytes": 2,
}


@pytest.mark.parametrize(("name", "value"), [("batch_size", "four"), ("batch_size", True), ("method", None)])
def test_wrong_kinds_in_the_plan_are_a_sentence(run: Run, name: str, value: object) -> None:
    assert read_plan(run, PLAN).batch_size == 4
    with pytest.raises(RunError, match=rf"'{name}' in config.json"):
        read_plan(run, {**PLAN, name: value})


@pytest.mark.parametrize("junk", [".DS_Store", "Thumbs.db", "desktop.ini", "._weights"])
def test_what_file_managers_leave_damages_nothing(run: Run, paths: Paths, junk: str) -> None:
    folder = run.checkpoints / "checkpoint-4"
    folder.mkdir()
    (folder / "weights").write_bytes(b"x")
    seal(folder)
    for place in (folder, run.checkpoints, run.data, run.folder, paths.runs):
        (place / junk).write_bytes(b"\x00")
    assert verify(folder)
    assert run.newest_checkpoint() == folder
    assert describe_changes(run.data) == []
    assert [one.id for one in list_runs(paths.runs)] == ["one"]
    seal(folder)
    (folder / junk).unlink()
    assert verify(folder)


def test_what_is_wrong_with_a_checkpoint_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-1"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_text("x")
    seal(folder)
    (folder / "b").write_text("y")
    assert explain_damage(folder) == "b has changed"
    (folder / "b").unlink()
    assert explain_damage(folder) == "b is missing"
    (folder / "manifest.json").write_text("{")
    assert "manifest" in explain_damage(folder)
