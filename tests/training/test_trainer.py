"""The same result however a step is split and however often a run is stopped; and what happens when things go wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from chat_app.config.paths import Paths
from chat_app.config.training import TrainConfig
from chat_app.errors import RunError, TrainingError
from chat_app.runs.files import verify
from chat_app.runs.run import Run
from chat_app.training.autotune import learning_rate
from chat_app.training.pipeline import train_run
from chat_app.training.prepare import write_run
from tests.conftest import CONFIG, reading_of

pytestmark = pytest.mark.slow_file


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.model / "model.safetensors")


def last_checkpoint_weights(run: Run) -> dict[str, torch.Tensor]:
    checkpoint = run.newest_checkpoint()
    assert checkpoint is not None
    return load_file(checkpoint / "model.safetensors")


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class StopAfter(TrainerCallback):
    """Presses Stop after a step."""

    def __init__(self, run: Run, step: int):
        self.run, self.step = run, step

    def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        if state.global_step == self.step - 1:  # Seen after the next step.
            self.run.request_stop()


@pytest.mark.dependencies
def test_a_run_learns_and_leaves_everything(prepare: Callable[..., Run], paths: Paths) -> None:
    run = prepare("a", epochs=6)
    train_run(run, paths)
    state = run.state()
    assert (state.status, state.step) == ("done", state.total_steps)
    lines = run.metrics()
    losses = [line["valid_loss"] for line in lines if "valid_loss" in line]
    assert len(losses) == 7
    assert losses[-1] < 0.7 * losses[0]
    assert all(
        line["valid_perplexity"] == pytest.approx(2.718281828 ** line["valid_loss"], rel=1e-4)
        for line in lines
        if "valid_loss" in line
    )
    trained = [line for line in lines if "train_loss" in line]
    assert {"step", "epoch", "time", "learning_rate", "grad_norm", "tokens_per_second"} <= trained[-1].keys()
    samples = run.samples()
    assert {line["step"] for line in samples} == {0, 4, 8, 12, 16, 20, 24}
    assert len({line["prompt"] for line in samples}) == 4
    checkpoint = run.newest_checkpoint()
    assert checkpoint is not None
    assert not list(run.checkpoints.rglob("training_args.bin"))
    assert json.loads((run.model / "chat_format.json").read_text())["format"] == "roles"
    assert "conversations learned" in (run.model / "README.md").read_text()
    assert (run.data / "train.jsonl").exists()
    assert list((run.folder / "tensorboard").iterdir())


@pytest.mark.parametrize("changes", [{}, {"optimizer": "muon"}, {"accumulation": 2}, {"dropout": 0.1}])
@pytest.mark.parametrize("step", [3, 4])
def test_resuming_gives_the_weights_of_a_run_never_stopped(
    prepare: Callable[..., Run], paths: Paths, changes: dict[str, Any], step: int
) -> None:
    whole, stopped = prepare("whole", **changes), prepare("stopped", **changes)
    train_run(whole, paths)
    train_run(stopped, paths, callbacks=[StopAfter(stopped, step)])
    assert stopped.state().status == "stopped"
    assert stopped.state().step == step
    assert stopped.has_model
    train_run(stopped, paths)
    assert stopped.state().status == "done"
    assert same(last_checkpoint_weights(whole), last_checkpoint_weights(stopped))
    assert same(weights(whole), weights(stopped))
    steps = [line["step"] for line in stopped.metrics() if "valid_loss" in line]
    assert steps == [line["step"] for line in whole.metrics() if "valid_loss" in line]


def test_a_damaged_checkpoint_is_not_resumed(prepare: Callable[..., Run], paths: Paths) -> None:
    whole, damaged = prepare("whole"), prepare("damaged")
    train_run(whole, paths)
    train_run(damaged, paths, callbacks=[StopAfter(damaged, 6)])
    newest = damaged.newest_checkpoint()
    assert newest is not None
    assert newest.name == "checkpoint-6"
    with open(newest / "optimizer.pt", "r+b") as file:
        file.seek(200)
        file.write(b"\x00\x01\x02")
    assert not verify(newest)
    older = damaged.newest_checkpoint()
    assert older is not None
    assert older.name == "checkpoint-4"
    train_run(damaged, paths)
    assert same(last_checkpoint_weights(whole), last_checkpoint_weights(damaged))


@pytest.mark.dependencies
def test_accumulation_equals_one_big_batch(prepare: Callable[..., Run], paths: Paths) -> None:
    same_else: dict[str, Any] = {"epochs": 1, "dropout": 0.0}  # Dropout is drawn for each batch.
    big = prepare("big", batch_size=8, **same_else)
    small = prepare("small", batch_size=2, accumulation=4, **same_else)
    train_run(big, paths)
    train_run(small, paths)
    first, second = last_checkpoint_weights(big), last_checkpoint_weights(small)
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=1e-3, atol=1e-4)  # Steps are 3e-3 long.


def test_one_seed_one_result(prepare: Callable[..., Run], paths: Paths) -> None:
    first, second, other = prepare("a"), prepare("b"), prepare("c", seed=1)
    for run in (first, second, other):
        train_run(run, paths)
    assert same(weights(first), weights(second))
    assert not same(weights(first), weights(other))


def test_it_stops_when_it_no_longer_gets_better(prepare: Callable[..., Run], paths: Paths) -> None:
    run = prepare("a", epochs=200, learning_rate=0.03, patience=2, schedule="constant")
    train_run(run, paths)
    state = run.state()
    assert state.status == "done"
    assert "stopped getting better" in state.reason
    losses = [line["valid_loss"] for line in run.metrics() if "valid_loss" in line and line["step"] > 0]
    assert losses.index(min(losses)) == len(losses) - 3


def test_the_best_model_is_kept(prepare: Callable[..., Run], paths: Paths) -> None:
    run = prepare("a", epochs=40, learning_rate=0.03, patience=2, schedule="constant")
    train_run(run, paths)
    assert not same(weights(run), last_checkpoint_weights(run))


def test_numbers_that_break_end_the_run_with_a_sentence(prepare: Callable[..., Run], paths: Paths) -> None:
    run = prepare("a", learning_rate=0.1, clip=1000.0)

    class Break(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:
            if state.global_step == 5:
                named["model"].transformer.wte.weight.data[:] = float("nan")

    with pytest.raises(TrainingError, match="no longer a number"):
        train_run(run, paths, callbacks=[Break()])
    state = run.state()
    assert state.status == "failed"
    assert "learning rate" in state.reason
    assert torch.isfinite(weights(run)["transformer.wte.weight"]).all()
    train_run(run, paths)
    assert run.state().status == "done"


def test_a_gradient_that_breaks_never_reaches_the_weights(prepare: Callable[..., Run], paths: Paths) -> None:
    run = prepare("a")

    class Break(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:
            if state.global_step == 5:
                named["model"].transformer.wte.weight.register_hook(lambda gradient: gradient * float("inf"))

    with pytest.raises(TrainingError, match="gradient"):
        train_run(run, paths, callbacks=[Break()])
    assert torch.isfinite(weights(run)["transformer.wte.weight"]).all()


def test_a_full_disk_is_told_in_a_sentence(
    prepare: Callable[..., Run], paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepare("a")

    def full(*arguments: Any, **named: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("chat_app.training.callbacks.save_model_folder", full)
        with pytest.raises(TrainingError, match="disk is full"):
            train_run(run, paths)
    assert run.state().status == "failed"
    assert "resume" in run.state().reason
    train_run(run, paths)
    assert run.state().status == "done"


def test_too_little_space_is_known_beforehand(
    prepare: Callable[..., Run], paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepare("a")
    monkeypatch.setattr("chat_app.training.trainer.shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(RunError, match="disk is too full"):
        train_run(run, paths)
    assert run.state().status == "failed"


def test_too_little_memory_is_told_in_a_sentence(
    prepare: Callable[..., Run], paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepare("a")

    def too_much(*arguments: Any, **named: Any) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("chat_app.training.trainer.sum_loss", too_much)
    with pytest.raises(TrainingError, match="memory is not enough"):
        train_run(run, paths)
    assert "batch size" in run.state().reason


def test_the_rate_suits_the_model() -> None:
    assert learning_rate(TrainConfig(), 384) == pytest.approx(1e-3)
    assert learning_rate(TrainConfig(rate_factor=0.4), 768) == pytest.approx(0.4 * 1.25e-4)
    assert learning_rate(TrainConfig(learning_rate=0.01), 1600) == 0.01
    assert learning_rate(TrainConfig(), 32) == pytest.approx(1e-3)
    assert learning_rate(TrainConfig(method="lora-8bit"), 768) == pytest.approx(5 * 1.25e-4)


def test_two_processes_never_train_one_run(prepare: Callable[..., Run], paths: Paths) -> None:
    run = prepare("a")
    with run.lock(), pytest.raises(RunError, match="Another process"):
        train_run(Run(run.folder), paths)
    assert run.state().status == "queued"


def test_without_validation_the_last_model_is_kept(paths: Paths, make_folder: Callable[..., Path]) -> None:
    config = replace(CONFIG, model=str(make_folder("start")), valid_share=0.0)
    run = write_run(config, reading_of(6), paths, folder=paths.runs / "a")
    train_run(run, paths)
    assert run.state().status == "done"
    assert same(weights(run), last_checkpoint_weights(run))


@pytest.mark.parametrize("name", ["sep", "speaker", "pair", "eos", "roles-spaced"])
def test_every_format_can_be_taught(name: str, prepare: Callable[..., Run], paths: Paths) -> None:
    run = prepare("a", format=name, epochs=1)
    train_run(run, paths)
    assert run.state().status == "done"
    assert json.loads((run.model / "chat_format.json").read_text())["format"] == name
