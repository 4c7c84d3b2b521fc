"""The verdict on recorded curves of each kind, on every beginning of them, and on odd ones made up here."""

from __future__ import annotations

import json
import math
import random
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_app.runs.diagnosis import Diagnosis, diagnose
from chat_app.runs.files import read_lines

CURVES = Path(__file__).with_name("curves")
RECORDED = sorted(CURVES.glob("*.jsonl"))
Lines = list[dict[str, Any]]


def kind_of(path: Path) -> str:
    return path.stem.rpartition("_")[0].replace("-", " ")


def judge(lines: Lines, status: Any = "running", has_validation: bool = True) -> Diagnosis:
    return diagnose(
        lines, total_steps=max(line["step"] for line in lines), has_validation=has_validation, status=status
    )


def along(path: Path) -> list[tuple[str, int]]:
    """(kind, step) of the verdict after each line."""
    lines = read_lines(path)
    return [(judge(lines[:end]).kind, lines[end - 1]["step"]) for end in range(1, len(lines) + 1)]


def test_there_are_three_curves_of_each_kind() -> None:
    kinds = [kind_of(path) for path in RECORDED]
    for kind in ("too early", "learning", "memorising", "stuck", "diverging", "done learning"):
        assert kinds.count(kind) >= 3
    told = (CURVES / "README.md").read_text()
    assert all(path.name in told for path in RECORDED)


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_a_recorded_curve_is_told_for_what_it_is(path: Path) -> None:
    lines = read_lines(path)
    assert judge(lines).kind == kind_of(path)
    assert judge(lines, "done").kind == kind_of(path)


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_no_beginning_of_a_curve_is_called_what_it_never_becomes(path: Path) -> None:
    possible = {
        "too early": {"too early"},
        "learning": {"too early", "learning"},
        "memorising": {"too early", "learning", "memorising", "done learning"},
        "stuck": {"too early", "stuck"},
        "diverging": {"too early", "learning", "diverging"},
        "done learning": {"too early", "learning", "done learning"},
    }
    assert {kind for kind, _ in along(path)} <= possible[kind_of(path)]


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_the_verdict_does_not_flip_to_and_fro(path: Path) -> None:
    assert len(list(groupby(along(path), key=lambda one: one[0]))) <= 5


@pytest.mark.parametrize(
    "path", [path for path in RECORDED if kind_of(path) == "memorising"], ids=lambda path: path.stem
)
def test_learning_by_heart_is_told_within_two_evaluations_of_the_turn(path: Path) -> None:
    """The turn: the first evaluation after the best that is worse than it by more than chance."""
    evaluations = [(line["step"], line["valid_loss"]) for line in read_lines(path) if "valid_loss" in line]
    best = min(range(len(evaluations)), key=lambda at: evaluations[at][1])
    turn = next(at for at in range(best + 1, len(evaluations)) if evaluations[at][1] > evaluations[best][1] * 1.01)
    told = next(step for kind, step in along(path) if kind == "memorising")
    assert told <= evaluations[turn + 1][0]


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_without_validation_only_learning_by_heart_goes_unseen(path: Path) -> None:
    lines = [line for line in read_lines(path) if "train_loss" in line]
    found = {judge(lines[:end], has_validation=False).kind for end in range(1, len(lines) + 1)}
    assert "memorising" not in found
    if kind_of(path) in ("diverging", "stuck", "too early"):
        assert judge(lines, has_validation=False).kind == kind_of(path)
    else:
        assert not found & {"diverging", "stuck"}


def curve(train: list[float], valid: dict[int, float] | None = None, rate: float = 1e-3) -> Lines:
    """Lines of a run with these losses, an evaluation before the training point of its step plus one."""
    lines: Lines = []
    for step in range(len(train) + 1):
        if step:
            lines.append(
                {"step": step, "epoch": 0.0, "time": 0.0, "train_loss": train[step - 1], "learning_rate": rate}
            )
        if valid and step in valid:
            lines.append({"step": step, "epoch": 0.0, "time": 0.0, "valid_loss": valid[step]})
    return lines


def falling(count: int, low: float = 2.0, high: float = 5.0) -> list[float]:
    return [low + (high - low) * math.exp(-step / 15) for step in range(count)]


def test_the_button_fits_the_state() -> None:
    learning = curve(falling(30), {0: 5.0, 10: 3.5, 20: 2.8, 30: 2.4})
    assert [judge(learning, one).action for one in ("running", "done", "stopped")] == ["", "more-epochs", ""]
    by_heart = curve(falling(60, 0.1), {0: 5.0, 10: 3.0, 20: 2.8, 30: 2.9, 40: 3.1, 60: 3.3})
    assert [judge(by_heart, one).action for one in ("running", "done")] == ["keep-best-and-stop", ""]
    assert "step 20" in judge(by_heart).sentence
    never_better = curve(falling(60, 0.1), {0: 3.0, 20: 3.2, 40: 3.4, 60: 3.5})
    assert judge(never_better).action == "lower-rate"
    rising = curve([5.0 + step / 5 for step in range(30)], {0: 5.0, 10: 7.0})
    assert [judge(rising, one).action for one in ("running", "failed")] == ["lower-rate", "lower-rate"]
    flat = curve(falling(200), {step: 2.0 + 3 * math.exp(-step / 15) for step in range(0, 201, 20)})
    assert [(judge(flat, one).kind, judge(flat, one).action) for one in ("running", "done")] == [
        ("done learning", "keep-best-and-stop"),
        ("done learning", ""),
    ]
    assert [judge(curve([5.0] * 4), one).action for one in ("running", "done")] == ["", "more-epochs"]


@pytest.mark.parametrize("bad", [math.nan, math.inf, None, "nan"])
def test_a_loss_that_is_no_number_is_diverging(bad: Any) -> None:
    lines = curve(falling(20), {0: 5.0, 20: 3.0})
    assert judge([*lines, {"step": 21, "train_loss": bad, "learning_rate": 1e-3}]).kind == "diverging"
    # The run's own record leaves out what is no number.
    assert judge([*lines, {"step": 21, "learning_rate": 1e-3}]).kind == "diverging"


def test_one_odd_batch_changes_nothing() -> None:
    train = falling(60)
    train[40] = 50.0
    assert {judge(curve(train)[:end], has_validation=False).kind for end in range(30, 60)} == {"learning"}


def test_nothing_is_called_stuck_while_the_rate_still_rises() -> None:
    chance = random.Random(0)
    lines = curve([5.0 + chance.uniform(-0.3, 0.3) for _ in range(60)], {0: 5.0, 20: 5.0, 40: 5.0, 60: 5.0})
    for line in lines:
        if "learning_rate" in line:
            line["learning_rate"] = line["step"] * 1e-6
    assert judge(lines).kind == "too early"


@pytest.mark.parametrize("noise", [0.05, 0.3, 0.8])
@pytest.mark.parametrize("seed", range(10))
def test_noise_alone_is_never_learning_nor_diverging(noise: float, seed: int) -> None:
    chance = random.Random(seed)
    lines = curve([4.0 + chance.gauss(0, noise) for _ in range(150)], dict.fromkeys(range(0, 151, 30), 4.0))
    assert {judge(lines[:end]).kind for end in range(1, len(lines) + 1, 3)} <= {"too early", "stuck"}
    assert judge(lines).kind == "stuck"


@pytest.mark.parametrize("noise", [0.05, 0.3, 0.8])
@pytest.mark.parametrize("seed", range(10))
def test_noise_never_makes_learning_look_like_diverging(noise: float, seed: int) -> None:
    chance = random.Random(seed)
    train = [max(loss + chance.gauss(0, noise), 0.0) for loss in falling(200, 2.0, 6.0)]
    lines = curve(train, {step: 2.2 + 4 * math.exp(-step / 60) for step in range(0, 201, 20)})
    kinds = [judge(lines[:end]).kind for end in range(1, len(lines) + 1)]
    assert set(kinds) <= {"too early", "learning"}
    assert "learning" in kinds[:60]


def test_nothing_is_too_odd_to_be_judged() -> None:
    assert diagnose([], total_steps=0, has_validation=False, status="queued").kind == "too early"
    odd: Lines = [{}, {"step": "x", "train_loss": True}, {"valid_loss": "y"}, {"step": 1, "valid_loss": math.nan}]
    assert diagnose(odd, total_steps=-1, has_validation=True, status="failed").kind in ("too early", "diverging")


NUMBER = st.one_of(st.none(), st.floats(), st.integers(-5, 5))
LINE = st.fixed_dictionaries(
    {"step": st.integers(0, 100)}, optional={"train_loss": NUMBER, "valid_loss": NUMBER, "learning_rate": NUMBER}
)


@given(st.lists(LINE, max_size=60), st.booleans(), st.sampled_from(["queued", "running", "done", "failed"]))
def test_any_lines_give_a_verdict(lines: Lines, has_validation: bool, status: Any) -> None:
    found = diagnose(lines, total_steps=100, has_validation=has_validation, status=status)
    assert found.sentence.endswith(".")
    json.dumps(found.kind)


def test_a_very_long_run_is_judged_like_a_short_one() -> None:
    long = curve(falling(20_000))
    assert judge(long, has_validation=False).kind in ("learning", "done learning")


def rarely(train: list[float], valid: list[float], rates: list[float] | None = None) -> Lines:
    """Lines of a long plan: an evaluation every hundred steps, a training point every three hundred."""
    lines: Lines = []
    for at, loss in enumerate(valid):
        if at % 3 == 2 and at // 3 < len(train):
            rate = rates[at // 3] if rates else 1e-3
            lines.append({"step": 100 * at, "train_loss": train[at // 3], "learning_rate": rate})
        lines.append({"step": 100 * at, "valid_loss": loss})
    return lines


def test_evaluations_tell_where_training_points_are_rare() -> None:
    better = [5.0, 4.0, 3.4, 3.0, 2.7, 2.5, 2.35]
    assert judge(rarely([4.2, 3.2], better)).kind == "learning"
    assert judge(rarely([4.2, 3.2], better[:4])).kind == "too early"
    assert judge(rarely([], better)).kind == "learning"
    flat = [5.0, 3.0, 2.52, 2.51, 2.505, 2.503, 2.502]
    assert judge(rarely([4.2, 3.2], flat)).kind == "done learning"
    by_heart = [5.0, 3.0, 2.5, 2.6, 2.8, 3.1]
    assert [judge(rarely(train, by_heart)).kind for train in ([4.2, 1.5], [])] == ["memorising", "memorising"]
    rising = [5.0, 5.2, 5.6, 6.1, 6.7, 7.4]
    assert judge(rarely([5.2, 6.5], rising)).kind != "learning"
    same = [5.0, 5.01, 4.99, 5.0, 5.01, 5.0, 4.99, 5.0]
    assert judge(rarely([5.0, 5.0], same)).kind == "stuck"
    assert judge(rarely([5.0, 5.0], same[:7])).kind == "too early"
    assert judge(rarely([5.0, 5.0], same, rates=[1e-5, 2e-5])).kind == "too early"


def learning_lines(answers: tuple[int, int] | None) -> Lines:
    """A loss that falls, and on what was kept aside rises again; with answers at the end."""
    lines: Lines = [
        {"step": step, "train_loss": 4 * 0.9**step, "learning_rate": 1e-3 * (1 - step / 60)} for step in range(1, 60)
    ]
    lines += [{"step": step, "valid_loss": loss} for step, loss in ((0, 4.0), (20, 1.0), (40, 1.5), (59, 2.0))]
    lines.sort(key=lambda line: line["step"])
    if answers is not None:
        lines.append({"step": 59, "answers_right": float(answers[0]), "answers_asked": float(answers[1])})
    return lines


@pytest.mark.parametrize(
    ("answers", "kind", "words"),
    [
        ((11, 12), "done learning", "answers 11 of 12 questions right"),
        ((7, 12), "learning", "add more wordings"),
        ((2, 12), "memorising", "by heart. It answers 2 of 12"),
        (None, "done learning", "It has learned all"),
    ],
)
def test_answers_count_more_than_the_curves(answers: tuple[int, int] | None, kind: str, words: str) -> None:
    said = diagnose(learning_lines(answers), total_steps=59, has_validation=True, status="done", keeps_last=True)
    assert said.kind == kind
    assert words in f"{said.sentence} {said.advice}"
    running = diagnose(learning_lines(answers), total_steps=59, has_validation=True, status="running", keeps_last=True)
    assert ("questions right" in running.sentence) == (answers is not None)


def test_nothing_is_said_to_be_well_that_was_not_tested() -> None:
    lines = [line for line in learning_lines(None) if "valid_loss" not in line]
    said = diagnose(lines, total_steps=59, has_validation=False, status="done", keeps_last=True)
    assert "nothing tells how it answers other questions" in said.sentence
    heart = judge(learning_lines(None), "done")
    assert heart.kind == "memorising"
    assert "well" not in heart.advice


def test_a_training_that_learns_nothing_is_not_praised_for_lucky_answers() -> None:
    flat = [{"step": step, "train_loss": 4.0, "learning_rate": 1e-4} for step in range(60)]
    flat.append({"step": 59, "answers_right": 12.0, "answers_asked": 12.0})
    assert diagnose(flat, total_steps=59, has_validation=False, status="done").kind == "stuck"
