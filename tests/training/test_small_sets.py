"""Small sets of questions and answers: all is learned to the end, and what can be told about answers is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from chat_app.config.paths import Paths
from chat_app.config.training import TrainConfig
from chat_app.conversation import Conversation
from chat_app.data.readers import Reading, iterate_conversations
from chat_app.data.reply_match import ReplyIndex
from chat_app.runs.data_manifest import describe_changes
from chat_app.runs.files import read_lines
from chat_app.runs.run import Run
from chat_app.training.answer_check import FEWEST, AnswerCheck, read_answer_check
from chat_app.training.pipeline import train_run
from chat_app.training.prepare import write_run
from chat_app.training.small_sets import (
    MOST,
    TINY,
    WORDINGS,
    describe_small_set,
    read_small_set,
    resolve_small_set,
)
from tests.conftest import CONFIG

SMALL = replace(CONFIG, wordings="automatic", valid_share=TrainConfig().valid_share)
Prepare = Callable[..., Run]


def questions(replies: int, wordings: int) -> Reading:
    """So many replies, each to so many different questions."""
    frames = ["Where is the {}?", "the {} please, which way", "I look for some {} today", "any {} around here", "{}?"]
    conversations = [
        Conversation.from_turns([frames[wording].format(f"thing{number}"), f"The thing{number} is in street {number}."])
        for number in range(replies)
        for wording in range(wordings)
    ]
    return Reading(conversations, [], list(range(1, len(conversations) + 1)), "tsv", "utf-8")


@pytest.fixture
def make_run(paths: Paths, make_folder: Callable[..., Path]) -> Prepare:
    model = make_folder("start")

    def make(reading: Reading, **changes: object) -> Run:
        return write_run(replace(SMALL, model=str(model), **changes), reading, paths, folder=paths.runs / "run")

    return make


def lines(run: Run, part: str) -> list[Conversation]:
    file = run.data / f"{part}.jsonl"
    return list(iterate_conversations(file)) if file.exists() and file.stat().st_size else []


def test_a_few_wordings_are_kept_aside_whose_reply_is_learned(make_run: Prepare) -> None:
    run = make_run(questions(20, 4))
    learned, aside = lines(run, "train"), lines(run, "valid")
    assert (len(learned), len(aside)) == (68, 12)
    replies = [one.turns[-1].text for one in aside]
    assert len(set(replies)) == 12
    assert set(replies) <= {one.turns[-1].text for one in learned}
    assert not {tuple(one.texts) for one in aside} & {tuple(one.texts) for one in learned}
    assert len(lines(run, "variants")) == (WORDINGS - 1) * len(learned)
    assert run.about()["valid_conversations"] == 12
    assert run.about()["train_conversations"] == 68
    assert describe_changes(run.data) == []
    said = describe_small_set(run.about(), 10)
    assert "about 15 times, in 3 wordings" in said
    assert "12 wordings are kept aside" in said


def test_of_a_tiny_set_nothing_is_kept_aside_and_it_is_read_more_often(make_run: Prepare) -> None:
    run = make_run(questions(6, 2))
    assert lines(run, "valid") == []
    assert len(lines(run, "train")) == 12 < TINY
    small = read_small_set(run.about())
    assert small is not None
    assert (small.keep_last, small.read) == (True, 6.0)
    resolved = resolve_small_set(TrainConfig(), small, 36)
    assert resolved.epochs == 20  # Of 36 rows: each of the 12 conversations 60 times.
    assert resolved.patience == 0
    assert "None is kept aside" in describe_small_set(run.about(), 10)


@pytest.mark.parametrize(
    ("reading", "changes"),
    [
        (questions(20, 4), {"wordings": "off"}),
        (questions(20, 4), {"learn": "all"}),
        (questions(MOST // 4 + 1, 4), {}),
        (Reading([Conversation.from_turns(["a", "b"] * 6)] * 9, [], list(range(1, 10)), "tsv", "utf-8"), {}),
    ],
    ids=["off", "all", "many", "long chats"],
)
def test_other_sets_are_learned_as_before(make_run: Prepare, reading: Reading, changes: dict[str, object]) -> None:
    run = make_run(reading, **changes)
    assert read_small_set(run.about()) is None
    assert lines(run, "variants") == []
    assert resolve_small_set(TrainConfig(), None, 80) == TrainConfig()


def test_a_share_that_was_chosen_is_kept_aside(make_run: Prepare) -> None:
    run = make_run(questions(20, 4), valid_share=0.25)
    assert len(lines(run, "valid")) == 20
    small = read_small_set(run.about())
    assert small is not None
    assert not small.keep_last


def test_nothing_is_kept_aside_where_that_was_asked_for(make_run: Prepare) -> None:
    run = make_run(questions(20, 4), valid_share=0.0)
    assert lines(run, "valid") == []
    small = read_small_set(run.about())
    assert small is not None
    assert small.keep_last


def test_answers_are_counted_by_the_nearest_reply(make_run: Prepare) -> None:
    check = read_answer_check(make_run(questions(20, 4)))
    assert check is not None
    right = {question.turns[-1].text: reply for question, reply in check.questions}
    assert check.count_right(lambda question: right[question.turns[-1].text].lower()) == (12, 12)
    assert check.count_right(lambda question: "The thing999 is far away.") == (0, 12)
    assert AnswerCheck([], ReplyIndex([])).count_right(lambda question: "") == (0, 0)


def test_without_enough_questions_there_is_no_check(make_run: Prepare) -> None:
    run = make_run(questions(20, 1), valid_share=0.2)
    assert len(lines(run, "valid")) >= FEWEST - 1
    assert read_answer_check(run) is None  # No reply that is kept aside is taught.


def test_the_last_model_is_kept_with_its_answers(make_run: Prepare, paths: Paths) -> None:
    run = make_run(questions(20, 4), epochs=2)
    train_run(run, paths)
    assert run.state().status == "done"
    metrics = run.metrics()
    answers = [line for line in metrics if "answers_right" in line]
    assert {line["answers_asked"] for line in answers} == {12}
    assert answers[0]["step"] == 0
    assert answers[-1]["step"] == run.state().step
    assert answers[-1]["epoch"] == pytest.approx(2, abs=0.2)
    card = (run.folder / "model" / "README.md").read_text()
    assert f"| step, epoch | {run.state().step}, " in card
    assert read_lines(run.folder / "samples.jsonl")[-1]["step"] == run.state().step
