"""The dry run: a few real steps before a training. Does it fit into the memory, and how long will it take?

The steps are the Trainer's own, on the longest batches and on usual ones. Afterwards the weights are what they were, so
that a training with a dry run ends with the same weights as one without. One evaluation, one checkpoint and one model
are measured too and counted as often as they will come.
"""

from __future__ import annotations

import heapq
import math
import shutil
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from chat_app.config.training import TrainConfig
from chat_app.formatting import format_bytes, format_duration
from chat_app.models.transformers_internals import silence
from chat_app.runs.files import seal
from chat_app.runs.run import Run
from chat_app.system.memory import measure_free_memory, release_memory
from chat_app.system.progress import NEVER_STOP, ShouldStop, never_stop
from chat_app.tokenization.encoder import Example, example_lengths
from chat_app.training import distributed
from chat_app.training.callbacks import RunWriter, are_gradients_finite
from chat_app.training.collator import PackingCollator
from chat_app.training.inputs import TrainingInputs
from chat_app.training.loss import likelihood
from chat_app.training.memory_estimate import ModelShape
from chat_app.training.step_time import compute_work, fit_step_time, simulate_steps, split_into_batches
from chat_app.training.trainer import ChatTrainer, evaluation_steps, make_training_arguments, saving_steps, total_steps

T = TypeVar("T")
STEPS = 20
WARM_UP = 2
FEWEST = WARM_UP + 3
LONG_ENOUGH = 1.0  # Seconds of steps after which no more than the fewest are tried: the user waits.
LONG_ENOUGH_SHARE = 0.02  # Of a long training's time: three steps say little of an hour.
MOST_SECONDS = 20.0
SHORT = 100  # Steps; a shorter training is over before its dry run would be.
_TESTED_ROWS = 64
_LOOK_EVERY = 0.02


@dataclass(frozen=True)
class DryRunResult:
    """What was measured, and what follows from it.

    Attributes:
        steps: how many were tried. seconds_a_step: what a step will take on average.
        seconds: to the end of the training, if it does not stop early.
        peak_bytes: the most memory that was used. memory_bytes: how much there is.
        evaluation_seconds: of one evaluation with its replies. model_seconds: of writing a model.
        checkpoint_seconds: of writing a checkpoint.
    """

    steps: int
    seconds_a_step: float
    seconds: float
    peak_bytes: int
    memory_bytes: int
    evaluation_seconds: float
    model_seconds: float
    checkpoint_seconds: float

    def sentence(self) -> str:
        """Time and memory for a person: "about 6 minutes, 1.9 GB of 4.0 GB"."""
        memory = f"{format_bytes(self.peak_bytes)} of {format_bytes(self.memory_bytes)}"
        return f"about {format_duration(self.seconds)}, {memory}"


def is_dry_run_wanted(config: TrainConfig, rows: int) -> bool:
    """Whether to do a dry run: as asked, or if the training is long enough to be worth it; in a single process only."""
    if distributed.world_size() > 1:
        return False
    return config.rehearse == "on" or (config.rehearse != "off" and total_steps(config, rows) >= SHORT)


def dry_run(
    run: Run,
    config: TrainConfig,
    inputs: TrainingInputs,
    model: Any,
    shape: ModelShape,
    should_stop: ShouldStop = never_stop,
) -> DryRunResult | None:
    """Try some steps; the weights are put back. None where it was stopped before it could say anything.

    Args:
        config: with the method, the batches and the rate decided.
        model: as for `train`; it is on the inputs' device afterwards.
        shape: of the model, for the work in a batch.

    Raises:
        RuntimeError, MemoryError: of the machine; `is_out_of_memory` tells if that is what it was.
    """
    folder = run.folder / "rehearsal"
    all_steps = total_steps(config, len(inputs.train_rows))
    usual = simulate_steps(inputs.train_rows, config.batch_size * config.accumulation, config.seed)
    tried = _steps_to_try(inputs.train_rows, usual, config, min(STEPS, max(all_steps // 10, FEWEST)))
    clock = _Clock(should_stop, all_steps)
    weights = {name: one for name, one in model.named_parameters() if one.requires_grad}
    before = {name: one.detach().to("cpu", copy=True) for name, one in weights.items()}
    trainer = None
    try:
        with _watch_memory(inputs.device) as memory:
            trainer = _make_trainer(folder, config, inputs, model, tried)
            trainer.add_callback(clock)
            trainer.train()
            if len(clock.seconds) < FEWEST:
                return None
            evaluation, saving = _time_evaluation(run, folder, config, inputs, trainer)
    finally:
        if trainer is not None:  # Takes away what the Trainer has put around the model's forward.
            trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
            trainer.accelerator.free_memory()
            trainer = None
        with torch.no_grad():
            for name, one in model.named_parameters():
                if name in before:
                    one.copy_(before[name])
                    one.grad = None
        shutil.rmtree(folder, ignore_errors=True)
        release_memory()
    work = [compute_work(shape, split_into_batches(step, config.batch_size)) for step in tried]
    pace = fit_step_time(work[WARM_UP : len(clock.seconds)], clock.seconds[WARM_UP:])
    a_step = statistics.fmean(
        pace.seconds(compute_work(shape, split_into_batches(step, config.batch_size))) for step in usual
    )
    evaluations = math.ceil(all_steps / evaluation_steps(config, len(inputs.train_rows)))
    saves = math.ceil(all_steps / saving_steps(config, len(inputs.train_rows)))
    seconds = all_steps * a_step + (evaluations + 1) * evaluation + evaluations * saving + saves * clock.saving
    return DryRunResult(
        len(clock.seconds), a_step, seconds, memory.peak, memory.total, evaluation, saving, clock.saving
    )


def _steps_to_try(
    rows: Sequence[Example], usual: Sequence[list[Example]], config: TrainConfig, count: int
) -> list[list[Example]]:
    """The longest rows first, for the memory and to warm up; then usual steps, short and long ones in turn."""
    size = min(config.batch_size * config.accumulation, len(rows))
    lengths = example_lengths(rows)
    longest = [rows[index] for index in heapq.nlargest(size, range(len(rows)), key=lengths.__getitem__)]
    by_length = sorted(usual, key=lambda step: sum(len(row.ids) for row in step))
    by_length = [step for step in by_length if len(step) == size] or by_length
    wanted = count - WARM_UP
    short_to_long = [by_length[index * (len(by_length) - 1) // max(wanted - 1, 1)] for index in range(wanted)]
    return [longest] * WARM_UP + interleave(short_to_long)


def interleave(short_to_long: Sequence[T]) -> list[T]:
    """Alternate long and short items, so that the first few already span the lengths.

    Even positions run from long to short, odd ones from short to long:
    interleave([1, 2, 3, 4, 5]) == [5, 2, 3, 4, 1].
    """
    pairs = zip(short_to_long, reversed(short_to_long), strict=True)
    return [short if position % 2 else long for position, (short, long) in enumerate(pairs)]


class _Trainer(ChatTrainer):
    """The Trainer with chosen steps instead of a shuffled order."""

    steps: Sequence[list[Example]] = ()

    def get_train_dataloader(self) -> DataLoader[Any]:
        """A dataloader of the chosen batches."""
        batches = [batch for step in self.steps for batch in split_into_batches(step, self.config.batch_size)]
        return DataLoader(batches, batch_size=None, collate_fn=self.collator)  # type: ignore[arg-type]


def _make_trainer(
    folder: Path, config: TrainConfig, inputs: TrainingInputs, model: Any, steps: Sequence[list[Example]]
) -> _Trainer:
    # A rate of next to nothing: what is measured does not depend on it, and the weights stay sound.
    config = replace(config, learning_rate=1e-12, max_steps=len(steps), evaluate_every=0, save_every=len(steps))
    arguments = make_training_arguments(
        folder, config, replace(inputs, train_rows=[row for step in steps for row in step])
    )
    arguments.eval_strategy = "no"
    trainer = _Trainer(
        config, inputs, model, arguments, PackingCollator(pad_id=inputs.encoder.tokenizer.pad_token_id or 0)
    )
    trainer.steps = steps
    silence(trainer)
    return trainer


class _Clock(TrainerCallback):
    """Measures the time of each step, and of the checkpoint at the end."""

    def __init__(self, should_stop: ShouldStop, all_steps: int):
        self.should_stop, self.all_steps = should_stop, all_steps
        self.seconds: list[float] = []
        self.saving = 0.0
        self._last = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """The first step begins."""
        self._last = time.perf_counter()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """Look at the gradients as RunWriter does: that is a part of each step."""
        are_gradients_finite(named["model"])

    def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> Any:
        """Take the time of a step with everything around it; stop when that is enough."""
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self._last = now
        if self.should_stop():
            control.should_training_stop = True
        elif len(self.seconds) >= FEWEST and sum(self.seconds) > self._long_enough():
            control.should_save = control.should_training_stop = True  # The checkpoint is measured too.
        return control

    def _long_enough(self) -> float:
        """Seconds of steps after which no more are tried."""
        whole = statistics.median(self.seconds[WARM_UP:]) * self.all_steps
        return max(LONG_ENOUGH, min(whole * LONG_ENOUGH_SHARE, MOST_SECONDS))

    def on_save(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """Seal the checkpoint as RunWriter does, and take the time."""
        seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")
        self.saving = time.perf_counter() - self._last


def _time_evaluation(
    run: Run, folder: Path, config: TrainConfig, inputs: TrainingInputs, trainer: ChatTrainer
) -> tuple[float, float]:
    """Seconds of an evaluation with its replies, and of writing a model."""
    started = time.perf_counter()
    seconds = 0.0
    rows = inputs.valid_rows
    tested = [rows[index] for index in range(0, len(rows), max(len(rows) // _TESTED_ROWS, 1))]
    if tested:
        likelihood(trainer.causal, tested, trainer.collator, inputs.precision, trainer.evaluation_tokens())
        share = sum(example_lengths(inputs.valid_rows)) / sum(len(row.ids) for row in tested)
        seconds = (time.perf_counter() - started) * share
    started = time.perf_counter()
    inputs.samples(trainer.causal)
    seconds += time.perf_counter() - started
    writer = RunWriter(run, config, inputs, NEVER_STOP)
    writer.trainer = trainer
    started = time.perf_counter()
    writer.write_model(folder, "")
    return seconds, time.perf_counter() - started


@dataclass
class _MemoryUse:
    """Bytes: the most that were in use, and how many there are."""

    peak: int = 0
    total: int = 0


@contextmanager
def _watch_memory(device: str) -> Iterator[_MemoryUse]:
    """Watch the memory while a block runs: of the GPU by its own count, else of this process."""
    memory = _MemoryUse()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        memory.total = measure_free_memory(device) + torch.cuda.memory_reserved()
        try:
            yield memory
        finally:
            memory.peak = torch.cuda.max_memory_reserved()
        return
    process, ended = psutil.Process(), threading.Event()
    memory.peak = process.memory_info().rss
    memory.total = measure_free_memory(device) + memory.peak

    def sample() -> None:
        while not ended.wait(_LOOK_EVERY):
            memory.peak = max(memory.peak, process.memory_info().rss)

    watcher = threading.Thread(target=sample, name="memory of the rehearsal", daemon=True)
    watcher.start()
    try:
        yield memory
    finally:
        ended.set()
        watcher.join()
