"""Predicting memory and time: the formula against what PyTorch keeps, plans that fit, a rehearsal without traces."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from chat_app.config.paths import Paths
from chat_app.config.training import TrainConfig
from chat_app.errors import TrainingError
from chat_app.runs.run import Run
from chat_app.system.progress import StopRequest
from chat_app.tokenization.encoder import Example
from chat_app.training import autotune
from chat_app.training import dry_run as dry_run_module
from chat_app.training.collator import PackingCollator
from chat_app.training.loss import precision_context, sum_loss
from chat_app.training.memory_estimate import (
    BatchShape,
    ModelShape,
    find_heaviest_batch,
    index_of_first_fit,
    list_plans,
    predict_memory,
)
from chat_app.training.pipeline import train_run
from chat_app.training.step_time import fit_step_time, simulate_steps
from tests.training.test_trainer import same, weights

pytestmark = pytest.mark.slow_file

GB = 10**9
SIZES = {
    "gpt2": ModelShape(124_439_808, 12, 768, 3072, 12, 50257),
    "gpt2-medium": ModelShape(354_823_168, 24, 1024, 4096, 16, 50257),
    "gpt2-large": ModelShape(774_030_080, 36, 1280, 5120, 20, 50257),
    "gpt2-xl": ModelShape(1_557_611_200, 48, 1600, 6400, 25, 50257),
}


def row(length: int) -> Example:
    return Example([1] * length, None, [1] * length)


def remembered(shape: ModelShape, load: BatchShape, precision: str, checkpointing: bool = False) -> int:
    """Bytes that PyTorch keeps for the way back of one batch, weights left out."""
    config = GPT2Config(
        vocab_size=shape.vocabulary,
        n_embd=shape.width,
        n_layer=shape.layers,
        n_head=shape.heads,
        n_positions=load.length,
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config).train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    batch = PackingCollator(0)([row(load.length)] * load.rows)
    own = {one.untyped_storage().data_ptr() for one in [*model.parameters(), *model.buffers()]}
    sizes: dict[int, int] = {}
    kept = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own:
            sizes[place] = tensor.untyped_storage().nbytes()
            kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), precision_context("cpu", precision):
        sum_loss(model, batch)
    return sum(sizes.values())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_formula_counts_what_a_layer_keeps(precision: str) -> None:
    """The difference between four layers and two, which leaves out everything around them."""
    few = ModelShape(0, 2, 64, 256, 4, 300, dropout=0.0)
    many = replace(few, layers=4)
    load = BatchShape(2, 256, 8)
    measured = remembered(many, load, precision) - remembered(few, load, precision)
    number = 4 if precision == "float32" else 2
    copies = 2 * 2 * 12 * 64 * 64 if number == 2 else 0  # Of the weights of two layers.
    one, two = (predict_memory(shape, load, "full", precision=precision).activations for shape in (few, many))
    assert measured - copies == pytest.approx(two - one, rel=0.02)


def test_the_formula_counts_what_recomputing_keeps() -> None:
    few = ModelShape(0, 2, 64, 256, 4, 300, dropout=0.0)
    many, load = replace(few, layers=4), BatchShape(2, 256, 8)
    measured = remembered(many, load, "float32", True) - remembered(few, load, "float32", True)
    one, two = (
        predict_memory(shape, load, "full", precision="float32", checkpointing=True).activations
        for shape in (few, many)
    )
    assert measured == pytest.approx(two - one, rel=0.02)


@pytest.mark.parametrize("name", SIZES)
def test_every_gpt2_learns_in_four_gigabytes(name: str) -> None:
    """A full window of 1024 tokens, the smallest of them in full, the others by LoRA on 8 bits."""
    method = "full" if name == "gpt2" else "lora-8bit"
    shape = replace(SIZES[name], new_tokens=4, vocabulary=50261)
    config = TrainConfig(method=method)
    made = list_plans(shape, [row(1024)] * 8, config, precision="bfloat16", device="cuda", free=4 * GB)
    plan = made[index_of_first_fit(made)]
    assert plan.fits
    assert plan.batch_size * plan.accumulation == 8
    assert plan.method == method


@pytest.mark.parametrize(
    ("name", "free", "method"),
    [("gpt2", 4, "full"), ("gpt2", 24, "full"), ("gpt2-medium", 4, "lora"), ("gpt2-xl", 4, "lora-8bit")],
)
def test_the_method_is_chosen_by_the_memory(name: str, free: int, method: str) -> None:
    made = list_plans(SIZES[name], [row(512)] * 8, TrainConfig(), precision="bfloat16", device="cuda", free=free * GB)
    assert made[index_of_first_fit(made)].method == method


def test_where_there_is_room_nothing_is_changed() -> None:
    config = TrainConfig(batch_size=6, accumulation=2)
    made = list_plans(SIZES["gpt2"], [row(100)] * 9, config, precision="float32", device="cpu", free=64 * GB)
    plan = made[index_of_first_fit(made)]
    assert (plan.method, plan.batch_size, plan.accumulation, plan.checkpointing) == ("full", 6, 2, False)
    assert {one.batch_size * one.accumulation for one in made} == {12}
    nowhere = list_plans(SIZES["gpt2"], [row(100)] * 9, config, precision="float32", device="cpu", free=1000)
    least = index_of_first_fit(nowhere)
    assert nowhere[least].predicted_bytes == min(one.predicted_bytes for one in nowhere)


def test_the_heaviest_batch_is_that_of_the_longest_rows() -> None:
    assert find_heaviest_batch([row(10), row(100), row(90), row(10)], 3) == BatchShape(2, 104, 99 + 89 + 9)


def test_one_slow_step_bends_no_line() -> None:
    work = [float(number) for number in range(1, 12)]
    seconds = [0.5 + 2.0 * one for one in work]
    seconds[4] = 90.0
    pace = fit_step_time(work, seconds)
    assert pace.fixed == pytest.approx(0.5)
    assert pace.a_unit == pytest.approx(2.0)
    assert fit_step_time([1.0, 1.0, 1.0], [2.0, 3.0, 2.0]).seconds(5.0) == 2.0


def test_usual_steps_are_all_rows_once() -> None:
    rows = [row(length) for length in range(2, 23)]
    steps = simulate_steps(rows, 4)
    assert sorted(len(one.ids) for step in steps for one in step) == list(range(2, 23))
    assert [len(step) for step in steps] == [4, 4, 4, 4, 4, 1]


@pytest.mark.parametrize("changes", [{"dropout": 0.1}, {"method": "lora", "lora_dropout": 0.1}, {"accumulation": 2}])
def test_a_rehearsal_leaves_no_trace(prepare: Callable[..., Run], paths: Paths, changes: dict[str, Any]) -> None:
    plain, rehearsed = prepare("plain", rehearse="off", **changes), prepare("rehearsed", rehearse="on", **changes)
    for run in (plain, rehearsed):
        train_run(run, paths)
    assert same(weights(plain), weights(rehearsed))
    times = ("time", "tokens_per_second")
    first, second = (
        [{name: value for name, value in line.items() if name not in times} for line in run.metrics()]
        for run in (plain, rehearsed)
    )
    assert first == second
    assert not (rehearsed.folder / "rehearsal").exists()
    plan = json.loads((rehearsed.folder / "config.json").read_text())["about"]["plan"]
    assert plan["sentence"].startswith("about ")
    assert " of " in plan["sentence"]
    assert plan["rehearsal"]["seconds"] > 0
    assert plan["rehearsal"]["steps"] >= 5
    assert "rehearsal" not in plain.about()["plan"]


def test_slow_steps_are_tried_a_few_times_only_and_the_checkpoint_still(
    prepare: Callable[..., Run], paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dry_run_module, "LONG_ENOUGH", 0.0)
    found: list[Any] = []
    tried = dry_run_module.dry_run

    def noted(*arguments: Any, **named: Any) -> Any:
        found.append(tried(*arguments, **named))
        return found[-1]

    monkeypatch.setattr(autotune, "dry_run", noted)
    train_run(prepare("slow", rehearse="on", epochs=30), paths)
    assert found[0].steps == dry_run_module.FEWEST
    assert found[0].checkpoint_seconds > 0


def test_a_stop_ends_the_rehearsal(prepare: Callable[..., Run], paths: Paths) -> None:
    run = prepare("a", rehearse="on", epochs=50)
    seen: list[bool] = []

    def should_stop() -> bool:
        if "Rehearsing" in json.loads((run.folder / "state.json").read_text())["reason"]:
            seen.append(True)
        return bool(seen)

    train_run(run, paths, stop=StopRequest(should_stop))
    assert "rehearsal" not in run.about()["plan"]
    assert run.state().status == "interrupted"
    assert run.state().step == 1


def test_a_plan_that_does_not_fit_is_followed_by_a_smaller_one(
    prepare: Callable[..., Run], paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepare("a", rehearse="on")
    really, tried = autotune.dry_run, []

    def short_of_memory(run: Run, config: TrainConfig, *others: Any) -> Any:
        tried.append((config.batch_size, config.accumulation))
        if len(tried) < 3:
            raise torch.OutOfMemoryError("out of memory")
        return really(run, config, *others)

    monkeypatch.setattr(autotune, "dry_run", short_of_memory)
    lines: list[str] = []
    train_run(run, paths, log=lines.append)
    assert tried == [(4, 1), (2, 2), (1, 4)]
    assert run.about()["plan"]["batch_size"] == 1
    assert sum("more memory than there is" in line for line in lines) == 2
    assert run.state().status == "done"


def test_no_plan_that_fits_is_a_sentence(
    prepare: Callable[..., Run], paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepare("a", rehearse="on", method="full")

    def never(*arguments: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(autotune, "dry_run", never)
    with pytest.raises(TrainingError, match="memory is not enough"):
        train_run(run, paths)
    assert "smaller model" in run.state().reason


def test_long_and_short_steps_are_interleaved() -> None:
    assert dry_run_module.interleave([1, 2, 3, 4, 5]) == [5, 2, 3, 4, 1]
    assert dry_run_module.interleave([1, 2, 3, 4]) == [4, 2, 2, 4]
    assert dry_run_module.interleave([]) == []
