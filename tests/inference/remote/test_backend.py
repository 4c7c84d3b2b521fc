"""A model that another server runs: what is sent, what comes back, and servers that misbehave."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from chat_app.config.loading import LoadConfig
from chat_app.config.paths import Paths
from chat_app.config.sampling import SamplingConfig
from chat_app.config.server import ServerRules
from chat_app.conversation import Conversation
from chat_app.errors import BusyError, ChatAppError, DataError, ModelNotFoundError, SettingError
from chat_app.inference.backend import ReplyEnd, ReplyRequest, TextDelta, stream_reply
from chat_app.inference.remote.backend import RemoteModel, Timeouts, check_address
from chat_app.inference.remote.protocol import RemoteEngineError
from chat_app.server.auth import Accounts, Throttle
from chat_app.server.openai_api import Api
from chat_app.services import Services
from chat_app.ui.models import model_choices
from tests.server.api_server import ApiServer, wait_for

HELLO = Conversation.from_turns(["Hello"])
SHORT = SamplingConfig(max_new_tokens=8, seed=1)
PATIENCE = 180.0  # Seconds; only a fault lets a test wait so long.


def event(**choice: Any) -> bytes:
    """A server-sent event of a reply."""
    return f"data: {json.dumps({'choices': [choice]})}\n\n".encode()


WHOLE = event(delta={"content": "Hi"}) + event(delta={}, finish_reason="stop") + b"data: [DONE]\n\n"


class Fake(ThreadingHTTPServer):
    """An engine whose answer to a request for a reply is `answer(handler, body)`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer: Callable[[Any, dict[str, Any]], None] = lambda handler, body: handler.say(200, WHOLE)
        self.models: tuple[int, bytes] = (200, b'{"data": [{"id": "big", "max_model_len": 4096}, {"id": "small"}]}')
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.free = threading.Event()  # What hangs hangs until this is set.
        self.left = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self.free.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Fake

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.keys.append(self.headers["authorization"])
        self.say(*self.server.models)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append(body)
        self.server.answer(self, body)

    def say(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


@pytest.fixture
def fake() -> Iterator[Fake]:
    fake = Fake()
    yield fake
    fake.close()


@pytest.fixture
def remote(fake: Fake) -> Iterator[RemoteModel]:
    remote = RemoteModel(fake.url, key="secret", timeouts=Timeouts(connect=5, delta=0.5, reply=20))
    yield remote
    remote.close()


def _say(remote: RemoteModel, conversation: Conversation = HELLO, **more: Any) -> ReplyEnd:
    *_, end = stream_reply(remote, ReplyRequest(conversation, SamplingConfig(**{**vars(SHORT), **more})))
    assert isinstance(end, ReplyEnd)
    return end


def test_a_request_is_what_openais_schema_says(fake: Fake, remote: RemoteModel) -> None:
    conversation = Conversation.from_turns(["Hello"], system="Be kind.")
    end = _say(remote, conversation, stop=("x",), frequency_penalty=0.5, top_k=0, repetition_penalty=1)
    assert (end.text, end.reason, end.window, end.reply_tokens) == ("Hi", "end", 4096, 1)
    assert fake.asked == [
        {
            "model": "big",
            "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": 8,
            "temperature": 0.7,
            "top_p": 0.9,
            "stop": ["x"],
            "seed": 1,
            "frequency_penalty": 0.5,
        }
    ]
    assert fake.keys == ["Bearer secret"]


def test_what_only_some_servers_know_is_left_out_once_it_was_refused(fake: Fake, remote: RemoteModel) -> None:
    def strict(handler: Any, body: dict[str, Any]) -> None:
        known = "top_k" not in body
        handler.say(*((200, WHOLE) if known else (400, b'{"error": {"message": "Unrecognized argument: top_k"}}')))

    fake.answer = strict
    assert _say(remote).text == "Hi"
    assert _say(remote).text == "Hi"
    assert ["top_k" in body for body in fake.asked] == [True, False, False]


def test_the_older_half_is_left_out_where_a_conversation_is_too_long(fake: Fake, remote: RemoteModel) -> None:
    def small(handler: Any, body: dict[str, Any]) -> None:
        fits = len(body["messages"]) <= 3
        handler.say(*((200, WHOLE) if fits else (400, b'{"error": {"message": "maximum context length is 64"}}')))

    fake.answer = small
    end = _say(remote, Conversation.from_turns([str(number) for number in range(13)]))
    assert [len(body["messages"]) for body in fake.asked] == [13, 5, 1]
    assert end.dropped_turns == 12
    fake.answer = lambda handler, body: handler.say(400, b'{"error": {"message": "context length"}}')
    with pytest.raises(DataError, match="context length"):
        _say(remote)


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (500, b"<html>", RemoteEngineError, "failed"),
        (502, b'{"error": "no worker"}', RemoteEngineError, "no worker"),
        (401, b"{}", RemoteEngineError, "refuses the key. Put the right one into CHAT_APP_ENGINE_KEY"),
        (403, b"", RemoteEngineError, "refuses the key"),
        (404, b'{"error": {"message": "no such model"}}', RemoteEngineError, "no such model. Check"),
        (429, b"{}", BusyError, "busy"),
        (503, b'{"message": "loading"}', BusyError, "loading"),
        (422, b'{"detail": [{"loc": 1}]}', DataError, "does not take this"),
        (302, b"", RemoteEngineError, "has moved"),
        (200, b"<html>not a stream</html>", RemoteEngineError, "broke in the middle"),
        (200, b"data: {broken\n\n", RemoteEngineError, "no reply"),
        (200, b"data: [1]\n\n", RemoteEngineError, "no reply"),
        (200, b'data: {"choices": [{"delta": {"content": 5}}]}\n\n', RemoteEngineError, "no reply"),
        (200, b'data: {"choices": ["x"]}\n\n', RemoteEngineError, "no reply"),
        (200, b"data: " + b"x" * (2**20 + 10), RemoteEngineError, "no reply"),
        (200, b"data: " + b"[" * 100_000 + b"\n", RemoteEngineError, "no reply"),
        (200, b'data: {"error": {"message": "out of memory"}}\n\n', RemoteEngineError, "out of memory"),
        (200, event(delta={"content": "Hi"}), RemoteEngineError, "broke in the middle"),
    ],
)
def test_a_server_that_misbehaves_is_a_sentence(
    fake: Fake, remote: RemoteModel, status: int, body: bytes, kind: type[ChatAppError], words: str
) -> None:
    fake.answer = lambda handler, asked: handler.say(status, body)
    with pytest.raises(kind, match=words) as told:
        _say(remote)
    assert "secret" not in str(told.value)
    fake.answer = lambda handler, asked: handler.say(200, WHOLE)
    assert _say(remote).text == "Hi"


def _hang(handler: Any, body: dict[str, Any]) -> None:
    """Some text, then nothing, until the caller leaves."""
    handler.say(200, event(delta={"content": "Hi"}))
    handler.connection.settimeout(PATIENCE)
    if not handler.connection.recv(1):
        handler.server.left.set()


def test_a_server_that_hangs_is_given_up(fake: Fake, remote: RemoteModel) -> None:
    fake.answer = _hang
    with pytest.raises(RemoteEngineError, match="no answer"):
        _say(remote)
    assert fake.left.wait(PATIENCE)


@pytest.mark.parametrize("how", ["cancelled", "closed"])
def test_a_visitor_who_leaves_ends_the_reply_at_the_server(fake: Fake, how: str) -> None:
    fake.answer = _hang
    remote = RemoteModel(fake.url, key="", timeouts=Timeouts(delta=4 * PATIENCE))
    cancel_event = threading.Event()
    events = remote.stream(ReplyRequest(HELLO, SHORT), cancel_event)
    assert next(events) == TextDelta("Hi")
    if how == "cancelled":
        cancel_event.set()
        end = next(events)
        assert isinstance(end, ReplyEnd)
        assert (end.text, end.reason) == ("Hi", "cancelled")
    else:
        events.close()
    assert fake.left.wait(PATIENCE)
    remote.close()


def test_the_end_of_our_server_ends_replies_under_way(fake: Fake) -> None:
    fake.answer = _hang
    remote = RemoteModel(fake.url, key="", timeouts=Timeouts(delta=4 * PATIENCE))
    events = remote.stream(ReplyRequest(HELLO, SHORT))
    assert next(events) == TextDelta("Hi")
    remote.close()
    with pytest.raises(RemoteEngineError, match="stopped"):
        next(events)
    assert fake.left.wait(PATIENCE)
    with pytest.raises(RemoteEngineError, match="ends"):
        _say(remote)


def test_a_server_that_is_not_there_or_lacks_the_model_is_said(fake: Fake) -> None:
    for wanted, url, kind, words in (
        ("", "http://127.0.0.1:9/v1", RemoteEngineError, "Nothing answers at 127.0.0.1:9"),
        ("huge", fake.url, ModelNotFoundError, "no model 'huge' .* It has: big, small"),
    ):
        remote = RemoteModel(url, wanted, key="")
        with pytest.raises(kind, match=words):
            _say(remote)
        remote.close()


def test_a_server_without_a_list_has_one_model(fake: Fake) -> None:
    fake.models = (404, b"")
    for wanted, sent in (("", "default"), ("mine", "mine")):
        remote = RemoteModel(fake.url, wanted, key="")
        assert _say(remote).text == "Hi"
        assert fake.asked[-1]["model"] == sent
        remote.close()


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1"),
        ("https://a.example/v1/", "https://a.example/v1"),
        ("https://a.example/openai/v1/chat/completions", "https://a.example/openai/v1"),
        ("http://[::1]:8000/", "http://[::1]:8000/v1"),
    ],
)
def test_addresses_are_brought_into_shape(given: str, used: str) -> None:
    assert check_address(given) == used


@pytest.mark.parametrize(
    "given", ["", "127.0.0.1:8000", "file:///etc/passwd", "http://", "http://a:b@c/", "http://a/?key=1", "http://a:b/"]
)
def test_what_is_no_address_is_refused(given: str) -> None:
    with pytest.raises(SettingError):
        check_address(given)


def _services(home: Path, remote: RemoteModel, **rules: Any) -> Services:
    return Services(Paths(home), ServerRules(training=False, **rules), remote=remote)


@pytest.fixture
def both(tmp_path: Path, tiny_folder: Path) -> Iterator[tuple[ApiServer, ApiServer]]:
    """A server whose engine is another, and that one."""
    behind = Services(Paths(tmp_path / "behind"), ServerRules(training=False), str(tiny_folder))
    behind.models.use(str(tiny_folder), LoadConfig(precision="float32"))
    engine = ApiServer(behind, "the key")
    front = _services(tmp_path / "front", RemoteModel(check_address(engine.url), key="the key"))
    front.load_first_model()
    server = ApiServer(front)
    yield server, engine
    server.close()
    front.close()
    engine.close()
    behind.close()


def _told(answer: dict[str, Any]) -> list[Any]:
    """What was written, with rounded logprobs: company changes their last digits."""
    rows = [choice["logprobs"]["content"] for choice in answer["choices"]]
    logits = [[(row["bytes"], round(row["logprob"], 3), len(row["top_logprobs"])) for row in one] for one in rows]
    ends = [(choice["message"], choice["finish_reason"]) for choice in answer["choices"]]
    return [ends, logits, answer["usage"], answer["model"]]


def test_one_chat_app_answers_for_another(both: tuple[ApiServer, ApiServer]) -> None:
    server, engine = both
    body = {"messages": [{"role": "user", "content": "Hello"}], "seed": 5, "max_tokens": 12, "n": 2}
    body |= {"logprobs": True, "top_logprobs": 2}
    chat = "/v1/chat/completions"
    direct = httpx.post(engine.url + chat, json=body, timeout=PATIENCE, headers={"authorization": "Bearer the key"})
    through = httpx.post(server.url + chat, json=body, timeout=PATIENCE)
    assert _told(through.json()) == _told(direct.json())
    streamed = httpx.post(server.url + chat, json={**body, "stream": True}, timeout=PATIENCE).text
    assert streamed.endswith("data: [DONE]\n\n")
    assert httpx.get(f"{server.url}/health").json() == {"status": "ok", "model": "model"}
    generated = httpx.post(f"{server.url}/generate", json={"context": "Hello"}, timeout=PATIENCE).json()
    assert generated["model_info"] == {"name": "model", "format": None, "parameters": None, "window": 128}
    refused = httpx.post(f"{server.url}/generate", json={"context": "Hello", "response": "I am"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "response")
    wait_for(lambda: len(server.api.streams) == len(engine.api.streams) == 0)


def test_an_engine_that_is_away_is_a_502_and_the_page_says_who_answers(tmp_path: Path, fake: Fake) -> None:
    remote = RemoteModel(fake.url, key="")
    services = _services(tmp_path / "home", remote)
    assert model_choices.describe_model(services.find_backend()) == (
        f"The server {remote.host} answers here, and cannot be reached yet."
    )
    services.load_first_model()
    assert model_choices.describe_model(services.find_backend()) == (
        f"The server {remote.host} answers with big, remembers 4,096 tokens"
    )
    rows = model_choices.list_chat_models(services, "local")
    assert rows[0] == (f"big on {remote.host}", model_choices.REMOTE)
    assert model_choices.get_answering_model(services, None) == model_choices.REMOTE
    assert ("Starter: comes with this app", "starter") in rows
    app = FastAPI()
    Api(services, Accounts({}, None, Throttle()), lambda: False).add_to(app)
    client = TestClient(app)
    fake.answer = lambda handler, body: handler.say(500, b"")
    answer = client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "Hello"}]})
    assert (answer.status_code, answer.json()["error"]["type"]) == (502, "server_error")
    services.close()


def test_deltas_keep_the_logprobs_of_the_server(fake: Fake, remote: RemoteModel) -> None:
    row = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": [{"token": "Ho", "logprob": -1}]}
    first = event(delta={"content": "Hi"}, logprobs={"content": [row]})
    fake.answer = lambda handler, body: handler.say(200, first + event(delta={}, finish_reason="length"))
    delta, end = stream_reply(remote, ReplyRequest(HELLO, SHORT, logprobs=1))
    assert isinstance(delta, TextDelta)
    assert delta.tokens is not None
    assert isinstance(end, ReplyEnd)
    assert (delta.tokens[0].logprob, delta.tokens[0].top[0].token, end.reason) == (-0.5, "Ho", "length")
    assert fake.asked[0]["top_logprobs"] == 1
