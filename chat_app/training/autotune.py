"""Memory autotuning: the first of several training plans that can be loaded and passes a dry run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

from chat_app.config.training import TrainConfig
from chat_app.errors import RunError, TrainingError
from chat_app.models.resolver import ModelFiles
from chat_app.runs.run import Run
from chat_app.system.memory import is_out_of_memory, measure_free_memory, release_memory
from chat_app.system.progress import LogCallback, ShouldStop, discard_line, never_stop
from chat_app.tokenization.encoder import Example
from chat_app.training import distributed
from chat_app.training.dry_run import DryRunResult, dry_run, is_dry_run_wanted
from chat_app.training.inputs import TrainingInputs
from chat_app.training.memory_estimate import (
    ModelShape,
    Plan,
    get_model_shape,
    index_of_first_fit,
    list_methods,
    list_plans,
    plan_facts,
)
from chat_app.training.methods import TrainableModel

_LORA_FACTOR = 5.0
_WORDS = {
    "full": "Learning every weight",
    "lora": "LoRA",
    "lora-8bit": "LoRA on 8-bit weights",
    "lora-4bit": "LoRA on 4-bit weights",
}


def resolve_plan(
    run: Run,
    config: TrainConfig,
    files: ModelFiles,
    rows: Sequence[Example],
    new_tokens: int,
    load: Callable[[TrainConfig], TrainableModel],
    make_inputs: Callable[[TrainConfig, TrainableModel], TrainingInputs],
    should_stop: ShouldStop = never_stop,
    log: LogCallback = discard_line,
) -> tuple[TrainConfig, TrainableModel]:
    """Load the model, with what the settings leave open decided: method, batch size, gradient accumulation, rate.

    A resumed run keeps the plan with which it began: another one would give other weights.

    Args:
        files: of the model to start from. rows: what is learned. new_tokens: how many rows the vocabulary gains.
        load, make_inputs, should_stop: as for `first_plan_that_fits`.

    Raises:
        TrainingError: the memory is not enough.
    """
    about = run.about()
    if "plan" in about and run.newest_checkpoint() is not None:
        settings = resolve_rate(read_plan(run, about["plan"]).apply_to(config), files.width)
        return settings, load(settings)
    shape = get_model_shape(files, new_tokens, config.dropout)
    made = list_plans(
        shape,
        rows,
        config,
        precision=about["precision"],
        device=about["device"],
        free=distributed.broadcast_from_main(lambda: measure_free_memory(about["device"])),
        allowed=list_methods(files, about["device"]),
        processes=distributed.world_size(),
    )
    return first_plan_that_fits(
        run,
        config,
        made[index_of_first_fit(made) :],
        shape,
        files.width,
        load,
        make_inputs,
        should_stop=should_stop,
        log=log,
    )


def read_plan(run: Run, facts: Mapping[str, Any]) -> Plan:
    """The plan with which a run began.

    Raises:
        RunError: a part of it is missing or of the wrong kind.
    """
    kinds = {"str": str, "int": int, "bool": bool}
    for one in fields(Plan):
        kind, value = kinds[str(one.type)], facts.get(one.name)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise RunError(
                f"The plan of the run {run.id} is damaged: '{one.name}' in config.json is {value!r}.",
                advice="Delete config.json to take its copy, or start a new run.",
            )
    return Plan(**{one.name: facts[one.name] for one in fields(Plan)})


def learning_rate(config: TrainConfig, width: int) -> float:
    """The learning rate that was asked for, or one that suits the model and the method.

    Wide models forget sooner: 1e-3 at a width of 384 falls with the third power of the width, to 1.25e-4 for GPT-2
    (768) and 5e-5 for GPT-2 medium (1024). Found by trial on the starter; at the other end it meets what is usual.
    An addition (LoRA) takes five times as much: on the starter 3 and 10 times end equally well, once less does not.
    """
    suited = 1e-3 * (384 / max(width, 384)) ** 3 * (_LORA_FACTOR if config.method.startswith("lora") else 1.0)
    return (config.learning_rate or suited) * config.rate_factor


def resolve_rate(config: TrainConfig, width: int) -> TrainConfig:
    """The settings with the learning rate decided."""
    return replace(config, learning_rate=learning_rate(config, width), rate_factor=1.0)


def first_plan_that_fits(
    run: Run,
    config: TrainConfig,
    made: Sequence[Plan],
    shape: ModelShape,
    width: int,
    load: Callable[[TrainConfig], TrainableModel],
    make_inputs: Callable[[TrainConfig, TrainableModel], TrainingInputs],
    *,
    should_stop: ShouldStop = never_stop,
    log: LogCallback = discard_line,
) -> tuple[TrainConfig, TrainableModel]:
    """The settings of the first plan that the memory allows, and its model. The plan is noted in the run.

    Args:
        made: plans, the best first. shape, width: of the model.
        load: the model for settings. make_inputs: what that is to learn.
        should_stop: True ends a dry run early.

    Raises:
        TrainingError: the memory is not enough for any of them.
    """
    least: int | None = None
    for plan in made:
        if least is not None and plan.predicted_bytes >= least:
            continue
        least = plan.predicted_bytes
        settings = resolve_rate(plan.apply_to(config), width)
        trainable: TrainableModel | None = None
        try:
            trainable = load(settings)
            result = _dry_run_if_wanted(run, settings, make_inputs(settings, trainable), trainable, shape, should_stop)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or distributed.world_size() > 1:
                raise
            log(f"{describe_plan(plan)}: this needs more memory than there is. Trying what needs less.")
        else:
            note = {**plan_facts(plan), "words": describe_plan(plan), "decided": time.time()}
            if result is not None:
                note |= {"rehearsal": asdict(result), "sentence": result.sentence()}
                log(f"{describe_plan(plan)}: {result.sentence()}.")
            if distributed.is_main_process():
                run.note(plan=note)
            return settings, trainable
        trainable = None  # Outside the handler: the exception keeps the frame, and with it the model, alive.
        release_memory()
    raise TrainingError(
        "The memory is not enough for this training.", advice="Shorten the window, or take a smaller model."
    )


def _dry_run_if_wanted(
    run: Run,
    config: TrainConfig,
    inputs: TrainingInputs,
    trainable: TrainableModel,
    shape: ModelShape,
    should_stop: ShouldStop,
) -> DryRunResult | None:
    if not is_dry_run_wanted(config, len(inputs.train_rows)):
        return None
    run.set_state("running", "Rehearsing a few steps.")
    return dry_run(run, config, inputs, trainable.model, shape, lambda: run.stop_requested() or should_stop())


def describe_plan(plan: Plan) -> str:
    """A plan in words, for the page and the log."""
    parts = f", {plan.accumulation} batches a step" if plan.accumulation > 1 else ""
    again = ", with recomputing" if plan.checkpointing else ""
    return f"{_WORDS[plan.method]}, {plan.batch_size} conversations at a time{parts}{again}"
