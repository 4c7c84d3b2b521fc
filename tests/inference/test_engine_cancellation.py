"""Cancelled requests, the reasons for which sequences finish, and that an engine leaks no memory."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psutil
import pytest

from chat_app.errors import ChatAppError
from chat_app.inference.engine import Engine, generate_tokens
from chat_app.inference.request import Finish
from chat_app.system.memory import release_memory
from tests.inference.test_engine import LONG, Gate, ids_of, request, wait_until


@pytest.fixture
def engine(tiny_model):
    one = Engine(tiny_model, 128)
    yield one
    one.close()


class TestCancelling:
    def test_closing_the_stream_frees_the_engine_within_a_step(self, engine, tiny_model):
        gate = Gate(engine, free=2)
        stream = engine.stream(request(ids_of(1), new=100))
        next(stream)
        assert gate.reached.wait(LONG)
        stream.close()
        gate.open.set()
        assert engine.wait_idle(LONG)
        assert len(gate.inputs) == 3  # The step that was under way, and no other.

    def test_a_stream_that_is_thrown_away_is_closed(self, engine, tiny_model):
        gate = Gate(engine, free=2)
        stream = engine.stream(request(ids_of(1), new=100))
        next(stream)
        assert gate.reached.wait(LONG)
        del stream
        gate.open.set()
        assert engine.wait_idle(LONG)
        assert len(gate.inputs) == 3

    def test_an_event_ends_it_too(self, engine, tiny_model):
        gate = Gate(engine, free=2)
        cancel_event = threading.Event()
        stream = engine.stream(request(ids_of(1), new=100), cancel_event)
        next(stream)
        assert gate.reached.wait(LONG)
        cancel_event.set()
        gate.open.set()
        assert len(list(stream)) == 2
        assert engine.wait_idle(LONG)

    @pytest.mark.parametrize(
        ("prompt", "new", "ends", "reason"),
        [(10, 5, False, "length"), (10, 5, True, "end"), (124, 100, False, "window"), (123, 5, False, "length")],
    )
    def test_the_last_event_is_the_reason(self, engine, tiny_model, prompt, new, ends, reason):
        ids = ids_of(1, prompt)
        third = generate_tokens(tiny_model, request(ids, new=3), 128)[-1]
        asked = replace(request(ids, new=new), end_ids=frozenset({third} if ends else ()))
        *tokens, last = engine.stream_events(asked)
        assert last == Finish(reason)
        assert all(isinstance(token, int) for token in tokens)
        assert (tokens[-1] == third) if ends else (len(tokens) == min(new, 128 - prompt))

    @pytest.mark.parametrize(("cancels", "reason"), [(True, "cancelled"), (False, "time")])
    def test_what_ends_it_from_outside_is_the_reason(self, tiny_model, cancels, reason):
        now, cancel_event = [0.0], threading.Event()
        engine = Engine(tiny_model, 128, time_limit=10, clock=lambda: now[0])
        gate = Gate(engine, free=2)
        events = engine.stream_events(request(ids_of(1), new=100), cancel_event)
        next(events)
        assert gate.reached.wait(LONG)
        if cancels:
            cancel_event.set()
        else:
            now[0] = 10.0
        gate.open.set()
        assert list(events)[-1] == Finish(reason)
        engine.close()

    def test_a_waiting_request_can_be_cancelled(self, tiny_model):
        engine = Engine(tiny_model, 128, max_running=1)
        gate = Gate(engine)
        cancel_event = threading.Event()
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(lambda: list(engine.stream(request(ids_of(1)))))
            assert gate.reached.wait(LONG)
            second = pool.submit(lambda: list(engine.stream(request(ids_of(2)), cancel_event)))
            wait_until(engine, lambda: len(engine._waiting) == 1)
            cancel_event.set()
            gate.open.set()
            assert second.result(LONG) == []
            assert len(first.result(LONG)) == 12
        engine.close()

    def test_close_ends_open_streams_and_the_thread(self, tiny_model):
        engine = Engine(tiny_model, 128)
        gate = Gate(engine, free=2)
        stream = engine.stream(request(ids_of(1), new=100))
        next(stream)
        assert gate.reached.wait(LONG)
        with ThreadPoolExecutor(1) as pool:
            closing = pool.submit(engine.close)
            wait_until(engine, lambda: engine._closing)
            gate.open.set()
            closing.result(LONG)
        assert not engine._thread.is_alive()
        with pytest.raises(ChatAppError, match="unloaded"):
            list(stream)
        with pytest.raises(ChatAppError, match="no longer loaded"):
            next(engine.stream(request(ids_of(1))))
        engine.close()


@pytest.mark.slow
def test_ten_thousand_requests_leave_no_memory_behind(tiny_model):
    engine = Engine(tiny_model, 128)
    process = psutil.Process()

    def ask(seed: int) -> None:
        stream = engine.stream(request(ids_of(seed, 1 + seed % 60), new=3))
        next(stream)
        if seed % 3:
            list(stream)
        stream.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(2_000)))  # What is taken once and for all is there now.
        release_memory()
        before = process.memory_info().rss
        list(pool.map(ask, range(2_000, 12_000)))
    assert engine.wait_idle(LONG)
    release_memory()
    assert process.memory_info().rss - before < 10 * 2**20
    assert engine._prefix_cache.tokens <= 4 * 128
    engine.close()
