"""The commands that train: train, tokenizer, pretrain; and runs, which lists the training runs."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chat_app.cli.arguments import add_reading, add_settings, build_settings, build_source, read_paths
from chat_app.cli.lazy_imports import bring_libraries
from chat_app.cli.stop_signals import StopSignals
from chat_app.config.fields import from_mapping, to_mapping
from chat_app.config.paths import Paths
from chat_app.config.training import TrainConfig
from chat_app.errors import ChatAppError, RunError, SettingError
from chat_app.runs.run import PREPARE_AGAIN, UNPREPARED, Run, is_run_folder, list_runs, open_run
from chat_app.training import distributed
from chat_app.training.decisions import allow
from chat_app.training.sample_prompts import parse_questions

if TYPE_CHECKING:
    from chat_app.data.dataset import ConversationDataset
    from chat_app.data.source import DataSource

LENGTH = ("epochs", "max_steps", "patience")  # What of a run can be changed when it goes on.


def add_commands(commands: Any) -> None:
    """Tell the parser about this file's commands."""
    train = commands.add_parser("train", help="teach a model from files of conversations")
    train.add_argument("--data", nargs="+", metavar="FILE", help="conversations to learn")
    train.add_argument("--valid", metavar="FILE", help="conversations to test on; default: a share of the data")
    train.add_argument("--out", metavar="DIR", help="put the result into this folder too")
    train.add_argument("--resume", metavar="RUN", help="go on with a run that stopped: its id or its folder")
    train.add_argument("--run", metavar="DIR", help="the run folder to use; one that is prepared is trained")
    train.add_argument("--config", metavar="FILE.yaml", help="settings from a file, one `name: value` a line")
    train.add_argument("--lora", action="store_true", help="the same as --method lora")
    train.add_argument("--load-8bit", action="store_true", help="the same as --method lora-8bit")
    train.add_argument(
        "--question", action="append", default=[], metavar="TEXT", help="ask this at each evaluation; up to 12 of them"
    )
    train.add_argument(
        "--accept-changes", action="store_true", help="go on although the run's conversations have changed since then"
    )
    train.add_argument(
        "--restart", action="store_true", help="begin a run again from the first step: its checkpoints are deleted"
    )
    train.add_argument("--no-rehearse", action="store_true", help="the same as --rehearse off")
    train.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)
    add_settings(train, TrainConfig)
    add_reading(train)
    train.set_defaults(command=_train)

    tokenizer = commands.add_parser("tokenizer", help="learn a new tokenizer from files")
    tokenizer.add_argument("--data", nargs="+", required=True, metavar="FILE")
    tokenizer.add_argument("--vocab-size", type=int, required=True, metavar="N", help="how many tokens")
    tokenizer.add_argument("--out", required=True, metavar="DIR")
    tokenizer.set_defaults(command=_tokenizer)

    pretrain = commands.add_parser("pretrain", help="train a new model from nothing")
    pretrain.add_argument("--data", nargs="+", required=True, metavar="FILE")
    pretrain.add_argument("--valid", metavar="FILE", help="conversations to test on; default: a share of the data")
    pretrain.add_argument("--tokenizer", required=True, metavar="DIR", help="made by the command `tokenizer`")
    pretrain.add_argument("--out", required=True, metavar="DIR")
    pretrain.add_argument("--size", default="mini", help="nano, mini, compact, small (GPT-2) or medium (default: mini)")
    pretrain.add_argument("--run", metavar="DIR", help="the run folder to use")
    pretrain.add_argument("--config", metavar="FILE.yaml", help="settings from a file")
    add_settings(pretrain, TrainConfig, without=("model", "format"))
    pretrain.set_defaults(command=_pretrain)

    runs = commands.add_parser("runs", help="list the training runs")
    runs.add_argument("--json", action="store_true", help="as JSON, with everything that is known")
    runs.set_defaults(command=_runs)


def _train(options: argparse.Namespace) -> int:
    paths, signals = Paths.default().make_home(), StopSignals()
    _short_flags(options)
    with signals.caught():
        distributed.join_process_group(options.device or "")
        try:
            run = Run(Path(distributed.broadcast_from_main(lambda: str(_choose_run(options, paths).folder))))
            return _run_to_end(run, paths, options, signals)
        finally:
            distributed.leave_process_group()


def _short_flags(options: argparse.Namespace) -> None:
    """Turn short flags into the settings that they stand for. A contradiction is refused."""
    if options.lora or options.load_8bit:
        method = "lora-8bit" if options.load_8bit else "lora"
        if options.method not in (None, method):
            raise SettingError("method", f"--method {options.method} and the short flags disagree.")
        options.method = method
    if options.no_rehearse:
        options.rehearse = "off"


def _choose_run(options: argparse.Namespace, paths: Paths) -> Run:
    """The run that the flags name: one to resume, one that is prepared, or a new one."""
    from chat_app.cli.same_run import refuse_other_settings

    if options.config:
        _take_recipe(options)
    if options.resume:
        run = _find_resumed_run(options, paths)
    elif options.run and is_run_folder(Path(options.run)) and not Run(Path(options.run)).is_unprepared:
        run = Run(Path(options.run).resolve())
        refuse_other_settings(options, run)
        _allow_what_was_decided(options, run)
    elif options.data or options.hub:
        run = _prepare_new_run(options, paths)
    elif options.run and Run(Path(options.run)).is_unprepared:
        raise RunError(UNPREPARED, where=options.run, advice=PREPARE_AGAIN)
    else:
        raise SettingError("data", "There is nothing to learn from.", advice="Give --data FILE, or --resume RUN.")
    return run


def _allow_what_was_decided(options: argparse.Namespace, run: Run) -> None:
    if options.accept_changes:
        allow(run, "changed-data")
    if options.restart:
        allow(run, "restart")


def _take_recipe(options: argparse.Namespace) -> None:
    """Take the data from the file of --config where no flag names it."""
    from chat_app.training.recipe import read_besides, read_recipe

    _, files, valid = read_recipe(Path(options.config))
    besides = read_besides(Path(options.config))
    if options.data or options.hub:
        files, besides = [], {name: value for name, value in besides.items() if not name.startswith("hub")}
    for name, value in {"data": files, "valid": valid, **besides}.items():
        if not getattr(options, name):
            setattr(options, name, value)


def _prepare_new_run(options: argparse.Namespace, paths: Paths) -> Run:
    """Prepare a new run."""
    from chat_app.cli.progress import ConversationBar
    from chat_app.training.prepare import prepare_run

    config, wanted = build_settings(options, TrainConfig), build_source(options, options.data or [])
    _check_model(config, paths)
    questions = parse_questions(options.question)
    valid = read_paths([options.valid])[0] if options.valid else None
    folder = Path(options.run).resolve() if options.run else None
    with ConversationBar("reading") as reading:
        run, material = prepare_run(
            config, wanted, paths, valid=valid, questions=questions, folder=folder, progress=reading.update
        )
    log_line(f"{material.facts.conversations} conversations, {material.facts.problems} lines that cannot be used.")
    for note in material.facts.notes:
        log_line(f"  Note: {note}")
    for problem in material.list_problems(10):
        log_line(f"  {problem.sentence()}")
    _log_findings(material, config.model, wanted, paths)
    return run


def _check_model(config: TrainConfig, paths: Paths) -> None:
    """Find the model before hours go into preparing the conversations for it.

    Raises:
        ModelError: there is none. SettingError: it does not see so long a window.
    """
    from chat_app.models.resolver import find
    from chat_app.training.pipeline import check_window

    check_window(config, find(config.model, paths).window)


def _log_findings(material: ConversationDataset, model: str, source: DataSource, paths: Paths) -> None:
    """What the check of the data found, as the command `inspect` and the page tell it."""
    from chat_app.cli.data import describe_findings
    from chat_app.cli.progress import ConversationBar
    from chat_app.data.source import check_dataset

    try:
        with ConversationBar("checking", material.facts.conversations) as checking:
            check = check_dataset(material, paths, model, checking.update)
    except ChatAppError as error:  # The model cannot be had; the training says so, and the rest is known already.
        log_line(f"The conversations were not checked: {error.sentence()}")
        return
    for line in describe_findings(check, source.repairs):
        log_line(line)


def _find_resumed_run(options: argparse.Namespace, paths: Paths) -> Run:
    """The run to resume. Only its length can be changed."""
    from chat_app.cli.same_run import refuse_other_settings

    run = open_run(paths.runs, options.resume)
    state = run.state()
    if state.status in ("running", "stopping"):
        raise RunError(f"The run {run.id} is being trained.", advice="Stop it first.")
    refuse_other_settings(options, run, may_change=LENGTH)
    changes = {name: getattr(options, name) for name in LENGTH if getattr(options, name) is not None}
    if state.status == "done" and not (changes or options.restart):
        raise RunError(f"The run {run.id} is done.", advice="Give more --epochs to go on.")
    if changes:
        run.change(**to_mapping(from_mapping(TrainConfig, {**to_mapping(run.config()), **changes})))
    _allow_what_was_decided(options, run)
    return run


def _run_to_end(run: Run, paths: Paths, options: argparse.Namespace, signals: StopSignals) -> int:
    """Train, and save a checkpoint on Ctrl-C, when the process is asked to end, and when its parent has ended.

    Returns:
        The exit code.
    """
    from chat_app.training.pipeline import lower_priority, train_run

    supervised = getattr(options, "supervised", False)
    if supervised:
        lower_priority()
        threading.Thread(target=_watch_parent, args=(signals.parent_ended,), daemon=True).start()
    signals.begin_training(run)
    log_line(f"Run {run.id} in {run.folder}{_describe_batches(run)}")
    bring_libraries()
    from chat_app.cli.training_progress import TrainingProgressBar

    callbacks = [TrainingProgressBar(run)] if distributed.is_main_process() else []
    train_run(run, paths, stop=signals.request, callbacks=callbacks, log=log_line, only_queued=supervised)
    state = run.state()
    code = 0 if state.status == "done" else signals.exit_code
    if not distributed.is_main_process():
        return code
    log_line(f"{state.status}: {state.reason}")
    if state.status != "done":
        log_line(f"Go on with it: python -m chat_app train --resume {run.id}")
    if not run.has_model:
        log_line("It has no model yet: that comes with its first evaluation.")
        return code
    if options.out:
        shutil.copytree(run.model, Path(options.out), dirs_exist_ok=True)
    log_line(f"Talk to it: python -m chat_app chat --model {options.out or run.id}")
    print(options.out or run.model)
    return code


def _describe_batches(run: Run) -> str:
    """How the conversations of a step are shared, where several processes train."""
    processes, config = distributed.world_size(), run.config()
    if processes == 1:
        return ""
    size, share = config.batch_size * config.accumulation, config.batch_size // processes
    times = f", {config.accumulation} times" if config.accumulation > 1 else ""
    return f": {size} conversations in each step, {share} on each of {processes} processes{times}"


def _watch_parent(gone: threading.Event) -> None:
    """Set the event when standard input ends: the supervisor holds its other end and never writes."""
    try:
        # Not through sys.stdin: a thread that waits in it would end the interpreter with an error.
        while os.read(0, 1):
            pass
    except (OSError, ValueError):
        pass
    gone.set()


def _tokenizer(options: argparse.Namespace) -> None:
    from chat_app.training.pretraining import train_tokenizer

    size = train_tokenizer(read_paths(options.data), options.vocab_size, Path(options.out))
    log_line(f"A tokenizer of {size} tokens in {options.out}")


def _pretrain(options: argparse.Namespace) -> int:
    from chat_app.data.source import DataSource
    from chat_app.data.text_corpus import is_plain_text
    from chat_app.training.pretraining import PRETRAIN_DEFAULTS
    from chat_app.training.pretraining_plan import prepare_from_scratch

    paths, signals = Paths.default().make_home(), StopSignals()
    config = build_settings(options, TrainConfig, PRETRAIN_DEFAULTS)
    files = read_paths(options.data)
    texts = [file for file in files if is_plain_text(file)]
    with signals.caught():
        run = prepare_from_scratch(
            config,
            DataSource(tuple(file for file in files if file not in texts)),
            texts,
            paths,
            tokenizer=Path(options.tokenizer),
            size=options.size,
            valid=read_paths([options.valid])[0] if options.valid else None,
            folder=Path(options.run).resolve() if options.run else None,
        )
        return _run_to_end(run, paths, options, signals)


def _runs(options: argparse.Namespace) -> None:
    runs = list_runs(Paths.default().runs)
    if options.json:
        print(json.dumps([_facts(run) for run in runs], ensure_ascii=False))
        return
    if not runs:
        log_line("There are no runs yet. Make one: python -m chat_app train --data FILE")
    for run in runs:
        state = run.state()
        print(f"{run.id}  {state.status:<11}  step {state.step}/{state.total_steps}  {state.reason}")


def _facts(run: Run) -> dict[str, Any]:
    state = run.state()
    facts: dict[str, Any] = {"id": run.id, "status": state.status, "reason": state.reason, "step": state.step}
    try:
        facts.update(total_steps=state.total_steps, about=run.about(), folder=str(run.folder))
    except ChatAppError as error:
        facts["reason"] = error.sentence()
    return facts


def log_line(line: str) -> None:
    """Print a line on standard error, in the main process only."""
    if distributed.is_main_process():
        print(line, file=sys.stderr, flush=True)
