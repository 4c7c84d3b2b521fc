"""The HTTP API behind a real server: callers who leave, replies under way at the end, and too many at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from chat_app.config.loading import LoadConfig
from chat_app.config.paths import Paths
from chat_app.config.server import ServerRules
from chat_app.inference.backend import TextDelta
from chat_app.inference.engine import Engine
from chat_app.inference.loaded_model import LoadedModel
from chat_app.server.openai_api import MAX_STREAMS
from chat_app.services import Services
from chat_app.tokenization.chat_formats import get_format
from chat_app.tokenization.encoder import Encoder
from chat_app.tokenization.format_detection import write_chat_format
from tests.server.api_server import ApiServer, wait_for
from tests.server.in_process import OneModel

HELLO = [{"role": "user", "content": "Hello"}]
LONG_WINDOW = 4096
FAST_STEPS = 200
PATIENCE = 180.0  # Seconds; only a fault lets a test wait so long.
LONG = {"messages": HELLO, "max_tokens": 4000, "temperature": 0}


def loaded_in(services: Services) -> LoadedModel:
    """Its model, which is in this process."""
    loaded = services.models.current
    assert isinstance(loaded, LoadedModel)
    return loaded


def slow_down(engine: Engine) -> None:
    """After its first steps a model takes its time: no long reply ends by itself while a test waits for its end."""
    runner, steps, never = engine._runner, count(), threading.Event()
    assert runner is not None
    really = runner.step

    def step(chunks: Any) -> Any:
        if next(steps) > FAST_STEPS:
            never.wait(4 * PATIENCE / LONG["max_tokens"])
        return really(chunks)

    runner.step = step  # type: ignore[method-assign]


@pytest.fixture
def long_services(tmp_path: Path, tiny_tokenizer: Any, make_model: Callable[..., Any]) -> Iterator[Services]:
    folder = tmp_path / "long"
    encoder = Encoder(tiny_tokenizer, get_format("roles"), LONG_WINDOW)
    make_model(len(tiny_tokenizer), window=LONG_WINDOW).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    write_chat_format(folder, encoder.format, encoder.special_tokens)
    services = Services(Paths(tmp_path / "home"), ServerRules(training=False), str(folder))
    slow_down(OneModel(services).use(str(folder), LoadConfig(precision="float32")).engine)
    yield services
    services.close()


@pytest.fixture
def server(long_services: Services) -> Iterator[ApiServer]:
    server = ApiServer(long_services)
    yield server
    server.close()


def test_a_caller_who_leaves_a_stream_frees_the_engine(server: ApiServer, long_services: Services) -> None:
    loaded = loaded_in(long_services)
    with httpx.stream(
        "POST", f"{server.url}/v1/chat/completions", json={**LONG, "stream": True}, timeout=PATIENCE
    ) as answer:
        lines = answer.iter_lines()
        while '"content":"' not in next(lines):
            pass
        assert loaded.engine.requests == 1
    wait_for(lambda: loaded.engine.requests == 0)
    wait_for(lambda: len(server.api.streams) == 0)


@pytest.mark.parametrize("more", [{}, {"n": 4}])
def test_a_caller_who_leaves_without_a_stream_frees_it_too(
    server: ApiServer, long_services: Services, more: dict[str, int]
) -> None:
    loaded = loaded_in(long_services)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/v1/chat/completions", json={**LONG, **more}, timeout=0.5)
    wait_for(lambda: loaded.engine.requests == 0 and len(server.api.streams) == 0)


def test_several_replies_are_written_at_the_same_time_and_end_together(
    server: ApiServer, long_services: Services
) -> None:
    loaded = loaded_in(long_services)
    body = {**LONG, "n": 3, "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=PATIENCE) as answer:
        lines, begun = answer.iter_lines(), set()
        while len(begun) < 3:
            event = next(lines)
            begun |= {index for index in range(3) if f'"index":{index},"delta":{{"content"' in event}
        assert loaded.engine.requests == 3
    wait_for(lambda: loaded.engine.requests == 0 and len(server.api.streams) == 0)


def test_ending_the_server_ends_replies_under_way(server: ApiServer, long_services: Services) -> None:
    loaded = loaded_in(long_services)
    with httpx.stream(
        "POST", f"{server.url}/v1/chat/completions", json={**LONG, "stream": True}, timeout=PATIENCE
    ) as answer:
        lines = answer.iter_lines()
        while '"content":"' not in next(lines):
            pass
        server.api.streams.stop_all()
        rest = list(lines)
    assert "data: [DONE]" in rest
    assert loaded.engine.wait_idle(PATIENCE)


def test_health_answers_and_others_are_told_to_wait_when_all_places_are_taken(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = threading.Event()

    def slow(backend: Any, request: Any, cancel_event: threading.Event) -> Iterator[Any]:
        while not free.is_set() and not cancel_event.wait(0.01):
            pass
        yield TextDelta("Hello")

    monkeypatch.setattr("chat_app.server.openai_api.stream_reply", slow)
    body = {"messages": HELLO, "stream": True}

    def ask() -> None:
        httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=PATIENCE)

    threads = [threading.Thread(target=ask) for _ in range(MAX_STREAMS)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(server.api.streams) == MAX_STREAMS)
    assert httpx.get(f"{server.url}/health").json()["status"] == "ok"
    assert httpx.post(f"{server.url}/v1/chat/completions", json=body).status_code == 503
    free.set()
    for thread in threads:
        thread.join()
    wait_for(lambda: len(server.api.streams) == 0)
