"""Replies of the HTTP API that are quoted from the list that the model was taught."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from chat_app.config.loading import LoadConfig
from chat_app.config.paths import Paths
from chat_app.config.server import ServerRules
from chat_app.data.answer_list import AnswerList
from chat_app.inference.quoting import NOT_KNOWN
from chat_app.server.auth import Accounts, Throttle
from chat_app.server.openai_api import Api
from chat_app.services import Services
from tests.server.in_process import OneModel

ANSWERS = AnswerList([("When do you open?", "At nine."), ("Where are you?", "In Mill Lane."), ("Hello", "Good day.")])


class TaughtHere:
    """In place of the lists of all runs: the model in use has one, or it has none."""

    def __init__(self, answers: AnswerList | None = ANSWERS):
        self.answers = answers

    def find(self, model: str) -> AnswerList | None:
        return self.answers


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory, saved_folder: Path) -> Iterator[Services]:
    services = Services(Paths(tmp_path_factory.mktemp("served")), ServerRules(training=False), str(saved_folder))
    OneModel(services).use(str(saved_folder), LoadConfig(precision="float32"))
    yield services
    services.close()


@pytest.fixture
def client(services: Services, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    monkeypatch.setattr(services, "answers", TaughtHere())
    app = FastAPI()
    Api(services, Accounts({}, None, Throttle()), lambda: False).add_to(app)
    return TestClient(app, raise_server_exceptions=False)


def ask(client: TestClient, text: str, **more: Any) -> Any:
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 4, "seed": 1, **more}
    return client.post("/v1/chat/completions", json=body)


def test_a_quoted_reply_is_marked_with_the_taught_question(client: TestClient) -> None:
    choice = ask(client, "when do you open", answer_from_list="sure").json()["choices"][0]
    assert choice["message"]["content"] == "At nine."
    assert choice["quoted"] == {"question": "When do you open?"}
    assert choice["finish_reason"] == "stop"


def test_by_default_and_for_other_questions_the_model_writes(client: TestClient) -> None:
    assert "quoted" not in ask(client, "when do you open").json()["choices"][0]
    assert "quoted" not in ask(client, "Who won the match?", answer_from_list="sure").json()["choices"][0]


def test_only_the_list_says_what_it_does_not_know(client: TestClient) -> None:
    choice = ask(client, "Who won the match?", answer_from_list="only").json()["choices"][0]
    assert choice["message"]["content"] == NOT_KNOWN
    assert "quoted" not in choice


def test_a_stream_marks_it_in_its_last_piece(client: TestClient) -> None:
    text = ask(client, "where are you?", answer_from_list="only", stream=True).text
    pieces = [json.loads(line.removeprefix("data: ")) for line in text.split("\n\n") if line.startswith("data: {")]
    choices = [piece["choices"][0] for piece in pieces]
    assert "".join(one["delta"].get("content", "") for one in choices) == "In Mill Lane."
    assert choices[-1]["quoted"] == {"question": "Where are you?"}


def test_a_model_without_a_list_says_so(
    client: TestClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "answers", TaughtHere(None))
    answer = ask(client, "Hello", answer_from_list="only")
    assert answer.status_code == 400
    assert "no list of answers" in answer.json()["error"]["message"]
    assert answer.json()["error"]["param"] == "answer_from_list"


def test_a_server_that_was_started_so_quotes_unless_a_program_says_no(
    client: TestClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "rules", ServerRules(training=False, answers="only"))
    assert ask(client, "Hello").json()["choices"][0]["quoted"] == {"question": "Hello"}
    assert "quoted" not in ask(client, "Hello", answer_from_list="off").json()["choices"][0]


def test_strangers_cannot_have_the_list_of_a_shared_server_quoted(
    client: TestClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "rules", ServerRules(training=False, share=True))
    answer = ask(client, "Hello", answer_from_list="sure")
    assert answer.status_code == 400
    assert "--answers" in answer.json()["error"]["message"]
