"""The training loop: transformers' Trainer on packed batches, with checkpoints in a run folder and exact resume.

It is given a model, tokenized rows and a run, and knows no files of conversations, no chat and no page. It runs in a
process of its own: in a thread beside a model that answers, the same seed would not give the same weights.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from chat_app.config.training import TrainConfig
from chat_app.errors import DecisionNeededError, RunError, SettingError, TrainingError
from chat_app.formatting import format_bytes
from chat_app.models.transformers_internals import silence, use_one_gpu
from chat_app.runs.checkpoints import begin_checkpoint, read_step, remove_after
from chat_app.runs.run import Run
from chat_app.system.disk_errors import explain_disk_error
from chat_app.system.memory import is_out_of_memory
from chat_app.system.progress import NEVER_STOP, LogCallback, StopRequest, discard_line
from chat_app.tokenization.encoder import IGNORE_INDEX, Example, example_lengths
from chat_app.training import distributed
from chat_app.training.callbacks import RunWriter
from chat_app.training.collator import PackingCollator
from chat_app.training.distributed_sampler import make_dataloader
from chat_app.training.inputs import TrainingInputs
from chat_app.training.loss import TOKENS_A_BATCH, Likelihood, likelihood, precision_context, sum_loss
from chat_app.training.optimizers import MuonWithAdamW

PLOT_POINTS = 300


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the training loop ended."""

    status: Literal["done", "stopped", "interrupted"]
    reason: str
    step: int


class _Rows(Dataset[Example]):
    """Tokenized rows as a torch Dataset."""

    def __init__(self, rows: Sequence[Example]):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Example:
        return self.rows[index]


class ChatTrainer(Trainer):
    """The Trainer with a loss that is summed over the learned tokens of a whole step and divided by their number, so
    that gradient accumulation and the split into batches change nothing."""

    loss_is_scaled_for_ga = True

    def __init__(
        self,
        config: TrainConfig,
        inputs: TrainingInputs,
        model: Any,
        arguments: TrainingArguments,
        collator: PackingCollator,
    ):
        self.config, self.inputs, self.collator = config, inputs, collator
        self.tokens_seen = 0
        # The transformers model; a peft model wraps it where LoRA is trained.
        self.causal = model.get_base_model() if hasattr(model, "get_base_model") else model
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=_Rows(inputs.train_rows),
            eval_dataset=_Rows(inputs.valid_rows),
            data_collator=collator,
        )
        self.model_accepts_loss_kwargs = True  # Makes the Trainer count the learned tokens of a step.

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Muon, or one of the Trainer's."""
        if self.config.optimizer != "muon":
            return super().create_optimizer(model)
        assert self.model is not None
        self.optimizer = MuonWithAdamW(self.model, self.config.learning_rate, self.config.weight_decay)
        return self.optimizer

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """This batch's part of the mean loss of the step, in nats per learned token."""
        self.tokens_seen += int(inputs["tokens"])
        with precision_context(self.inputs.device, self.inputs.precision):
            if model is self.model:
                loss = sum_loss(self.causal, inputs, sparing=self.config.gradient_checkpointing == "on")
            else:
                loss = sum_loss(model, inputs, direct=False)
        items = num_items_in_batch if num_items_in_batch is not None else (inputs["labels"] != IGNORE_INDEX).sum()
        mean: Tensor = loss / items * self.accelerator.num_processes
        return mean

    def training_step(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Forward and backward of one batch. A loss that is not finite ends the training before a step is made."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not math.isfinite(float(loss)):
            raise TrainingError(
                f"The loss is no longer a number (step {self.state.global_step + 1}).",
                advice="Lower the learning rate and start again; the best model so far is kept.",
            )
        return loss

    def get_train_dataloader(self) -> DataLoader[Any]:
        """This process's share of the rows, in an order that the seed alone decides."""
        place, count = self.args.process_index, self.args.world_size
        return make_dataloader(
            _Rows(self.inputs.train_rows), self.collator, self.config.batch_size, self.config.seed, place, count
        )

    def _save_checkpoint(self, *arguments: Any, **named: Any) -> None:
        """Write a checkpoint, which is known as unfinished until RunWriter has sealed it."""
        if distributed.is_main_process():
            begin_checkpoint(Path(str(self.args.output_dir)), self.state.global_step)
        super()._save_checkpoint(*arguments, **named)

    def likelihood(self) -> Likelihood | None:
        """The likelihood of the validation rows, or None where there are none."""
        if not self.inputs.valid_rows:
            return None
        rows = self.inputs.valid_rows
        if self.args.world_size > 1:
            rows = rows[self.args.process_index :: self.args.world_size]
        mine = Likelihood(0.0, 0)
        if rows:
            mine = likelihood(self.causal, rows, self.collator, self.inputs.precision, self.evaluation_tokens())
        total, tokens = distributed.all_reduce_sum([mine.total, mine.tokens])
        return Likelihood(total, round(tokens))

    def evaluation_tokens(self) -> int:
        """How many tokens to evaluate at once: on a GPU an evaluation must not need more memory than a step."""
        if self.inputs.device == "cpu":
            return TOKENS_A_BATCH
        return min(TOKENS_A_BATCH, self.config.batch_size * max(example_lengths(self.inputs.train_rows)))

    def evaluate(self, *arguments: Any, **named: Any) -> dict[str, float]:
        """Validation loss and perplexity, passed to the callbacks as the Trainer does."""
        result = self.likelihood()
        metrics = {"eval_loss": result.loss, "eval_perplexity": result.perplexity} if result else {}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def train(
    run: Run,
    config: TrainConfig,
    inputs: TrainingInputs,
    model: Any,
    *,
    stop: StopRequest = NEVER_STOP,
    callbacks: Sequence[TrainerCallback] = (),
) -> Outcome:
    """Train `model`, resuming from the run's newest whole checkpoint if it has one.

    Args:
        run: locked by the caller.
        model: in float32 on the CPU; it is changed.
        stop: asked after each step; if a stop is wanted, the run ends as "interrupted".
        callbacks: of transformers, for progress bars and the like.

    Returns:
        How it ended; the best model lies in the run's model folder.

    Raises:
        TrainingError, RunError: with a sentence that says why and what to do.
    """
    checkpoint = choose_checkpoint(run)
    step = read_step(checkpoint) if checkpoint else -1
    distributed.barrier()  # Each process has looked at the checkpoints before the main process removes any.
    if distributed.is_main_process():
        _check_space(run, model)
        remove_after(run.checkpoints, step)
        run.forget_after(step)
    distributed.barrier()
    collator = PackingCollator(pad_id=inputs.encoder.tokenizer.pad_token_id or 0)
    arguments = make_training_arguments(run.checkpoints, config, inputs)
    trainer = ChatTrainer(config, inputs, model, arguments, collator)
    writer = RunWriter(run, config, inputs, stop)
    writer.trainer = trainer
    silence(trainer)
    for callback in (writer, *callbacks):
        trainer.add_callback(callback)
    try:
        if checkpoint is None:
            _record_start(trainer, writer)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if inputs.keep_last and writer.status == "done" and writer.evaluated_step != trainer.state.global_step:
            trainer.evaluate()
        if not run.has_model:
            writer.save_model(trainer.state)
    except (OSError, RuntimeError, MemoryError, SafetensorError) as error:
        raise _explain_error(error) from error
    return Outcome(writer.status, writer.reason or "All epochs are done.", trainer.state.global_step)


def _record_start(trainer: ChatTrainer, writer: RunWriter) -> None:
    """How the model does before it has learned anything: the first point of the plot, and the first replies."""
    before = trainer.likelihood()
    if before:
        writer.record(trainer.state, {"valid_loss": before.loss, "valid_perplexity": before.perplexity})
    writer.record_answers(trainer.state, trainer.causal)
    writer.record_samples(trainer.state, trainer.causal)


def steps_an_epoch(config: TrainConfig, rows: int) -> int:
    """Optimizer steps of one epoch, with gradient accumulation."""
    return math.ceil(rows / (config.batch_size * config.accumulation))


def total_steps(config: TrainConfig, rows: int) -> int:
    """Steps to the end, if nothing stops the training early."""
    return config.max_steps or math.ceil(steps_an_epoch(config, rows) * config.epochs)


def evaluation_steps(config: TrainConfig, rows: int) -> int:
    """Steps between two evaluations."""
    return min(config.evaluate_every or steps_an_epoch(config, rows), total_steps(config, rows))


def saving_steps(config: TrainConfig, rows: int) -> int:
    """Steps between two checkpoints."""
    return min(config.save_every or evaluation_steps(config, rows), total_steps(config, rows))


def make_training_arguments(folder: Path, config: TrainConfig, inputs: TrainingInputs) -> TrainingArguments:
    """The TrainingArguments of a TrainConfig; checkpoints go into `folder`."""
    rows = len(inputs.train_rows)
    steps = total_steps(config, rows)
    if config.optimizer == "adamw-8bit" and inputs.device != "cuda":
        raise SettingError("optimizer", "The 8-bit optimiser needs an NVIDIA GPU.", advice="Choose adamw.")
    share, rest = divmod(config.batch_size, distributed.world_size())
    if rest:
        raise SettingError(
            "batch_size",
            f"{config.batch_size} conversations cannot be shared by {distributed.world_size()} processes.",
            advice=f"Give a multiple of {distributed.world_size()}.",
        )
    named: dict[str, Any] = {"lr_scheduler_kwargs": {"power": 2.0}} if config.schedule == "polynomial" else {}
    constant = "constant_with_warmup"
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=share,
        ddp_find_unused_parameters=False,
        gradient_accumulation_steps=config.accumulation,
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        max_grad_norm=config.clip,
        warmup_steps=math.ceil(steps * config.warmup),
        lr_scheduler_type=constant if config.schedule == "constant" else config.schedule,
        optim="adamw_bnb_8bit" if config.optimizer == "adamw-8bit" else _adamw(inputs.device),
        bf16=inputs.precision == "bfloat16",
        fp16=inputs.precision == "float16",
        use_cpu=inputs.device == "cpu",
        seed=config.seed,
        eval_strategy="steps",
        eval_steps=evaluation_steps(config, rows),
        save_strategy="steps",
        save_steps=saving_steps(config, rows),
        save_total_limit=config.keep_checkpoints,
        logging_strategy="steps",
        logging_steps=config.log_every or max(1, steps // PLOT_POINTS),
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        report_to="none",
        **named,
    )
    use_one_gpu(arguments)  # Several are used by several processes; threads for them would be slower than one.
    return arguments


def _adamw(device: str) -> str:
    """The fused AdamW where PyTorch has it: faster, without temporary tensors."""
    return "adamw_torch_fused" if device in ("cpu", "cuda") else "adamw_torch"


def choose_checkpoint(run: Run, log: LogCallback = discard_line) -> Path | None:
    """The newest checkpoint that is whole, or None for a run that has not made any yet. What is wrong with newer ones
    is said.

    Raises:
        DecisionNeededError: there are checkpoints, and all of them are damaged.
    """
    found = run.find_checkpoints()
    if not found.damaged:
        return found.newest
    what = "; ".join(f"checkpoint {step:,}: {damage}" for step, damage in found.damaged.items())
    if found.newest is None:
        raise DecisionNeededError(
            "restart",
            f"No checkpoint of this run can be used ({what}). Nothing was deleted.",
            advice="Put the files back, or allow it to begin again from the first step (--restart).",
        )
    step = read_step(found.newest)
    again = max(found.damaged) - step
    sentence = f"It goes on from checkpoint {step:,}, and does {again:,} steps again: newer ones are damaged ({what})."
    log(sentence)
    if distributed.is_main_process():
        run.note(resumed_from=sentence)
    return found.newest


def _check_space(run: Run, model: Any) -> None:
    """Three checkpoints (what is learned and two moments in float32) and a model must fit on the disk."""
    learned = sum(one.numel() for one in model.parameters() if one.requires_grad)
    needed = 4 * (3 * 3 * learned + sum(one.numel() for one in model.parameters()))
    free = shutil.disk_usage(run.folder).free
    if free < needed:
        raise RunError(
            f"The disk is too full: this training needs {format_bytes(needed)} and {format_bytes(free)} are free.",
            advice="Free some space, or set CHAT_APP_HOME to a folder on a larger disk.",
        )


def _explain_error(error: BaseException) -> TrainingError:
    """The TrainingError that explains a fault of the machine."""
    explained = explain_disk_error(error)
    if explained is not None:
        return TrainingError(explained.what, where=explained.where, advice=explained.advice)
    if is_out_of_memory(error):
        return TrainingError(
            "The memory is not enough for this training.",
            advice="Halve the batch size and double the accumulation (the result is the same), or shorten the window.",
        )
    return TrainingError(f"The training broke off: {error}", advice="The log of the run has the details.")
