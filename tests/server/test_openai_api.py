"""The HTTP API with a real, tiny model: its answers, its refusals, and the shape of its errors."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from chat_app.config.loading import LoadConfig
from chat_app.config.paths import Paths
from chat_app.config.sampling import SamplingConfig
from chat_app.config.server import ServerRules
from chat_app.conversation import Conversation, Message
from chat_app.inference.backend import TextDelta, reply
from chat_app.inference.loaded_model import LoadedModel
from chat_app.server.auth import Accounts, Throttle
from chat_app.server.openai_api import GENERATE_SAMPLING, Api
from chat_app.services import Services
from tests.server.in_process import OneModel

HELLO = [{"role": "user", "content": "Hello"}]


def _services(tmp_path: Path, model: Path | None, **rules: Any) -> Services:
    services = Services(Paths(tmp_path / "home"), ServerRules(training=False, **rules), str(model))
    if model is not None:
        OneModel(services).use(str(model), LoadConfig(precision="float32"))
    return services


def _app(services: Services, accounts: Accounts | None = None, is_loading: bool = False) -> tuple[FastAPI, Api]:
    app = FastAPI()
    api = Api(services, accounts or Accounts({}, None, Throttle()), lambda: is_loading)
    api.add_to(app)
    return app, api


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory, saved_folder: Path) -> Iterator[Services]:
    services = _services(tmp_path_factory.mktemp("served"), saved_folder)
    yield services
    services.close()


@pytest.fixture(scope="module")
def client(services: Services) -> TestClient:
    return TestClient(_app(services)[0], raise_server_exceptions=False)


def _chat(client: TestClient, **more: Any) -> Any:
    return client.post("/v1/chat/completions", json={"messages": HELLO, "max_tokens": 8, "seed": 1, **more})


def _events(text: str) -> list[dict[str, Any]]:
    lines = [line for line in text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    assert all(line.startswith("data: ") for line in lines)
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_a_reply_is_the_one_that_the_page_would_give(client: TestClient, services: Services) -> None:
    answer = _chat(client).json()
    loaded = services.models.current
    assert loaded is not None
    end = reply(loaded, Conversation.from_turns(["Hello"]), SamplingConfig(max_new_tokens=8, seed=1))
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "model"
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": end.text, "refusal": None},
            "logprobs": None,
            "finish_reason": {"length": "length", "end": "stop"}[end.reason],
        }
    ]
    prompt, written = end.prompt_tokens, end.reply_tokens
    assert answer["usage"] == {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
    }


def test_a_stream_has_the_same_text_in_pieces(client: TestClient) -> None:
    whole = _chat(client, max_tokens=30).json()
    answer = _chat(client, max_tokens=30, stream=True, stream_options={"include_usage": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    *chunks, last = _events(answer.text)
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert deltas[-1] == {}
    assert "".join(delta.get("content", "") for delta in deltas) == whole["choices"][0]["message"]["content"]
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + [whole["choices"][0]["finish_reason"]]
    assert last["choices"] == []
    assert last["usage"] == whole["usage"]


def test_without_being_asked_a_stream_has_no_counts(client: TestClient) -> None:
    assert all("usage" not in chunk and chunk["choices"] for chunk in _events(_chat(client, stream=True).text))


def test_a_stop_text_ends_a_reply(client: TestClient) -> None:
    text = _chat(client, max_tokens=20).json()["choices"][0]["message"]["content"]
    stop = text[len(text) // 2]
    for value in (stop, [stop, "never written"]):
        choice = _chat(client, max_tokens=20, stop=value).json()["choices"][0]
        assert choice["finish_reason"] == "stop"
        assert choice["message"]["content"] == text[: text.index(stop)].rstrip()


def test_several_replies_are_drawn_differently_and_repeatably(client: TestClient) -> None:
    first, second = (_chat(client, n=3).json() for _ in range(2))
    texts = [choice["message"]["content"] for choice in first["choices"]]
    assert len(set(texts)) == 3
    assert texts == [choice["message"]["content"] for choice in second["choices"]]
    assert [choice["index"] for choice in first["choices"]] == [0, 1, 2]
    assert first["usage"] == second["usage"]
    assert 8 <= first["usage"]["completion_tokens"] <= 24


def test_streamed_replies_are_those_of_the_whole_answer(client: TestClient) -> None:
    whole = _chat(client, n=3).json()
    *chunks, last = _events(_chat(client, n=3, stream=True, stream_options={"include_usage": True}).text)
    for expected in whole["choices"]:
        own = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == expected["index"]]
        assert own[0]["delta"] == {"role": "assistant", "content": ""}
        assert "".join(one["delta"].get("content", "") for one in own) == expected["message"]["content"]
        assert [one["finish_reason"] for one in own] == [None] * (len(own) - 1) + [expected["finish_reason"]]
    assert last["usage"] == whole["usage"]


def test_several_replies_read_their_prompt_once(
    client: TestClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = services.models.current
    assert isinstance(loaded, LoadedModel)
    forward: Any = loaded.engine._runner
    read: list[int] = []
    step = forward.step

    def counted(chunks: Any) -> Any:
        read.append(sum(len(chunk.ids) for chunk in chunks))
        return step(chunks)

    monkeypatch.setattr(forward, "step", counted)
    messages = [{"role": "user", "content": "Where is the shop? The shop is in the old town, next to the station."}]
    for stream in (False, True):
        read.clear()
        answer = _chat(client, messages=messages, n=4, max_tokens=4, stream=stream)
        assert answer.status_code == 200
        prompt = _chat(client, messages=messages, max_tokens=1).json()["usage"]["prompt_tokens"]
        assert prompt > 20
        assert sum(read) < 2 * prompt + 16


def test_what_was_said_can_be_penalised(client: TestClient) -> None:
    """Greedy replies of a model that repeats itself: with the highest penalties no token comes twice."""
    plain = {"temperature": 0, "repetition_penalty": 1, "max_tokens": 24, "logprobs": True}
    for more, repeats in (({}, True), ({"frequency_penalty": 2, "presence_penalty": 2}, False)):
        rows = _chat(client, **plain, **more).json()["choices"][0]["logprobs"]["content"]
        tokens = [tuple(row["bytes"]) for row in rows]
        assert (len(set(tokens)) < len(tokens)) is repeats


def test_messages_are_brought_into_shape(client: TestClient, services: Services) -> None:
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "developer", "content": "Be short."},
        {"role": "user", "content": [{"type": "text", "text": "Hello,"}, {"type": "text", "text": "you."}]},
        {"role": "assistant", "content": "Hi.", "name": "ignored"},
        {"role": "user", "content": "How are you?"},
    ]
    answer = _chat(client, messages=messages, unknown={"field": 1}, temperature=None).json()
    loaded = services.models.current
    assert loaded is not None
    conversation = Conversation.from_messages(
        [
            Message("system", "Be kind.\nBe short."),
            Message("user", "Hello,\nyou."),
            Message("assistant", "Hi."),
            Message("user", "How are you?"),
        ]
    )
    expected = reply(loaded, conversation, SamplingConfig(max_new_tokens=8, seed=1))
    assert answer["choices"][0]["message"]["content"] == expected.text


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"messages": [*HELLO, {"role": "assistant", "content": "Hi"}]}, "messages"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
        ({"messages": HELLO * 1001}, "messages"),
        ({"messages": [{"role": "user", "content": "x" * 200_001}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": "x" * 150_000}] * 2}, "messages"),
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": "warm"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"top_k": 1.5}, "top_k"),
        ({"top_k": 100_000}, "top_k"),
        ({"min_p": 2}, "min_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": "many"}, "max_completion_tokens"),
        ({"stop": 1}, "stop"),
        ({"stop": ["a", 1]}, "stop"),
        ({"stop": ""}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"seed": 0.5}, "seed"),
        ({"n": 0}, "n"),
        ({"n": 9}, "n"),
        ({"presence_penalty": -2.1}, "presence_penalty"),
        ({"frequency_penalty": 3}, "frequency_penalty"),
        ({"logprobs": 1}, "logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"model": 7}, "model"),
    ],
)
def test_impossible_values_name_their_field(client: TestClient, more: dict[str, Any], field: str) -> None:
    answer = _chat(client, **more)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == field
    assert error["type"] == "invalid_request_error"
    assert field in error["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff",
        b"[" * 100_000,
        b'{"messages":[{"role":"user","content":"x"}],"temperature":NaN}',
        b'{"messages":[{"role":"user","content":"x"}],"top_p":1e999}',
        b'{"messages":[{"role":"user","content":"\\ud800"}]}',
    ],
)
def test_what_is_no_request_is_refused_in_the_same_shape(client: TestClient, body: bytes) -> None:
    for path in ("/v1/chat/completions", "/generate"):
        answer = client.post(path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_bounds_that_programs_use_are_taken(client: TestClient) -> None:
    for more in ({"top_k": -1}, {"seed": 2**63}, {"seed": -5}, {"max_tokens": 10**9}, {"temperature": 0}, {"top_p": 1}):
        assert _chat(client, **more).status_code == 200


def test_only_the_model_in_use_answers(client: TestClient, services: Services) -> None:
    for name in (None, "", "default", "model", services.first_model):
        assert _chat(client, model=name).status_code == 200
    answer = _chat(client, model="gpt-4")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    assert answer.json()["error"]["param"] == "model"


def test_models_are_listed(client: TestClient, services: Services) -> None:
    listed = client.get("/v1/models").json()
    assert listed["object"] == "list"
    row = {"id": "model", "object": "model", "created": 0, "owned_by": "chat_app", "max_model_len": 128}
    assert listed["data"][0] == row
    ids = [row["id"] for row in listed["data"]]
    assert len(ids) == len(set(ids))
    assert client.get("/v1/models/model").json() == row
    answer = client.get("/v1/models/some/other")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"


def test_a_shared_server_lists_only_the_model_in_use(tmp_path: Path, tiny_folder: Path) -> None:
    services = _services(tmp_path, tiny_folder, share=True)
    listed = TestClient(_app(services)[0]).get("/v1/models").json()
    services.close()
    assert [row["id"] for row in listed["data"]] == ["model"]


def test_generate_answers_in_gptchats_schema(client: TestClient, services: Services) -> None:
    answer = client.post("/generate", json={"context": "Hello", "response": "I am"}).json()
    assert set(answer) == {"response", "request", "model_info"}
    assert answer["response"].startswith("I am")
    assert answer["request"] == {"context": "Hello", "response": "I am"}
    assert answer["model_info"] == {"name": "model", "format": "roles", "parameters": 42112, "window": 128}
    assert client.post("/generate", json={"context": "Hello", "response": None}).status_code == 200
    for wrong in ({}, {"context": ""}, {"context": 1}, {"context": "x", "response": 1}):
        assert client.post("/generate", json=wrong).status_code == 400
    assert (GENERATE_SAMPLING.top_k, GENERATE_SAMPLING.top_p) == (50, 0.9)


def test_generate_takes_the_reply_of_median_length(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = iter([9, 1, 5, 3, 7])
    numbers, together = count(), threading.Barrier(4)  # The four that follow the first are written at the same time.

    def drawn(backend: Any, request: Any, *rest: Any) -> Iterator[Any]:
        end = reply(backend, request.conversation, SamplingConfig(max_new_tokens=2, seed=0))
        if next(numbers):
            together.wait(180)
        yield TextDelta("ignored")
        yield type(end)(**{**vars(end), "text": "x" * next(lengths)})

    monkeypatch.setattr("chat_app.server.openai_api.stream_reply", drawn)
    assert client.post("/generate", json={"context": "Hello"}).json()["response"] == "xxxxx"
    assert next(lengths, None) is None


def test_health_tells_whether_the_model_is_there(tmp_path: Path, client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "ok", "model": "model"}
    empty = _services(tmp_path, None)
    for is_loading, status in ((True, "loading"), (False, "ok")):
        waiting = TestClient(_app(empty, is_loading=is_loading)[0])
        assert waiting.get("/health").json() == {"status": status, "model": None}
        answer = _chat(waiting)
        assert answer.status_code == 503
        assert answer.json()["error"]["type"] == "server_error"
    empty.close()


def test_a_key_is_asked_for_where_there_is_one(services: Services) -> None:
    client = TestClient(_app(services, Accounts({"anna": "secret"}, "key", Throttle()))[0])
    assert client.get("/health").status_code == 200
    for headers in ({"authorization": "Bearer key"}, {"authorization": "Bearer anna:secret"}):
        assert client.get("/v1/models", headers=headers).status_code == 200
    assert client.get("/v1/models", auth=("anna", "secret")).status_code == 200
    for path in ("/v1/chat/completions", "/generate"):
        answer = client.post(path, json={"messages": HELLO, "context": "Hello"})
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Basic")
        assert answer.json()["error"]["type"] == "authentication_error"
    wrong = [client.get("/v1/models", auth=("anna", "guess")).status_code for _ in range(6)]
    assert wrong == [401] * 5 + [429]


def test_what_does_not_exist_is_said_in_the_same_shape(client: TestClient) -> None:
    for method, path in (("GET", "/v1/chat/completions"), ("POST", "/v1/embeddings"), ("DELETE", "/v1/models")):
        answer = client.request(method, path)
        assert answer.status_code == 404
        assert answer.json()["error"]["type"] == "not_found_error"


def test_the_api_is_described(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    assert set(described["paths"]) == {
        "/health",
        "/v1/models",
        "/v1/models/{name}",
        "/v1/chat/completions",
        "/generate",
    }
    fields = described["components"]["schemas"]["ChatRequest"]["properties"]
    assert fields["temperature"]["anyOf"][0]["maximum"] == 2
    assert client.get("/docs").status_code == 200


def test_a_surprise_is_a_500_without_its_details(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def surprised(*arguments: Any, **more: Any) -> Iterator[Any]:
        raise RuntimeError("private detail")
        yield

    monkeypatch.setattr("chat_app.server.openai_api.stream_reply", surprised)
    for more in ({}, {"stream": True}):
        answer = _chat(client, **more)
        assert answer.status_code == 500
        assert "private" not in answer.text
        assert answer.json()["error"]["type"] == "server_error"


def test_an_error_after_the_first_text_is_an_event(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any, **more: Any) -> Iterator[Any]:
        yield TextDelta("Hel")
        raise RuntimeError("private detail")

    monkeypatch.setattr("chat_app.server.openai_api.stream_reply", broken)
    answer = _chat(client, stream=True)
    assert answer.status_code == 200
    assert "private" not in answer.text
    *_, last = _events(answer.text)
    assert last["error"]["type"] == "server_error"
