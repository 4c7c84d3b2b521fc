"""Decoding with a paged KV cache and captured CUDA graphs: against transformers, with a tape in place of a GPU."""

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
from chat_app.inference.gpt2.model_runner import GPT2ModelRunner
from chat_app.inference.kv_cache import KVCache
from chat_app.inference.model_runner import Chunk
from tests.inference.gpt2.test_model_runner import VARIANTS, logits_of, model_of
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


class TapeCapture:
    """In place of CudaGraphCapture: as a graph, a tape knows shapes, addresses and numbers of the moment of
    recording."""

    def __init__(self, device: torch.device):
        self.shapes: list[tuple[int, int]] = []  # Of the inputs that were captured.
        self.replays = 0
        self.fails: Callable[[], bool] = lambda: False

    def __call__(self, function: Any) -> Callable[[], None]:
        if self.fails():
            raise RuntimeError("this operation cannot be captured")
        rows, columns = function.args[0].shape
        self.shapes.append((rows, columns - 4))
        pool = function.func._pool
        address = pool.data.data_ptr()
        tape = _Tape()
        with tape:
            function()

        def replay() -> None:
            assert address == pool.data.data_ptr(), "the blocks have moved"
            self.replays += 1
            tape.replay()

        return replay


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr("chat_app.inference.kv_cache_paged.BLOCK_TOKENS", 16)


@pytest.fixture(params=["captured", "direct"])
def paged(request, monkeypatch) -> Callable[..., GPT2ModelRunner]:
    """Makes model runners with a paged KV cache, whose steps are captured on a tape or not at all."""
    monkeypatch.setattr("chat_app.inference.gpt2.model_runner.CudaGraphCapture", TapeCapture)
    return lambda model: GPT2ModelRunner(model, WINDOW, paged=True, cuda_graphs=request.param == "captured")


@pytest.fixture
def taped(monkeypatch) -> Callable[..., GPT2ModelRunner]:
    """As `paged`, always captured."""
    monkeypatch.setattr("chat_app.inference.gpt2.model_runner.CudaGraphCapture", TapeCapture)
    return lambda model, window=WINDOW: GPT2ModelRunner(model, window, paged=True, cuda_graphs=True)


def capture_of(runner: GPT2ModelRunner) -> TapeCapture:
    recorder: Any = runner._graph_runner._capture
    return recorder


def read(runner: GPT2ModelRunner, prompts: list[list[int]]) -> list[KVCache]:
    """KV caches of all but the last token of prompts."""
    kv_caches = [runner.new_kv_cache() for _ in prompts]
    runner.step([Chunk(ids[:-1], None, kv_cache, False) for ids, kv_cache in zip(prompts, kv_caches, strict=True)])
    return kv_caches


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_are_those_of_transformers(paged, variant, typed):
    model = model_of(**VARIANTS[variant])
    runner = paged(model)
    ids, types = ids_of(1, 50), [5] * 20 + [6] * 30 if typed else None
    kv_cache = runner.new_kv_cache()
    for start, end in ((0, 1), (1, 17), (17, 38), *((at, at + 1) for at in range(38, 50))):
        logits = runner.step([Chunk(ids[start:end], types and types[start:end], kv_cache, True)])
        assert (logits[0].shape, logits[0].dtype) == ((300,), torch.float32)
        torch.testing.assert_close(logits[0], logits_of(model, ids[:end], types and types[:end]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [1, 3, 8, 17])
def test_greedy_replies_are_those_of_transformers_in_any_company(paged, count):
    model = model_of()
    runner = paged(model)
    prompts = [ids_of(seed, 5 + 6 * seed) for seed in range(count)]
    kinds = [[seed] * len(ids) if seed % 2 else None for seed, ids in enumerate(prompts)]
    kv_caches = [runner.new_kv_cache() for _ in prompts]
    chunks = [Chunk(*one, True) for one in zip(prompts, kinds, kv_caches, strict=True)]
    replies: list[list[int]] = [[] for _ in prompts]
    for _ in range(6):
        for reply, logits in zip(replies, runner.step(chunks), strict=True):
            reply.append(int(logits.argmax()))
        chunks = [
            Chunk(reply[-1:], None if kind is None else kind[:1], kv_cache, True)
            for reply, kind, kv_cache in zip(replies, kinds, kv_caches, strict=True)
        ]
    for ids, kind, reply in zip(prompts, kinds, replies, strict=True):
        assert reply == expected(model, ids, 6, kind, kind[0] if kind else 0)
    del kv_caches, chunks
    assert runner._pool.used == 0


def test_prefill_and_decode_share_a_step(paged):
    model = model_of()
    runner = paged(model)
    prompts = [ids_of(seed, 30 + 7 * seed) for seed in range(4)]
    kv_caches = [runner.new_kv_cache() for _ in prompts]
    runner.step([Chunk(prompts[0][:-1], None, kv_caches[0], False), Chunk(prompts[2][:9], None, kv_caches[2], False)])
    logits = runner.step(
        [
            Chunk(prompts[1], None, kv_caches[1], True),
            Chunk(prompts[0][-1:], None, kv_caches[0], True),
            Chunk(prompts[2][9:20], None, kv_caches[2], False),
            Chunk(prompts[3][:1], None, kv_caches[3], False),  # Of one token, and not the last.
        ]
    )
    assert len(logits) == 2
    assert [kv_cache.length for kv_cache in kv_caches] == [30, 37, 20, 1]
    rest = runner.step([Chunk(prompts[at][kv_caches[at].length :], None, kv_caches[at], True) for at in (2, 3)])
    for row, at in ((logits[0], 1), (logits[1], 0), (rest[0], 2), (rest[1], 3)):
        torch.testing.assert_close(row, logits_of(model, prompts[at], None), rtol=1e-4, atol=1e-4)
    assert runner.step([Chunk([5, 6], None, kv_caches[0], False)]) == []


def test_logits_outlive_the_next_step(paged):
    runner = paged(model_of())
    kv_caches = read(runner, [ids_of(1), ids_of(2)])
    first = runner.step([Chunk([7], None, kv_cache, True) for kv_cache in kv_caches])
    kept = [row.clone() for row in first]
    runner.step([Chunk([9], None, kv_cache, True) for kv_cache in kv_caches])
    assert all(torch.equal(row, other) for row, other in zip(first, kept, strict=True))


def test_bfloat16_is_near(paged):
    model = model_of()
    ids = ids_of(3, 40)
    runner = paged(copy.deepcopy(model).to(torch.bfloat16))
    (kv_cache,) = read(runner, [ids[:31]])
    for at in range(30, 40):
        logits = runner.step([Chunk(ids[at : at + 1], None, kv_cache, True)])
    wanted = logits_of(model, ids, None)
    assert logits[0].dtype == torch.float32
    assert float((logits[0] - wanted).norm() / wanted.norm()) < 0.03


class TestCapture:
    def test_there_is_a_graph_for_some_batch_sizes_and_lengths(self, taped):
        runner = taped(model_of())
        kv_caches = read(runner, [ids_of(seed, 14) for seed in range(3)])
        for _ in range(60):  # From 13 tokens to 73: one block to five.
            runner.step([Chunk([3], None, kv_cache, True) for kv_cache in kv_caches])
        for count in (1, 2):
            runner.step([Chunk([3], None, kv_cache, True) for kv_cache in kv_caches[:count]])
        recorder = capture_of(runner)
        assert recorder.shapes == [(4, 1), (4, 2), (4, 4), (4, 8), (1, 8), (2, 8)]
        assert recorder.replays == 62 - len(recorder.shapes)

    def test_the_last_length_is_the_windows(self, taped):
        runner = taped(model_of(), 90)
        (kv_cache,) = read(runner, [ids_of(1, 86)])
        runner.step([Chunk([3], None, kv_cache, True)])
        assert capture_of(runner).shapes == [(1, 6)]

    def test_graphs_are_captured_again_after_the_pool_grew(self, taped):
        model = model_of()
        runner = taped(model)
        prompts = [ids_of(seed, 100) for seed in range(2)]
        kv_caches = read(runner, prompts)
        last = [Chunk(ids[-1:], None, kv_cache, True) for ids, kv_cache in zip(prompts, kv_caches, strict=True)]
        runner.step(last)
        others = read(runner, [ids_of(seed, 120) for seed in range(4)])
        assert runner._pool.reallocations > 1
        for ids in prompts:
            ids.append(8)
        logits = runner.step([Chunk([8], None, kv_cache, True) for kv_cache in kv_caches])
        again = runner.step([Chunk([9], None, kv_cache, True) for kv_cache in kv_caches])
        recorder = capture_of(runner)
        assert recorder.shapes == [(2, 8), (2, 8)]
        assert recorder.replays == 1
        for ids, row, then in zip(prompts, logits, again, strict=True):
            torch.testing.assert_close(row, logits_of(model, ids, None), rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(then, logits_of(model, [*ids, 9], None), rtol=1e-4, atol=1e-4)
        assert len(others) == 4

    def test_a_failed_capture_falls_back_to_direct_computation(self, taped, caplog):
        model = model_of()
        runner = taped(model)
        recorder = capture_of(runner)
        recorder.fails = lambda: len(recorder.shapes) == 1
        ids = ids_of(4, 14)
        (kv_cache,) = read(runner, [ids])
        written: list[int] = []
        with caplog.at_level(logging.WARNING):
            for _ in range(30):  # The second length breaks off.
                (logits,) = runner.step([Chunk([(ids + written)[-1]], None, kv_cache, True)])
                written.append(int(logits.argmax()))
        assert written == expected(model, ids, 30)
        assert [
            record.getMessage() for record in caplog.records if record.name == "chat_app.inference.gpt2.cuda_graphs"
        ] == ["decode steps cannot be captured on this device; replies take longer"]
        assert runner._graph_runner._graphs == {}

    def test_padding_rows_and_blocks_change_nothing(self, taped):
        runner = taped(model_of())
        lengths = (20, 35, 50)
        kv_caches = read(runner, [ids_of(length, length) for length in lengths])
        clean = [kv_cache.copy(length - 1) for kv_cache, length in zip(kv_caches, lengths, strict=True)]
        before = runner.step([Chunk([3], None, kv_cache, True) for kv_cache in kv_caches])
        with torch.inference_mode():
            runner._pool.data[:, 0] = torch.nan
        after = runner.step([Chunk([3], None, kv_cache, True) for kv_cache in clean])
        assert capture_of(runner).shapes == [(4, 4)]
        assert all(torch.equal(row, other) for row, other in zip(before, after, strict=True))


def test_after_a_failure_everything_is_as_it_was(paged, monkeypatch):
    model = model_of()
    runner = paged(model)
    prompts = [ids_of(seed, 16) for seed in range(3)]
    kv_caches = read(runner, prompts)
    chunks = [Chunk(ids[-1:], None, kv_cache, True) for ids, kv_cache in zip(prompts, kv_caches, strict=True)]
    chunks.append(Chunk(ids_of(9, 40), None, runner.new_kv_cache(), True))
    block = runner._weights.blocks[-1]

    def broken(*arguments: Any) -> Any:
        raise torch.OutOfMemoryError

    with monkeypatch.context() as patch:
        patch.setattr(type(block.fc_in), "__call__", broken)
        with pytest.raises(torch.OutOfMemoryError):
            runner.step(chunks)
    with monkeypatch.context() as patch:
        patch.setattr(runner._pool, "allocate", broken)
        with pytest.raises(torch.OutOfMemoryError):
            runner.step([*chunks, Chunk([1], None, runner.new_kv_cache(), True)])
    assert [chunk.kv_cache.length for chunk in chunks] == [15, 15, 15, 0]
    for row, ids in zip(runner.step(chunks), [*prompts, ids_of(9, 40)], strict=True):
        torch.testing.assert_close(row, logits_of(model, ids, None), rtol=1e-4, atol=1e-4)


def test_dropping_the_runner_frees_the_pool_at_once(paged):
    runner = paged(model_of())
    kv_caches = read(runner, [ids_of(1), ids_of(2)])
    for _ in range(3):
        runner.step([Chunk([7], None, kv_cache, True) for kv_cache in kv_caches])
    pool = weakref.ref(runner._pool)
    del runner, kv_caches
    assert pool() is None, "a circle of references would keep a GPU's memory until somebody looks for circles"


class TestEngine:
    def test_many_at_once_get_what_each_gets_alone(self, paged):
        model = model_of()
        runner = paged(model)
        pool = runner._pool
        engine = Engine(runner, WINDOW, prefix_cache_tokens=200)
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

    def test_results_do_not_depend_on_the_prefix_cache(self, paged):
        model = model_of()
        engine = Engine(paged(model), WINDOW, prefix_cache_tokens=60)
        generator = torch.Generator().manual_seed(1)
        base = ids_of(11, 60)
        for turn in range(12):
            cut = int(torch.randint(1, 60, (1,), generator=generator))
            one = request(base[:cut] + ids_of(turn, 5), new=6)
            assert list(engine.stream(one)) == generate_tokens(model, one, WINDOW)
        engine.close()

    def test_a_failed_batch_is_run_one_by_one(self, paged):
        model = model_of()
        runner = paged(model)
        engine = Engine(runner, WINDOW)
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
def test_gpu_steps_equal_those_of_the_processor_captured_or_not(dtype, most):
    def scores_by(runner: GPT2ModelRunner) -> torch.Tensor:
        kv_caches = read(runner, prompts)
        logits = []
        for at in range(40):  # Several lengths and numbers of rows; and the pages move while replies are written.
            logits += runner.step([Chunk([3 + at], None, kv_cache, True) for kv_cache in kv_caches[: 1 + at % 11]])
            if at == 20:
                others.append(read(runner, [ids_of(seed, 120) for seed in range(9)]))
        return torch.stack(logits)

    prompts = [ids_of(seed, 10 + 7 * seed) for seed in range(11)]
    others: list[list[KVCache]] = []
    wanted = scores_by(GPT2ModelRunner(model_of(), WINDOW))
    model = model_of().to("cuda", dtype)
    for cuda_graphs in (True, False):
        runner = GPT2ModelRunner(model, WINDOW, cuda_graphs=cuda_graphs)
        logits = scores_by(runner)
        assert logits.device.type == "cpu"
        assert float((logits - wanted).norm() / wanted.norm()) < most
        assert runner._pool.reallocations > 2
        assert bool(runner._graph_runner._graphs) == cuda_graphs, "nothing broke off"
