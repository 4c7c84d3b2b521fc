"""The commands that train: train, tokenizer, pretrain; and runs, which lists the training runs."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from chat_app.cli.arguments import add_reading, add_settings, build_settings, build_source, read_paths
from chat_app.cli.lazy_imports import bring_libraries
from chat_app.config.fields import from_mapping, to_mapping
from chat_app.config.paths import Paths
from chat_app.config.training import TrainConfig
from chat_app.errors import ChatAppError, RunError, SettingError
from chat_app.runs.run import Run, find_run, list_runs
from chat_app.training import distributed
from chat_app.training.sample_prompts import parse_questions


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


def _train(options: argparse.Namespace) -> None:
    paths = Paths.default()
    _short_flags(options)
    distributed.join_process_group(options.device or "")
    try:
        run = Run(Path(distributed.broadcast_from_main(lambda: str(_choose_run(options, paths).folder))))
        _run_to_end(run, paths, options)
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
    if options.config:
        _take_recipe(options)
    if options.resume:
        run = _find_resumed_run(options, paths)
    elif options.run and (Path(options.run) / "config.json").exists():
        run = Run(Path(options.run).resolve())
    elif options.data or options.hub:
        run = _prepare_new_run(options, paths)
    else:
        raise SettingError("data", "There is nothing to learn from.", advice="Give --data FILE, or --resume RUN.")
    return run


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
    return run


def _find_resumed_run(options: argparse.Namespace, paths: Paths) -> Run:
    """The run to resume. Only its length can be changed."""
    folder = Path(options.resume)
    run = Run(folder.resolve()) if (folder / "config.json").is_file() else find_run(paths.runs, options.resume)
    state = run.state()
    if state.status in ("running", "stopping"):
        raise RunError(f"The run {run.id} is being trained.", advice="Stop it first.")
    changes = {
        name: getattr(options, name)
        for name in ("epochs", "max_steps", "patience")
        if getattr(options, name, None) is not None
    }
    if state.status == "done" and not changes:
        raise RunError(f"The run {run.id} is done.", advice="Give more --epochs to go on.")
    if changes:
        run.change(**to_mapping(from_mapping(TrainConfig, {**to_mapping(run.config()), **changes})))
    return run


def _run_to_end(run: Run, paths: Paths, options: argparse.Namespace) -> None:
    """Train, and save a checkpoint on Ctrl-C, on a termination signal, and when the parent process has ended."""
    from chat_app.training.pipeline import lower_priority, train_run

    gone = threading.Event()
    if getattr(options, "supervised", False):
        lower_priority()
        threading.Thread(target=_watch_parent, args=(gone,), daemon=True).start()
    if threading.current_thread() is threading.main_thread():  # Only there can signals be caught.
        signal.signal(signal.SIGTERM, lambda *_: gone.set())
        presses = iter((run.request_stop,))
        signal.signal(signal.SIGINT, lambda *_: next(presses, _give_up)())
    log_line(f"Run {run.id} in {run.folder}")
    bring_libraries()
    from chat_app.cli.training_progress import TrainingProgressBar

    callbacks = [TrainingProgressBar(run)] if distributed.is_main_process() else []
    train_run(run, paths, should_stop=gone.is_set, callbacks=callbacks, log=log_line)
    if not distributed.is_main_process():
        return
    state = run.state()
    log_line(f"{state.status}: {state.reason}")
    if options.out:
        out = Path(options.out)
        shutil.copytree(run.model, out, dirs_exist_ok=True)
    log_line(f"Talk to it: python -m chat_app chat --model {options.out or run.id}")
    print(options.out or run.model)


def _watch_parent(gone: threading.Event) -> None:
    """Set the event when standard input ends: the supervisor holds its other end and never writes."""
    try:
        # Not through sys.stdin: a thread that waits in it would end the interpreter with an error.
        while os.read(0, 1):
            pass
    except (OSError, ValueError):
        pass
    gone.set()


def _give_up() -> None:
    raise KeyboardInterrupt


def _tokenizer(options: argparse.Namespace) -> None:
    from chat_app.training.pretraining import train_tokenizer

    size = train_tokenizer(read_paths(options.data), options.vocab_size, Path(options.out))
    log_line(f"A tokenizer of {size} tokens in {options.out}")


def _pretrain(options: argparse.Namespace) -> None:
    from chat_app.data.source import DataSource
    from chat_app.data.text_corpus import is_plain_text
    from chat_app.training.pretraining import PRETRAIN_DEFAULTS
    from chat_app.training.pretraining_plan import prepare_from_scratch

    paths = Paths.default()
    config = build_settings(options, TrainConfig, PRETRAIN_DEFAULTS)
    files = read_paths(options.data)
    texts = [file for file in files if is_plain_text(file)]
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
    _run_to_end(run, paths, options)


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
