"""Replies quoted from the list that a model was taught: when, and what stands in the reply's end."""

from __future__ import annotations

import threading
from collections.abc import Generator
from pathlib import Path

import pytest

from chat_app.config.sampling import SamplingConfig
from chat_app.config.server import QuoteMode
from chat_app.conversation import Conversation
from chat_app.data.answer_list import AnswerList
from chat_app.inference.backend import ModelDescription, ReplyEnd, ReplyEvent, ReplyRequest, TextDelta, reply
from chat_app.inference.quoting import NOT_KNOWN, AnswerLists, QuotingBackend
from chat_app.runs.files import write_json

ANSWERS = AnswerList([("When do you open?", "At nine."), ("Where are you?", "In Mill Lane."), ("Hello", "Good day.")])
ROW = '{"messages": [{"role": "user", "content": "%s"}, {"role": "assistant", "content": "%s"}]}\n'


class Writer:
    """A model that always writes the same."""

    name = "run-1"
    description = ModelDescription("run-1", "run", is_ready=True, window=64)

    def __init__(self) -> None:
        self.asked: list[ReplyRequest] = []

    def connect(self) -> None:
        pass

    def close(self) -> None:
        pass

    def stream(
        self, request: ReplyRequest, cancel_event: threading.Event | None = None
    ) -> Generator[ReplyEvent, None, None]:
        self.asked.append(request)
        yield TextDelta("written")
        yield ReplyEnd("written", "end", 1, 3, 64, 0.1, 0.1)


def ask(mode: QuoteMode, text: str, prefix: str = "") -> tuple[ReplyEnd, Writer]:
    model = Writer()
    end = reply(QuotingBackend(model, ANSWERS, mode), Conversation.from_turns([text]), SamplingConfig(), prefix)
    return end, model


@pytest.mark.parametrize("mode", ["sure", "only"])
def test_a_taught_question_is_answered_in_the_words_of_the_list(mode: QuoteMode) -> None:
    end, model = ask(mode, "when do you open")
    assert (end.text, end.quoted, end.reply_tokens) == ("At nine.", "When do you open?", 0)
    assert not model.asked


@pytest.mark.parametrize(
    ("mode", "text", "expected"), [("sure", "Who won the match?", "written"), ("only", "Who won the match?", NOT_KNOWN)]
)
def test_another_question_goes_to_the_model_or_is_not_known(mode: QuoteMode, text: str, expected: str) -> None:
    end, _ = ask(mode, text)
    assert (end.text, end.quoted) == (expected, None)


def test_off_and_a_forced_beginning_are_the_models() -> None:
    assert ask("off", "when do you open")[0].text == "written"
    end, model = ask("sure", "when do you open", prefix="Well")
    assert end.quoted is None
    assert model.asked[0].prefix == "Well"


def make_run(runs: Path, name: str, train: str) -> Path:
    folder = runs / name
    (folder / "data").mkdir(parents=True)
    write_json(folder / "state.json", {})
    (folder / "data" / "train.jsonl").write_text(train, encoding="utf-8")
    return folder


def test_the_list_of_a_run_has_what_was_kept_aside_and_follows_changes(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "shop", ROW % ("When?", "At nine."))
    (folder / "data" / "valid.jsonl").write_text(ROW % ("Where?", "In Mill Lane."), encoding="utf-8")
    lists = AnswerLists(tmp_path)
    found = lists.find("shop@20")
    assert found is not None
    assert found.replies == ["At nine.", "In Mill Lane."]
    assert lists.find("shop") is found
    assert lists.find(str(folder)) is found
    (folder / "data" / "train.jsonl").write_text(ROW % ("When?", "At half past nine."), encoding="utf-8")
    changed = lists.find("shop")
    assert changed is not None
    assert "At half past nine." in changed.replies


@pytest.mark.parametrize("name", ["starter", "/etc", "gone", "empty"])
def test_a_model_that_was_not_taught_conversations_here_has_none(tmp_path: Path, name: str) -> None:
    make_run(tmp_path, "empty", "")
    lists = AnswerLists(tmp_path)
    assert not lists.has(name)
    assert lists.find(name) is None


def test_a_run_whose_conversations_cannot_be_read_has_none(tmp_path: Path) -> None:
    make_run(tmp_path, "torn", '{"messages": [{"role"')
    assert AnswerLists(tmp_path).find("torn") is None
