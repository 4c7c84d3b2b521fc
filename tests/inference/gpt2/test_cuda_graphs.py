"""Replies written over pages, by steps that are recorded: against transformers, and with a tape in place of a GPU."""

from __future__ import annotations

import copy
import logging
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from chat_app.inference.engine import Engine, generate_tokens
from chat_app.inference.gpt2.model_runner import GPT2Forward
from chat_app.inference.kv_cache import Memory
from chat_app.inference.model_runner import Piece
from tests.inference.gpt2.test_model_runner import VARIANTS, model_of, scores_of
from tests.inference.test_engine import LONG, Gate, expected, ids_of, request, wait_until

WINDOW = 128
READING = {"aten._local_scalar_dense.default", "aten.nonzero.default", "aten.equal.default"}


class _Tape(TorchDispatchMode):
    """What torch is told to do, in its order."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, call: Any, types: Any, arguments: Any = (), settings: Any = None) -> Any:
        assert str(call) not in READING, "nothing may depend on numbers"
        result = call(*arguments, **(settings or {}))
        self.calls.append((call, arguments, settings or {}, result))
        return result

    def replay(self) -> None:
        """The same calls on the same tensors, and on what comes of them; no line of Python of the function."""
        now: dict[int, torch.Tensor] = {}

        def of_now(part: Any) -> Any:
            return tree_map_only(torch.Tensor, lambda one: now.get(id(one), one), part)

        for call, arguments, settings, before in self.calls:
            result = call(*of_now(arguments), **of_now(settings))
            pairs = zip(before, result, strict=True) if isinstance(before, (list, tuple)) else [(before, result)]
            now |= {id(one): other for one, other in pairs if isinstance(one, torch.Tensor)}


class TapeRecorder:
    """In place of CudaRecorder: as a graph, a tape knows shapes, addresses and numbers of the moment of recording."""

    def __init__(self, device: torch.device):
        self.shapes: list[tuple[int, int]] = []  # Of the inputs that were recorded.
        self.replays = 0
        self.fails: Callable[[], bool] = lambda: False

    def __call__(self, function: Any) -> Callable[[], None]:
        if self.fails():
            raise RuntimeError("this operation cannot be recorded")
        rows, columns = function.args[0].shape
        self.shapes.append((rows, columns - 4))
        pool = function.func._pool
        address = pool.numbers.data_ptr()
        tape = _Tape()
        with tape:
            function()

        def replay() -> None:
            assert address == pool.numbers.data_ptr(), "the pages have moved"
            self.replays += 1
            tape.replay()

        return replay


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch):
    monkeypatch.setattr("chat_app.inference.kv_cache_paged.PAGE", 16)


@pytest.fixture(params=["recorded", "unrecorded"])
def paged(request, monkeypatch) -> Callable[..., GPT2Forward]:
    """Makes forward passes over pages, whose steps are recorded on a tape or not at all."""
    monkeypatch.setattr("chat_app.inference.gpt2.model_runner.CudaRecorder", TapeRecorder)
    return lambda model: GPT2Forward(model, WINDOW, paged=True, recorded=request.param == "recorded")


@pytest.fixture
def taped(monkeypatch) -> Callable[..., GPT2Forward]:
    """As `paged`, always recorded."""
    monkeypatch.setattr("chat_app.inference.gpt2.model_runner.CudaRecorder", TapeRecorder)
    return lambda model, window=WINDOW: GPT2Forward(model, window, paged=True, recorded=True)


def recorder_of(forward: GPT2Forward) -> TapeRecorder:
    recorder: Any = forward._rows._record
    return recorder


def read(forward: GPT2Forward, prompts: list[list[int]]) -> list[Memory]:
    """Memories of all but the last token of prompts."""
    memories = [forward.new_memory() for _ in prompts]
    forward.step([Piece(ids[:-1], None, memory, False) for ids, memory in zip(prompts, memories, strict=True)])
    return memories


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_scores_are_those_of_transformers(paged, variant, typed):
    model = model_of(**VARIANTS[variant])
    forward = paged(model)
    ids, types = ids_of(1, 50), [5] * 20 + [6] * 30 if typed else None
    memory = forward.new_memory()
    for start, end in ((0, 1), (1, 17), (17, 38), *((at, at + 1) for at in range(38, 50))):
        scores = forward.step([Piece(ids[start:end], types and types[start:end], memory, True)])
        assert (scores[0].shape, scores[0].dtype) == ((300,), torch.float32)
        torch.testing.assert_close(scores[0], scores_of(model, ids[:end], types and types[:end]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [1, 3, 8, 17])
def test_greedy_replies_are_those_of_transformers_in_any_company(paged, count):
    model = model_of()
    forward = paged(model)
    prompts = [ids_of(seed, 5 + 6 * seed) for seed in range(count)]
    kinds = [[seed] * len(ids) if seed % 2 else None for seed, ids in enumerate(prompts)]
    memories = [forward.new_memory() for _ in prompts]
    pieces = [Piece(*one, True) for one in zip(prompts, kinds, memories, strict=True)]
    replies: list[list[int]] = [[] for _ in prompts]
    for _ in range(6):
        for reply, scores in zip(replies, forward.step(pieces), strict=True):
            reply.append(int(scores.argmax()))
        pieces = [
            Piece(reply[-1:], None if kind is None else kind[:1], memory, True)
            for reply, kind, memory in zip(replies, kinds, memories, strict=True)
        ]
    for ids, kind, reply in zip(prompts, kinds, replies, strict=True):
        assert reply == expected(model, ids, 6, kind, kind[0] if kind else 0)
    del memories, pieces
    assert forward._pool.used == 0


def test_prompts_beside_replies_are_read_in_the_same_step(paged):
    model = model_of()
    forward = paged(model)
    prompts = [ids_of(seed, 30 + 7 * seed) for seed in range(4)]
    memories = [forward.new_memory() for _ in prompts]
    forward.step([Piece(prompts[0][:-1], None, memories[0], False), Piece(prompts[2][:9], None, memories[2], False)])
    scores = forward.step(
        [
            Piece(prompts[1], None, memories[1], True),
            Piece(prompts[0][-1:], None, memories[0], True),
            Piece(prompts[2][9:20], None, memories[2], False),
            Piece(prompts[3][:1], None, memories[3], False),  # Of one token, and not the last.
        ]
    )
    assert len(scores) == 2
    assert [memory.length for memory in memories] == [30, 37, 20, 1]
    rest = forward.step([Piece(prompts[at][memories[at].length :], None, memories[at], True) for at in (2, 3)])
    for row, at in ((scores[0], 1), (scores[1], 0), (rest[0], 2), (rest[1], 3)):
        torch.testing.assert_close(row, scores_of(model, prompts[at], None), rtol=1e-4, atol=1e-4)
    assert forward.step([Piece([5, 6], None, memories[0], False)]) == []


def test_scores_outlive_the_next_step(paged):
    forward = paged(model_of())
    memories = read(forward, [ids_of(1), ids_of(2)])
    first = forward.step([Piece([7], None, memory, True) for memory in memories])
    kept = [row.clone() for row in first]
    forward.step([Piece([9], None, memory, True) for memory in memories])
    assert all(torch.equal(row, other) for row, other in zip(first, kept, strict=True))


def test_bfloat16_is_near(paged):
    model = model_of()
    ids = ids_of(3, 40)
    forward = paged(copy.deepcopy(model).to(torch.bfloat16))
    (memory,) = read(forward, [ids[:31]])
    for at in range(30, 40):
        scores = forward.step([Piece(ids[at : at + 1], None, memory, True)])
    wanted = scores_of(model, ids, None)
    assert scores[0].dtype == torch.float32
    assert float((scores[0] - wanted).norm() / wanted.norm()) < 0.03


class TestRecording:
    def test_there_is_one_for_some_numbers_of_rows_and_pages(self, taped):
        forward = taped(model_of())
        memories = read(forward, [ids_of(seed, 14) for seed in range(3)])
        for _ in range(60):  # From 13 tokens to 73: one page to five.
            forward.step([Piece([3], None, memory, True) for memory in memories])
        for count in (1, 2):
            forward.step([Piece([3], None, memory, True) for memory in memories[:count]])
        recorder = recorder_of(forward)
        assert recorder.shapes == [(4, 1), (4, 2), (4, 4), (4, 8), (1, 8), (2, 8)]
        assert recorder.replays == 62 - len(recorder.shapes)

    def test_the_last_length_is_the_windows(self, taped):
        forward = taped(model_of(), 90)
        (memory,) = read(forward, [ids_of(1, 86)])
        forward.step([Piece([3], None, memory, True)])
        assert recorder_of(forward).shapes == [(1, 6)]

    def test_it_is_made_anew_where_the_pages_have_moved(self, taped):
        model = model_of()
        forward = taped(model)
        prompts = [ids_of(seed, 100) for seed in range(2)]
        memories = read(forward, prompts)
        last = [Piece(ids[-1:], None, memory, True) for ids, memory in zip(prompts, memories, strict=True)]
        forward.step(last)
        others = read(forward, [ids_of(seed, 120) for seed in range(4)])
        assert forward._pool.growths > 1
        for ids in prompts:
            ids.append(8)
        scores = forward.step([Piece([8], None, memory, True) for memory in memories])
        again = forward.step([Piece([9], None, memory, True) for memory in memories])
        recorder = recorder_of(forward)
        assert recorder.shapes == [(2, 8), (2, 8)]
        assert recorder.replays == 1
        for ids, row, then in zip(prompts, scores, again, strict=True):
            torch.testing.assert_close(row, scores_of(model, ids, None), rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(then, scores_of(model, [*ids, 9], None), rtol=1e-4, atol=1e-4)
        assert len(others) == 4

    def test_what_cannot_be_recorded_is_computed_all_the_same(self, taped, caplog):
        model = model_of()
        forward = taped(model)
        recorder = recorder_of(forward)
        recorder.fails = lambda: len(recorder.shapes) == 1
        ids = ids_of(4, 14)
        (memory,) = read(forward, [ids])
        written: list[int] = []
        with caplog.at_level(logging.WARNING):
            for _ in range(30):  # The second length breaks off.
                (scores,) = forward.step([Piece([(ids + written)[-1]], None, memory, True)])
                written.append(int(scores.argmax()))
        assert written == expected(model, ids, 30)
        assert [
            record.getMessage() for record in caplog.records if record.name == "chat_app.inference.gpt2.cuda_graphs"
        ] == ["steps cannot be recorded on this device; replies take longer"]
        assert forward._rows._recorded == {}

    def test_rows_and_pages_that_only_fill_up_do_nothing(self, taped):
        forward = taped(model_of())
        lengths = (20, 35, 50)
        memories = read(forward, [ids_of(length, length) for length in lengths])
        clean = [memory.copy(length - 1) for memory, length in zip(memories, lengths, strict=True)]
        before = forward.step([Piece([3], None, memory, True) for memory in memories])
        with torch.inference_mode():
            forward._pool.numbers[:, 0] = torch.nan
        after = forward.step([Piece([3], None, memory, True) for memory in clean])
        assert recorder_of(forward).shapes == [(4, 4)]
        assert all(torch.equal(row, other) for row, other in zip(before, after, strict=True))


def test_after_a_failure_everything_is_as_it_was(paged, monkeypatch):
    model = model_of()
    forward = paged(model)
    prompts = [ids_of(seed, 16) for seed in range(3)]
    memories = read(forward, prompts)
    pieces = [Piece(ids[-1:], None, memory, True) for ids, memory in zip(prompts, memories, strict=True)]
    pieces.append(Piece(ids_of(9, 40), None, forward.new_memory(), True))
    block = forward._weights.blocks[-1]

    def broken(*arguments: Any) -> Any:
        raise torch.OutOfMemoryError

    with monkeypatch.context() as patch:
        patch.setattr(type(block.fc_in), "__call__", broken)
        with pytest.raises(torch.OutOfMemoryError):
            forward.step(pieces)
    with monkeypatch.context() as patch:
        patch.setattr(forward._pool, "take", broken)
        with pytest.raises(torch.OutOfMemoryError):
            forward.step([*pieces, Piece([1], None, forward.new_memory(), True)])
    assert [piece.memory.length for piece in pieces] == [15, 15, 15, 0]
    for row, ids in zip(forward.step(pieces), [*prompts, ids_of(9, 40)], strict=True):
        torch.testing.assert_close(row, scores_of(model, ids, None), rtol=1e-4, atol=1e-4)


def test_what_is_let_go_of_is_gone_at_once(paged):
    forward = paged(model_of())
    memories = read(forward, [ids_of(1), ids_of(2)])
    for _ in range(3):
        forward.step([Piece([7], None, memory, True) for memory in memories])
    pool = weakref.ref(forward._pool)
    del forward, memories
    assert pool() is None, "a circle of references would keep a GPU's memory until somebody looks for circles"


class TestEngine:
    def test_many_at_once_get_what_each_gets_alone(self, paged):
        model = model_of()
        forward = paged(model)
        pool = forward._pool
        engine = Engine(forward, WINDOW, kept_tokens=200)
        requests = []
        for seed in range(20):
            ids = ids_of(0, 20) + ids_of(seed, 1 + 3 * seed)  # They begin alike.
            requests.append(request(ids, [4] * len(ids) if seed % 3 == 1 else None, 6 if seed % 3 == 1 else None))
        gate = Gate(engine)
        with ThreadPoolExecutor(len(requests)) as threads:
            results = [threads.submit(lambda one: list(engine.stream(one)), one) for one in requests]
            wait_until(engine, lambda: engine.requests == len(requests))
            gate.open.set()
            assert [one.result(LONG) for one in results] == [generate_tokens(model, one, WINDOW) for one in requests]
        assert max(len(step) for step in gate.steps) == 16
        assert engine.wait_idle(LONG)
        assert 0 < pool.used <= 2 * 200 // 16
        engine.close()
        assert pool.used == 0

    def test_results_never_depend_on_what_is_kept(self, paged):
        model = model_of()
        engine = Engine(paged(model), WINDOW, kept_tokens=60)
        generator = torch.Generator().manual_seed(1)
        base = ids_of(11, 60)
        for turn in range(12):
            cut = int(torch.randint(1, 60, (1,), generator=generator))
            one = request(base[:cut] + ids_of(turn, 5), new=6)
            assert list(engine.stream(one)) == generate_tokens(model, one, WINDOW)
        engine.close()

    def test_a_failing_step_ends_nobody_elses_reply(self, paged):
        model = model_of()
        forward = paged(model)
        engine = Engine(forward, WINDOW)
        gate = Gate(engine)
        failed: list[int] = []

        def fail_once(step: list[list[int]]) -> None:
            if len(step) == 4 and not failed:
                failed.append(1)
                raise torch.OutOfMemoryError

        gate.before = fail_once
        prompts = [ids_of(seed, 15 + seed) for seed in range(4)]
        with ThreadPoolExecutor(4) as threads:
            results = [threads.submit(lambda ids: list(engine.stream(request(ids))), ids) for ids in prompts]
            wait_until(engine, lambda: engine.requests == 4)
            gate.open.set()
            assert [one.result(LONG) for one in results] == [
                generate_tokens(model, request(ids), WINDOW) for ids in prompts
            ]
        assert failed
        engine.close()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU")
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-4), (torch.float16, 0.03)])
def test_on_a_gpu_steps_are_those_of_the_processor_recorded_or_not(dtype, most):
    def scores_by(forward: GPT2Forward) -> torch.Tensor:
        memories = read(forward, prompts)
        scores = []
        for at in range(40):  # Several lengths and numbers of rows; and the pages move while replies are written.
            scores += forward.step([Piece([3 + at], None, memory, True) for memory in memories[: 1 + at % 11]])
            if at == 20:
                others.append(read(forward, [ids_of(seed, 120) for seed in range(9)]))
        return torch.stack(scores)

    prompts = [ids_of(seed, 10 + 7 * seed) for seed in range(11)]
    others: list[list[Memory]] = []
    wanted = scores_by(GPT2Forward(model_of(), WINDOW))
    model = model_of().to("cuda", dtype)
    for recorded in (True, False):
        forward = GPT2Forward(model, WINDOW, recorded=recorded)
        scores = scores_by(forward)
        assert scores.device.type == "cpu"
        assert float((scores - wanted).norm() / wanted.norm()) < most
        assert forward._pool.growths > 2
        assert bool(forward._rows._recorded) == recorded, "nothing broke off"
