"""The Trainer callback that writes the run folder: state, metrics, best model, checkpoints; and early stopping.

It also ends the training on request. It never touches the weights.
"""

from __future__ import annotations

import math
import time
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from chat_app.config.training import TrainConfig
from chat_app.errors import TrainingError
from chat_app.models.lora import save_adapter
from chat_app.models.lora_files import read_adapter
from chat_app.models.lora_merge import write_merged
from chat_app.models.saving import save_model_folder
from chat_app.runs.checkpoints import finish_checkpoint
from chat_app.runs.run import Run
from chat_app.system.progress import StopRequest
from chat_app.training import distributed
from chat_app.training.inputs import TrainingInputs

STATE_SECONDS = 1.0


class RunWriter(TrainerCallback):
    """Writes the run folder, keeps the best model, and stops early or on request."""

    def __init__(self, run: Run, config: TrainConfig, inputs: TrainingInputs, stop: StopRequest):
        self.run, self.config, self.inputs, self.stop = run, config, inputs, stop
        self.trainer: Any = None  # Set once the Trainer exists.
        self.best = self.newest_loss = math.inf
        self.evaluated_step = -1
        self.since_best = 0
        self.reason = ""
        self.status: Literal["done", "stopped", "interrupted"] = "done"
        self._written = 0.0
        self._measured = (time.monotonic(), 0)
        for line in run.metrics():  # The evaluations before a resume count for early stopping, too.
            if "valid_loss" in line and line.get("step", 0) > 0:
                self._judge(line["valid_loss"])

    def _judge(self, valid_loss: float) -> bool:
        """Count an evaluation for early stopping, and say whether it is the best so far."""
        if valid_loss < self.best:
            self.best, self.since_best = valid_loss, 0
            return True
        self.since_best += 1
        return False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **named: Any
    ) -> None:
        """Make up for the evaluation of the step at which a resumed run was stopped."""
        step = state.global_step
        seen = {line.get("step") for line in self.run.metrics() if "valid_loss" in line}
        if step and step % int(args.eval_steps or 1) == 0 and step not in seen and self.inputs.valid_rows:
            self.trainer.evaluate()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **named: Any
    ) -> TrainerControl:
        """Write the step into the state; save a checkpoint and stop when that was requested."""
        now = time.monotonic()
        if now - self._written >= STATE_SECONDS and distributed.is_main_process():
            self._written = now
            self.run.set_state("running", step=state.global_step, total_steps=state.max_steps)
        stopped = self.run.stop_requested()
        if distributed.any_process(stopped or self.stop.is_wanted()):
            self.status = "stopped" if stopped else "interrupted"
            self.reason = "Stopped by hand." if stopped else self.stop.describe()
            if distributed.is_main_process():
                self.run.set_state("stopping", self.reason, state.global_step)
            control.should_training_stop = True
            control.should_save = True
            control.should_evaluate = False  # A stop does not wait for it; it is made up for when the run goes on.
        return control

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **named: Any
    ) -> None:
        """Keep gradients that are not finite from the weights. (In float16 the scaler skips such steps itself.)"""
        if self.inputs.precision != "float16" and not are_gradients_finite(named["model"]):
            raise TrainingError(
                f"The gradient is no longer a number (step {state.global_step + 1}).",
                advice="Lower the learning rate and start again; the best model so far is kept.",
            )

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **named: Any,
    ) -> None:
        """Write a point of the training curve."""
        if not logs or "loss" not in logs:
            return
        now, tokens = time.monotonic(), self.trainer.tokens_seen
        seconds = max(now - self._measured[0], 1e-9)
        values = {
            "train_loss": logs["loss"],
            "learning_rate": logs.get("learning_rate"),
            "grad_norm": logs.get("grad_norm"),
            "tokens_per_second": (tokens - self._measured[1]) / seconds,
        }
        self._measured = (now, tokens)
        self.record(state, values)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **named: Any,
    ) -> TrainerControl:
        """Write a point of the validation curve, keep the model if it is the best, and stop early (`patience`)."""

        started = time.monotonic()
        model = self.trainer.causal
        if metrics:
            loss = metrics["eval_loss"]
            if not math.isfinite(loss):
                raise TrainingError(
                    "The validation loss is no longer a number.", advice="Lower the learning rate and start again."
                )
            self.newest_loss = loss
            self.record(state, {"valid_loss": loss, "valid_perplexity": metrics["eval_perplexity"]})
            if self._judge(loss) or self.inputs.keep_last:
                self.save_model(state)
        else:
            self.save_model(state)
        self.evaluated_step = state.global_step
        self.record_answers(state, model)
        self.record_samples(state, model)
        if self.config.patience and self.since_best >= self.config.patience and not control.should_training_stop:
            control.should_training_stop = True
            self.reason = f"It stopped getting better: the best evaluation was {self.since_best} evaluations ago."
        # Evaluating is not training: leave it out of the tokens a second.
        self._measured = (self._measured[0] + time.monotonic() - started, self._measured[1])
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **named: Any) -> None:
        """Seal the checkpoint: it counts once it is whole on the disk, and it holds no pickled settings."""
        # ChatTrainer has noted that it is being written.
        distributed.barrier()  # Each process writes a file into it.
        if not distributed.is_main_process():
            return
        folder = self.run.checkpoints / f"checkpoint-{state.global_step}"
        (folder / "training_args.bin").unlink(missing_ok=True)
        finish_checkpoint(self.run.checkpoints, state.global_step)

    def save_model(self, state: TrainerState) -> None:
        """Write the current model as the run's model."""
        if not distributed.is_main_process():
            return
        facts = {"step": state.global_step, "epoch": self._epoch(state), "valid_loss": self.newest_loss}
        self.write_model(self.run.folder, self.inputs.card(facts))

    def write_model(self, folder: Path, card: str) -> None:
        """Write the current model to `folder`/model; a LoRA adapter also to `folder`/adapter."""
        encoder, save_as = self.inputs.encoder, self.inputs.save_as
        if self.inputs.base is None:
            save_model_folder(folder / "model", self.trainer.causal, encoder, card, save_as)
            return
        save_adapter(folder / "adapter", self.trainer.model, encoder, card)
        adapter = read_adapter(folder / "adapter")
        write_merged(adapter, self.inputs.base, folder / "model", encoder, card, save_as)

    def record(self, state: TrainerState, values: dict[str, float | None]) -> None:
        """Append one line of metrics, with finite numbers only."""
        if not distributed.is_main_process():
            return
        line: dict[str, Any] = {"step": state.global_step, "epoch": round(self._epoch(state), 4), "time": time.time()}
        line.update(
            {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}
        )
        self.run.append("metrics.jsonl", line)
        for name in values.keys() & line.keys():
            self._board.add_scalar(name, line[name], state.global_step)

    @cached_property
    def _board(self) -> Any:
        """A TensorBoard writer for the same curves, imported late because that is slow."""
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self.run.folder / "tensorboard"), purge_step=self.trainer.state.global_step)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **named: Any) -> None:
        """Flush and close TensorBoard's file."""
        if distributed.is_main_process():
            self._board.close()

    def record_samples(self, state: TrainerState, model: Any) -> None:
        """Append the current model's replies to the fixed prompts."""
        if not distributed.is_main_process():
            return
        for sample in self.inputs.samples(model):
            self.run.append("samples.jsonl", {"step": state.global_step, "epoch": self._epoch(state), **sample})

    def record_answers(self, state: TrainerState, model: Any) -> None:
        """Write how many of the questions kept aside the current model answers right."""
        if self.inputs.answers is not None and distributed.is_main_process():
            right, asked = self.inputs.answers(model)
            self.record(state, {"answers_right": right, "answers_asked": asked})

    def _epoch(self, state: TrainerState) -> float:
        """How often each conversation has been read, in one wording or another."""
        return (state.epoch or 0.0) * self.inputs.readings


def are_gradients_finite(model: Any) -> bool:
    """Whether all gradients of a model are numbers, by their norm."""
    gradients = [one.grad for one in model.parameters() if one.grad is not None]
    return not gradients or math.isfinite(float(torch.nn.utils.get_total_norm(gradients)))
