"""The engine against transformers' own generation, and what several requests at once do to each other: nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch

from chat_app.config.sampling import SamplingConfig
from chat_app.errors import BusyError, ChatAppError, DataError
from chat_app.inference import engine as engine_module
from chat_app.inference import sequence as sequence_module
from chat_app.inference.backend import QueuePosition
from chat_app.inference.engine import Engine, generate_tokens
from chat_app.inference.request import Finish, Request
from chat_app.inference.sequence import start_sequence

GREEDY = SamplingConfig(temperature=0, repetition_penalty=1)
LONG = 180  # Seconds; only a fault lets a test wait so long.


def request(ids: list[int], types: list[int] | None = None, next_type: int | None = None, new: int = 12) -> Request:
    return Request(ids, types, next_type, GREEDY, frozenset(), frozenset(), new)


def expected(
    model: Any, ids: list[int], new: int = 12, types: list[int] | None = None, next_type: int = 0
) -> list[int]:
    """Greedy generation by transformers; with types, by whole forward passes, as it cannot continue them itself."""
    if types is None:
        inputs = torch.tensor([ids])
        mask = torch.ones_like(inputs)
        return model.generate(
            inputs, attention_mask=mask, max_new_tokens=new, min_new_tokens=new, do_sample=False, pad_token_id=0
        )[0, len(ids) :].tolist()
    written: list[int] = []
    with torch.no_grad():
        for _ in range(new):
            kinds = torch.tensor([types + [next_type] * len(written)])
            written.append(int(model(torch.tensor([ids + written]), token_type_ids=kinds).logits[0, -1].argmax()))
    return written


def wait_until(engine: Engine, condition: Callable[[], bool]) -> None:
    with engine._changed:
        assert engine._changed.wait_for(condition, LONG)


class Gate:
    """Holds an engine's steps until opened, from the one after `free` on, and notes the ids of each."""

    def __init__(self, engine: Engine, free: int = 0):
        self.free = free
        self.open, self.reached = threading.Event(), threading.Event()
        self.before: Callable[[list[list[int]]], None] = lambda step: None  # Told the ids; may fail.
        self.steps: list[list[list[int]]] = []  # Of each step, of each chunk.
        runner = engine._runner
        assert runner is not None
        self._really, runner.step = runner.step, self._step

    @property
    def inputs(self) -> list[list[int]]:
        """The chunks, one after the other."""
        return [ids for step in self.steps for ids in step]

    def _step(self, chunks: Any) -> torch.Tensor:
        self.steps.append([chunk.ids for chunk in chunks])
        if len(self.steps) > self.free:
            self.reached.set()
            assert self.open.wait(LONG)
        self.before(self.steps[-1])
        return self._really(chunks)


@pytest.fixture
def engine(tiny_model):
    one = Engine(tiny_model, 128)
    yield one
    one.close()


def ids_of(seed: int, length: int = 20) -> list[int]:
    return torch.randint(1, 300, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.mark.parametrize("length", [1, 2, 20, 100])
def test_greedy_equals_generate(engine, tiny_model, length):
    # transformers has its own idea of the end token in min_new_tokens, so the first token never is 0 in either.
    ids = ids_of(length, length)
    banned = replace(request(ids), suppressed_ids=frozenset({0}))
    assert list(engine.stream(banned)) == expected(tiny_model, ids)


@pytest.mark.parametrize(("first", "then"), [(0, 1), (7, 9), (301, 302)])
def test_greedy_with_types_equals_whole_passes(engine, tiny_model, first, then):
    ids = ids_of(3)
    types = [first] * 8 + [then] * 12
    assert list(engine.stream(request(ids, types, first))) == expected(tiny_model, ids, types=types, next_type=first)
    assert expected(tiny_model, ids, types=types, next_type=first) != expected(tiny_model, ids)


def test_a_long_prompt_is_prefilled_in_chunks(engine, tiny_model, monkeypatch):
    monkeypatch.setattr(engine._runner, "prefill_chunk_size", 7)
    ids, types = ids_of(4, 50), [5] * 50
    assert list(engine.stream(request(ids, types, 6))) == expected(tiny_model, ids, types=types, next_type=6)


def test_the_end_token_is_the_last_token(engine, tiny_model):
    ids = ids_of(5)
    full = list(engine.stream(request(ids)))
    end = full[4]
    first = full.index(end)
    assert list(engine.stream(replace(request(ids), end_ids=frozenset({end})))) == full[: first + 1]


def test_the_window_ends_the_stream(engine):
    assert len(list(engine.stream(request(ids_of(6, 120), new=50)))) == 8


@pytest.mark.parametrize("length", [0, 128, 500])
def test_a_prompt_without_room_is_refused(engine, length):
    with pytest.raises(DataError, match="prompt"):
        next(engine.stream(request([1] * length)))


def test_generate_tokens_needs_no_thread_and_restores_the_mode(engine, tiny_model):
    ids = ids_of(7)
    tiny_model.train()
    assert generate_tokens(tiny_model, request(ids), 128) == list(engine_of_eval(engine, tiny_model, ids))
    assert not any(parameter.is_inference() for parameter in tiny_model.parameters())


def engine_of_eval(engine: Engine, model: Any, ids: list[int]) -> list[int]:
    assert model.training, "generate_tokens restores the mode"
    model.eval()
    return list(engine.stream(request(ids)))


class TestKeptCaches:
    def test_the_next_turn_computes_only_what_is_new(self, engine, tiny_model):
        ids = ids_of(8, 30)
        reply = list(engine.stream(request(ids)))
        gate = Gate(engine)
        gate.open.set()
        longer = [*ids, *reply, *ids_of(9, 6)]
        again = list(engine.stream(request(longer)))
        assert gate.inputs[0] == longer[30 + len(reply) - 1 :]
        assert again == generate_tokens(tiny_model, request(longer), 128)

    def test_a_retry_computes_one_token(self, engine, tiny_model):
        ids = ids_of(10)
        first = list(engine.stream(request(ids)))
        gate = Gate(engine)
        gate.open.set()
        assert list(engine.stream(request(ids))) == first
        assert gate.inputs[0] == ids[-1:]

    @pytest.mark.parametrize("kept", [0, 10, 60, 10_000])
    def test_results_do_not_depend_on_the_prefix_cache(self, tiny_model, kept):
        engine = Engine(tiny_model, 128, prefix_cache_tokens=kept)
        generator = torch.Generator().manual_seed(kept)
        base = ids_of(11, 40)
        for turn in range(12):
            cut = int(torch.randint(1, 40, (1,), generator=generator))
            ids = base[:cut] + ids_of(turn, 5)
            kinds = [None, [3] * len(ids), [3] * 2 + [4] * (len(ids) - 2)][turn % 3]
            one = request(ids, kinds, 4 if kinds else None, new=6)
            assert list(engine.stream(one)) == generate_tokens(tiny_model, one, 128)
        engine.close()

    def test_other_types_are_another_prefix(self, engine, tiny_model):
        ids = ids_of(12)
        list(engine.stream(request(ids)))
        for types in ([1] * 20, [1] * 10 + [2] * 10):
            one = request(ids, types, 1)
            assert list(engine.stream(one)) == generate_tokens(tiny_model, one, 128)

    def test_they_are_bounded(self, tiny_model):
        engine = Engine(tiny_model, 128, prefix_cache_tokens=100)
        for seed in range(8):
            list(engine.stream(request(ids_of(seed, 40), new=4)))
        assert sum(one.kv_cache.length for one in engine._prefix_cache._entries) <= 100
        assert len(engine._prefix_cache._entries) == 2
        engine.close()


class TestTogether:
    def test_streams_take_turns_and_never_mix(self, engine, tiny_model):
        prompts = [ids_of(seed, 10 + seed) for seed in range(4)]
        alone = [generate_tokens(tiny_model, request(ids), 128) for ids in prompts]
        gate = Gate(engine)
        with ThreadPoolExecutor(4) as pool:
            results = [pool.submit(lambda ids: list(engine.stream(request(ids))), ids) for ids in prompts]
            wait_until(engine, lambda: engine.requests == 4)
            gate.open.set()
            assert [one.result(LONG) for one in results] == alone
        # The first may have begun alone; from then on each step computes a token of all.
        assert [len(step) for step in gate.steps[2:12]] == [4] * 10

    def test_a_seeded_reply_is_the_same_in_company(self, engine):
        one = replace(request(ids_of(1)), sampling=SamplingConfig(temperature=1, seed=7))
        alone = list(engine.stream(one))
        with ThreadPoolExecutor(3) as pool:
            others = [pool.submit(lambda seed: list(engine.stream(request(ids_of(seed)))), seed) for seed in (2, 3)]
            together = pool.submit(lambda: list(engine.stream(one)))
            assert together.result(LONG) == alone
            assert all(len(other.result(LONG)) == 12 for other in others)

    @pytest.mark.parametrize("error", [RuntimeError("broken"), MemoryError(), torch.OutOfMemoryError()])
    def test_an_error_reaches_only_its_request(self, engine, tiny_model, error):
        def fail(step: list[list[int]]) -> None:
            if [7, 7, 7] in step:
                raise error

        good, gate = request(ids_of(2)), Gate(engine, free=1)
        gate.before = fail
        with ThreadPoolExecutor(2) as pool:
            fine = pool.submit(lambda: list(engine.stream(good)))
            assert gate.reached.wait(LONG)
            failing = pool.submit(lambda: list(engine.stream(request([7, 7, 7]))))
            wait_until(engine, lambda: engine.requests == 2)
            gate.open.set()
            with pytest.raises(ChatAppError, match=r"failed|memory"):
                failing.result(LONG)
            assert fine.result(LONG) == generate_tokens(tiny_model, good, 128)
        assert engine.wait_idle(LONG)
        assert list(engine.stream(good)) == generate_tokens(tiny_model, good, 128)

    def test_broken_numbers_reach_only_their_request(self, engine, tiny_model):
        good = request(ids_of(2))
        expected = generate_tokens(tiny_model, good, 128)
        with torch.no_grad():
            tiny_model.transformer.wpe.weight[60] = torch.nan
        gate = Gate(engine)
        with ThreadPoolExecutor(2) as pool:
            failing = pool.submit(lambda: list(engine.stream(request(ids_of(1, 55)))))
            fine = pool.submit(lambda: list(engine.stream(good)))
            wait_until(engine, lambda: engine.requests == 2)
            gate.open.set()
            with pytest.raises(ChatAppError, match="NaN"):
                failing.result(LONG)
            assert fine.result(LONG) == expected
        assert engine.wait_idle(LONG)

    @pytest.mark.parametrize("bad", [[1, 99_999], [-1, 2]])
    def test_unknown_tokens_are_refused(self, engine, bad):
        with pytest.raises(DataError, match="does not know"):
            next(engine.stream(request(bad)))
        with pytest.raises(DataError, match="does not know"):
            next(engine.stream(request([1, 2], bad, 0)))

    def test_the_queue_position_is_emitted(self, tiny_model):
        engine = Engine(tiny_model, 128, max_running=1)
        gate = Gate(engine)
        followed: list[list[int | QueuePosition | Finish]] = [[], [], []]

        def follow(number: int) -> None:
            followed[number].extend(engine.stream_events(request(ids_of(number), new=2)))

        with ThreadPoolExecutor(3) as pool:
            for number in range(3):
                pool.submit(follow, number)
                wait_until(engine, lambda number=number: engine.requests == number + 1)
                assert gate.reached.wait(LONG)
            gate.open.set()
        places = [[event.position for event in events if isinstance(event, QueuePosition)] for events in followed]
        assert places[0] == []
        assert places[1] in ([1], [])  # It may be let in before it was ever told.
        assert places[2] in ([2, 1], [1])
        assert [sum(isinstance(event, int) for event in events) for events in followed] == [2, 2, 2]
        assert [events[-1] for events in followed] == [Finish("length")] * 3
        engine.close()

    def test_memory_limits_how_many_are_written_at_once(self, tiny_model):
        engine = Engine(tiny_model, 128, kv_cache_tokens=128, prefix_cache_tokens=100)
        gate = Gate(engine, free=0)
        prompts = [ids_of(seed, 20) for seed in range(6)]  # With its reply each comes to 50 tokens: two fit.
        alone = [generate_tokens(tiny_model, request(ids, new=30), 128) for ids in prompts]
        with ThreadPoolExecutor(6) as pool:
            results = [pool.submit(lambda ids: list(engine.stream(request(ids, new=30))), ids) for ids in prompts]
            wait_until(engine, lambda: engine.requests == 6)
            gate.open.set()
            assert [one.result(LONG) for one in results] == alone
        assert max(len(step) for step in gate.steps) == 2
        assert engine._prefix_cache.tokens <= 100
        engine.close()

    def test_a_long_prompt_does_not_halt_running_replies(self, engine, monkeypatch):
        monkeypatch.setattr(engine_module, "PREFILL_CHUNK_WHILE_DECODING", 8)
        gate = Gate(engine, free=1)
        with ThreadPoolExecutor(3) as pool:
            first = pool.submit(lambda: list(engine.stream(request(ids_of(1), new=60))))
            assert gate.reached.wait(LONG)
            others = [pool.submit(lambda seed: list(engine.stream(request(ids_of(seed, 60)))), seed) for seed in (2, 3)]
            wait_until(engine, lambda: engine.requests == 3)
            gate.open.set()
            assert len(first.result(LONG)) == 60
            assert all(len(one.result(LONG)) == 12 for one in others)
        reading = [step for step in gate.steps[2:] if any(len(chunk) > 1 for chunk in step)]
        assert all(min(len(chunk) for chunk in step) == 1 for step in reading), "the reply goes on in each step"
        assert all(sum(len(chunk) for chunk in step if len(chunk) > 1) <= 8 for step in reading)
        assert any(sum(len(chunk) > 1 for chunk in step) == 2 for step in reading), "both newcomers get their share"

    def test_the_time_limit_ends_a_reply_where_it_is(self, tiny_model):
        now = [0.0]
        engine = Engine(tiny_model, 128, time_limit=10, clock=lambda: now[0])
        gate = Gate(engine, free=3)
        stream = engine.stream(request(ids_of(1), new=100))
        written = [next(stream)]
        assert gate.reached.wait(LONG)
        now[0] = 10.0
        gate.open.set()
        assert [*written, *stream] == generate_tokens(tiny_model, request(ids_of(1), new=4), 128)
        assert len(gate.steps) == 4
        engine.close()

    def test_the_first_token_is_emitted_at_once_and_later_ones_together(self, tiny_model, monkeypatch):
        moments = iter([0.0, 0.0, 0.01, 0.019, 0.02, 0.02, 0.03, 0.04, 0.04, 0.05, 0.05, 0.06])
        monkeypatch.setattr(sequence_module, "EMIT_INTERVAL_SECONDS", 0.02)
        monkeypatch.setattr(sequence_module.time, "monotonic", lambda: next(moments))
        sequence = start_sequence(request(ids_of(1), new=20), 128, 300)
        for token in range(1, 9):
            sequence.emit_token(token)
        sequence.emit(Finish("length"))
        assert [sequence.events.get(timeout=1) for _ in range(4)] == [[1], [2, 3, 4], [5, 6], [7, 8]]
        assert sequence.events.get() == Finish("length")

    def test_tokens_are_emitted_before_the_error(self, engine):
        gate = Gate(engine, free=5)
        gate.open.set()

        def fail(step: list[list[int]]) -> None:
            if len(gate.steps) == 5:
                raise RuntimeError("broken")

        gate.before = fail
        stream = engine.stream(request(ids_of(1)))
        assert len([next(stream) for _ in range(4)]) == 4
        with pytest.raises(ChatAppError, match="broken"):
            next(stream)

    def test_a_request_that_waits_too_long_is_refused(self, tiny_model):
        now = [0.0]
        engine = Engine(tiny_model, 128, max_running=1, time_limit=10, clock=lambda: now[0])
        gate = Gate(engine)
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(lambda: list(engine.stream(request(ids_of(1), new=4))))
            assert gate.reached.wait(LONG)
            second = pool.submit(lambda: list(engine.stream(request(ids_of(2)))))
            wait_until(engine, lambda: engine.requests == 2)
            now[0] = 10.0
            gate.open.set()
            with pytest.raises(BusyError, match="too long"):
                second.result(LONG)
            assert len(first.result(LONG)) == 1
        engine.close()

    def test_too_many_are_refused(self, tiny_model):
        engine = Engine(tiny_model, 128, max_waiting=1, max_running=1)
        gate = Gate(engine)
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(lambda: list(engine.stream(request(ids_of(1)))))
            assert gate.reached.wait(LONG)
            second = pool.submit(lambda: list(engine.stream(request(ids_of(2)))))
            wait_until(engine, lambda: len(engine._waiting) == 1)
            with pytest.raises(BusyError):
                next(engine.stream(request(ids_of(3))))
            gate.open.set()
            assert len(first.result(LONG)) == len(second.result(LONG)) == 12
        engine.close()
