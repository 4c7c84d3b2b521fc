"""The engine's main cases with packed weights: with compiled kernels, and by torch alone with CHAT_APP_KERNELS=off."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from chat_app.config.loading import LoadConfig
from chat_app.config.paths import Paths
from chat_app.config.sampling import SamplingConfig
from chat_app.conversation import Conversation
from chat_app.errors import SettingError
from chat_app.inference.backend import reply
from chat_app.inference.engine import Engine
from chat_app.inference.gpt2.model_runner import GPT2ModelRunner
from chat_app.inference.loaded_model import load
from chat_app.kernels.packed_weights import get_kernel
from tests.inference.gpt2.test_model_runner import model_of
from tests.inference.test_engine import LONG, Gate, ids_of, request, wait_until


@pytest.fixture(params=["on", "off"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("CHAT_APP_KERNELS", request.param)
    return request.param


@pytest.fixture(params=["packed", "8-bit"])
def layout(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def model() -> Any:
    return model_of()


@pytest.fixture
def engine(kernels: str, layout: Any, model: Any) -> Iterator[Engine]:
    """It has a copy of the model; the compiled kernel is ready, or will never be."""
    if kernels == "on":
        get_kernel(layout == "8-bit").result()
    runner = GPT2ModelRunner(copy.deepcopy(model), 128, layout)
    assert runner._decoder is not None
    assert runner._decoder.is_ready == (kernels == "on")
    one = Engine(runner, 128)
    yield one
    one.close()


def assert_greedy(
    model: Any, ids: list[int], written: list[int], types: list[int] | None = None, next_type: int = 0
) -> None:
    """Each token has the largest logit of the model in float32, as far as weights and caches of fewer bits tell."""
    kinds = None if types is None else torch.tensor([types + [next_type] * len(written)])
    with torch.no_grad():
        logits = model(torch.tensor([ids + written]), token_type_ids=kinds).logits[0, len(ids) - 1 : -1]
    chosen = logits[torch.arange(len(written)), torch.tensor(written)]
    assert ((logits.amax(1) - chosen) / logits.std(1)).max() < 0.2  # A token by chance is 3 below.


@pytest.mark.parametrize("length", [1, 2, 20, 100])
def test_greedy_decoding(engine, model, length):
    ids = ids_of(length, length)
    written = list(engine.stream(request(ids)))
    assert len(written) == 12
    assert_greedy(model, ids, written)


def test_token_types(engine, model):
    ids, types = ids_of(3), [7] * 8 + [9] * 12
    assert_greedy(model, ids, list(engine.stream(request(ids, types, 7))), types, 7)


def test_a_long_prompt_is_read_in_pieces(engine, model, monkeypatch):
    monkeypatch.setattr(engine._runner, "prefill_chunk_size", 7)
    gate = Gate(engine)
    gate.open.set()
    ids, types = ids_of(4, 50), [5] * 50
    assert_greedy(model, ids, list(engine.stream(request(ids, types, 6))), types, 6)
    assert [len(one) for one in gate.inputs[:8]] == [7] * 7 + [1]


def test_the_end_mark_is_the_last_token(engine):
    ids = ids_of(5)
    full = list(engine.stream(request(ids)))
    first = full.index(full[4])
    assert list(engine.stream(replace(request(ids), end_ids=frozenset({full[4]})))) == full[: first + 1]


def test_the_window_ends_the_stream(engine):
    assert len(list(engine.stream(request(ids_of(6, 120), new=50)))) == 8


def test_several_streams_are_computed_together(engine, model, kernels):
    prompts = [ids_of(seed, 10 + seed) for seed in range(4)]
    alone = [list(engine.stream(request(ids))) for ids in prompts]
    gate = Gate(engine)
    with ThreadPoolExecutor(4) as pool:
        results = [pool.submit(lambda ids: list(engine.stream(request(ids))), ids) for ids in prompts]
        wait_until(engine, lambda: engine.requests == 4)
        gate.open.set()
        together = [one.result(LONG) for one in results]
    assert max(len(step) for step in gate.steps) == 4
    for ids, written in zip(prompts, together, strict=True):
        assert_greedy(model, ids, written)
    if kernels == "on":  # Torch rounds a row otherwise beside others.
        assert together == alone


def test_the_next_turn_computes_only_what_is_new(engine, model):
    ids = ids_of(8, 30)
    written = list(engine.stream(request(ids)))
    gate = Gate(engine)
    gate.open.set()
    longer = [*ids, *written, *ids_of(9, 6)]
    assert_greedy(model, longer, list(engine.stream(request(longer))))
    assert gate.inputs[0] == longer[30 + len(written) - 1 :]


def test_a_seeded_reply_is_the_same_again(engine):
    one = replace(request(ids_of(1)), sampling=SamplingConfig(temperature=1, seed=7))
    assert list(engine.stream(one)) == list(engine.stream(one))


@pytest.mark.parametrize("precision", ["bfloat16", "8-bit"])
def test_a_model_is_loaded_and_answers(kernels, precision, make_folder, tmp_path):
    loaded = load(str(make_folder(width=64)), LoadConfig(precision=precision, device="cpu"), Paths(tmp_path / "home"))
    try:
        assert loaded.precision == precision
        asked = Conversation.from_turns(["Hello, how are you?"])
        assert reply(loaded, asked, SamplingConfig(max_new_tokens=8, seed=1)).reply_tokens > 0
    finally:
        loaded.engine.close()


def test_an_unknown_value_of_the_switch_is_a_sentence(make_folder, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("CHAT_APP_KERNELS", "fast")
    with pytest.raises(SettingError, match=r"^CHAT_APP_KERNELS: 'fast' is no value .* on, off or guarded\.$"):
        load(str(make_folder(width=64)), LoadConfig(device="cpu"), Paths(tmp_path / "home"))
