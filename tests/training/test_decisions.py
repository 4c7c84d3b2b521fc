"""What changed since a run began is told, and the run goes on only once a person has allowed it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chat_app.config.paths import Paths
from chat_app.errors import DecisionNeededError, RunError
from chat_app.runs.data_manifest import describe_changes
from chat_app.runs.run import Run
from chat_app.training.decisions import allow
from chat_app.training.pipeline import train_run
from tests.training.test_trainer import StopAfter, last_checkpoint_weights, same, weights

pytestmark = pytest.mark.slow_file


def lose_a_line(data: Path) -> None:
    lines = (data / "train.jsonl").read_bytes().splitlines(keepends=True)
    (data / "train.jsonl").write_bytes(b"".join(lines[1:]))


def change_a_word(data: Path) -> None:
    text = (data / "train.jsonl").read_text()
    (data / "train.jsonl").write_text(text.replace("street", "avenue", 1))


def empty_the_validation(data: Path) -> None:
    (data / "valid.jsonl").write_text("")


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a line lost": (lose_a_line, "train.jsonl has 15 lines and had 16"),
    "a word changed": (change_a_word, "train.jsonl has other lines"),
    "validation emptied": (empty_the_validation, "valid.jsonl has 0 lines and had 4"),
    "validation removed": (lambda data: (data / "valid.jsonl").unlink(), "valid.jsonl is missing"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_data_are_told_and_learned_only_once_that_is_allowed(
    prepare: Callable[..., Run], paths: Paths, change: str
) -> None:
    run = prepare("changed")
    train_run(run, paths, callbacks=[StopAfter(run, 3)])
    do, words = CHANGES[change]
    do(run.data)
    with pytest.raises(DecisionNeededError, match=words):
        train_run(run, paths)
    state = run.state()
    assert (state.status, state.decision, state.step) == ("failed", "changed-data", 3)
    assert words in state.reason
    allow(run, "changed-data")
    assert describe_changes(run.data) == []
    train_run(run, paths)
    assert run.state().status == "done"
    assert not run.state().decision


def test_other_rows_of_the_same_data_are_told(prepare: Callable[..., Run], paths: Paths) -> None:
    run = prepare("rows")
    train_run(run, paths, callbacks=[StopAfter(run, 3)])
    run.change(learn="all")
    with pytest.raises(DecisionNeededError, match="rows that this run learns are others"):
        train_run(run, paths)
    run.change(learn="replies")
    train_run(run, paths)
    assert run.state().status == "done"


def test_another_base_of_an_adapter_is_told(
    prepare: Callable[..., Run], paths: Paths, make_folder: Callable[..., Path]
) -> None:
    run = prepare("adapter", method="lora")
    train_run(run, paths, callbacks=[StopAfter(run, 3)])
    weights_file = Path(run.config().model) / "model.safetensors"
    whole = weights_file.read_bytes()
    weights_file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DecisionNeededError, match="weights of the model"):
        train_run(run, paths)
    weights_file.write_bytes(whole)
    train_run(run, paths)
    assert run.state().status == "done"


def test_an_older_checkpoint_is_told_with_the_reason_and_the_steps(prepare: Callable[..., Run], paths: Paths) -> None:
    run = prepare("fallback")
    train_run(run, paths, callbacks=[StopAfter(run, 6)])
    (run.checkpoints / "checkpoint-6" / "optimizer.pt").write_bytes(b"broken")
    lines: list[str] = []
    train_run(run, paths, log=lines.append)
    (told,) = [line for line in lines if "checkpoint" in line]
    assert "goes on from checkpoint 4, and does 2 steps again" in told
    assert "checkpoint 6: optimizer.pt has changed" in told
    assert run.about()["resumed_from"] == told
    assert run.state().status == "done"


def test_where_no_checkpoint_is_whole_nothing_is_deleted_until_that_is_allowed(
    prepare: Callable[..., Run], paths: Paths
) -> None:
    whole, run = prepare("whole"), prepare("lost")
    train_run(whole, paths)
    train_run(run, paths, callbacks=[StopAfter(run, 6)])
    for step in (4, 6):
        (run.checkpoints / f"checkpoint-{step}" / "manifest.json").unlink()
    before = sorted(run.checkpoints.rglob("*"))
    history = run.metrics()
    with pytest.raises(DecisionNeededError, match=r"No checkpoint of this run can be used.*Nothing was deleted"):
        train_run(run, paths)
    assert run.state().decision == "restart"
    assert sorted(run.checkpoints.rglob("*")) == before
    assert run.metrics() == history
    allow(run, "restart")
    train_run(run, paths)
    assert run.state().status == "done"
    assert same(last_checkpoint_weights(whole), last_checkpoint_weights(run))
    assert same(weights(whole), weights(run))


def test_half_of_a_first_checkpoint_needs_no_decision(
    prepare: Callable[..., Run], paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepare("half")

    def die(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("chat_app.training.callbacks.finish_checkpoint", die)
        with pytest.raises(KeyboardInterrupt):
            train_run(run, paths)
    assert run.state().status == "interrupted"
    assert list(run.checkpoints.glob("checkpoint-*"))
    train_run(run, paths)
    assert run.state().status == "done"


def test_nothing_is_allowed_while_a_process_trains(prepare: Callable[..., Run]) -> None:
    run = prepare("busy")
    with run.claim(), pytest.raises(RunError, match="Stop it first"):
        allow(run, "restart")


def test_what_was_used_is_in_the_card_and_in_the_comparison(prepare: Callable[..., Run], paths: Paths) -> None:
    from chat_app.models.model_card import export_card
    from chat_app.runs.compare import list_differences

    run, other = prepare("automatic", learning_rate=0.0, rate_factor=0.5), prepare("waiting", learning_rate=0.0)
    train_run(run, paths)
    card = export_card(run)
    for row in ("| learning_rate | 0.0005 |", "| dropout | 0.1 |", "| window | 128 |", "| method | full |"):
        assert row in card
    assert "| max_steps | after the epochs |" in card
    assert "learning rate, batch size, seed | 0.0005, 4, 0" in (run.model / "README.md").read_text()
    rows = {row.name: row.values for row in list_differences([run, other])}
    assert rows["Learning rate"] == ("0.0005", "automatic")
    assert rows["Dropout"] == ("0.1", "the model's own")
    assert rows["Window"] == ("128", "the model's own")
    assert rows["Method"] == ("full", "automatic")


@pytest.mark.parametrize(("changes", "reason"), [({"valid_share": 0.0}, "share for validation is 0"), ({}, "")])
def test_why_there_is_nothing_to_test_on_is_said(
    prepare: Callable[..., Run], paths: Paths, changes: dict[str, Any], reason: str
) -> None:
    lines: list[str] = []
    train_run(prepare("tests", **changes, max_steps=1), paths, log=lines.append)
    (said,) = [line for line in lines if "rows to learn" in line]
    assert ("none to test on, since the " + reason if reason else "4 to test on") in said
