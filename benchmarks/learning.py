"""Loss against time: our training beside those of two published projects, from the same weights on the same
conversations.

    python -m benchmarks.learning [--task shop|talk|chitchat] [--data FILE] [--model M] [--layout model|own]
        [--pad-to N] [--rate R] [--minutes M] [--threads N] [--lines N] [--cpu-time] [--quick] [--picture FILE.png]
        [--no-command]

Ours is the product's own training with every default, as `python -m chat_app train` does it; the others are restated
in `learning_seeds`. All learn the same part of the conversations and are measured on the rest. The loss is in bits per
byte of the replies of the validation part (each reply with its end mark, once, after the turns that the procedure
shows), computed in float32 by one function, and the clock stands still meanwhile.

The time of ours is everything from the file of conversations on: reading, laying out, loading the model, the rehearsal,
its own evaluations with their sample replies, checkpoints, models written. That of the others is laying out and
training steps alone. Imports count for none; how long the whole command takes, its start included, is said at the end.

Tasks. Neither may be something the starter knows, which was made from most of chitchat-dataset.
    shop      the starter learns the sample shop (sample_data/shop.tsv): the README's own example, and what a person
              does with a model that can talk: teach it what it cannot know.
    talk      the same shop in conversations of several exchanges (sample_data/shop.jsonl).
    chitchat  random weights of the starter's shape learn from the conversations of chitchat-dataset that neither the
              starter nor its tokenizer has seen (needs requirements-dev.txt). Here the same random start is what is the
              same for all.

Layout: by default all use the layout that the model knows, so that none has to learn new marks; `own` gives each of the
others its own. `--pad-to 256` is what GPTChat really does. `--rate` gives the others another learning rate, which tells
how much of a difference is the rate alone: theirs were chosen for GPT-2 with 124 million parameters and more.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.utils import logging

from benchmarks.learning_curves import Curve, Stopwatch, Watch, draw, ends, summary_of, table
from benchmarks.learning_seeds import PROCEDURES, Procedure, learn, tokenize_conversations
from chat_app.config.loading import LoadConfig
from chat_app.config.paths import STARTER, Paths
from chat_app.config.training import TrainConfig
from chat_app.conversation import Conversation
from chat_app.data.readers import read_file
from chat_app.data.source import DataSource
from chat_app.models.loading import fit_embeddings, load_parts
from chat_app.runs.run import Run
from chat_app.tokenization.chat_formats import get_format
from chat_app.tokenization.encoder import Encoder, Example
from chat_app.training.collator import PackingCollator
from chat_app.training.loss import likelihood
from chat_app.training.pipeline import train_run
from chat_app.training.prepare import prepare_run

OURS = "ours"
LOOKS = 40
QUICK_LOOKS, QUICK_LINES = 15, 60
# Imports count for none: what our training imports on its way is imported before.
ON_THE_WAY = (
    "datasets",
    "torch.utils.tensorboard",
    "chat_app.training.autotune",
    "chat_app.data.tokenized_dataset",
    "chat_app.training.trainer",
)


@dataclass(frozen=True)
class Trial:
    """What is the same for all.

    Attributes:
        model: name or folder of the model to start from. data: the file of conversations.
        paths: a home for this trial alone.
        now: the clock. most_seconds: of any one training. looks: measurements of each.
    """

    model: str
    data: Path
    paths: Paths
    now: Callable[[], float]
    most_seconds: float
    looks: int

    def watch(self, name: str, measure: Callable[[Any], float]) -> Watch:
        """For a training that begins now."""
        return Watch(name, Stopwatch(self.now), measure, self.looks, self.most_seconds)


class Looking(TrainerCallback):
    """Lets a watch look at our training."""

    def __init__(self, watch: Watch):
        self.watch = watch

    def on_train_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """Before the first step."""
        self.watch.look(named["model"], 0)

    def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> Any:
        """After a step; the end, where the time is up."""
        if self.watch.is_due(state.global_step, state.max_steps):
            self.watch.look(named["model"], state.global_step)
        if self.watch.is_over:
            control.should_training_stop = True
        return control

    def on_train_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """After the last step."""
        self.watch.look(named["model"], state.global_step)


def measure_of(rows: Sequence[Example], conversations: Sequence[Conversation]) -> Callable[[Any], float]:
    """A function from a model to bits per byte of the replies: the one way in which all are measured.

    Args:
        rows: the validation part, laid out.
        conversations: the same; they tell the bytes.
    """
    size = sum(len(reply.text.encode()) for one in conversations for reply in one.replies if reply.in_loss)
    collator = PackingCollator(pad_id=0)
    return lambda model: likelihood(model, rows, collator).bits / size


def part_of(run: Run, part: str) -> list[Conversation]:
    """The training or validation part of a run: what has a question before its first reply."""
    found = read_file(run.data / f"{part}.jsonl").conversations
    return [one for one in found if one.turns[0].role == "user"]


def parts_of(trial: Trial, layout: str = "") -> tuple[Any, Encoder]:
    """The model in float32, in the layout asked for or in its own."""
    model, tokenizer, files, detected_format = load_parts(
        trial.model, LoadConfig(precision="float32", device="cpu"), trial.paths
    )
    encoder = Encoder(tokenizer, get_format(layout or detected_format.format), files.window)
    fit_embeddings(model, tokenizer)
    return model, encoder


def run_ours(trial: Trial) -> tuple[Curve, Run]:
    """Our training, with every default; and its run, whose split the others use."""
    _, encoder = parts_of(trial)
    watch = trial.watch(OURS, lambda model: math.nan)
    run, _ = prepare_run(TrainConfig(model=trial.model, wordings="off"), DataSource(files=(trial.data,)), trial.paths)
    with watch.stopwatch.held():
        valid = part_of(run, "valid")
        rows = [row for one in valid for row in encoder.examples(one, "replies", new_share=0.0)]
        watch.measure = measure_of(rows, valid)
    train_run(run, trial.paths, callbacks=[Looking(watch)], log=lambda line: print(f"  {line}", flush=True))
    with watch.stopwatch.held():
        kept, *_ = load_parts(str(run.model), LoadConfig(precision="float32", device="cpu"), trial.paths)
        watch.curve.final = watch.measure(kept)
        watch.curve.ended = "its time was up" if watch.is_over else run.state().reason.rstrip(".").lower()
    return watch.curve, run


def run_other(trial: Trial, procedure: Procedure, run: Run, layout: str) -> Curve:
    """Another project's training on the same split."""
    train, valid = part_of(run, "train"), part_of(run, "valid")
    model, encoder = parts_of(trial, layout)
    encoder.window = min(encoder.window, procedure.window)
    tested = tokenize_conversations(procedure, encoder, valid, learn_all=False)
    watch = trial.watch(procedure.name, measure_of(tested, valid))
    rows = tokenize_conversations(procedure, encoder, train, procedure.learn_all)
    learn(procedure, model, rows, encoder.tokenizer.pad_token_id or 0, watch)
    return watch.curve


def fresh_model(folder: Path, paths: Paths) -> str:
    """Random weights of the starter's shape, with its tokenizer; the same ones every time."""
    from transformers import GPT2LMHeadModel

    from chat_app.models.saving import save_model_folder

    model, tokenizer, files, detected_format = load_parts(STARTER, LoadConfig(precision="float32", device="cpu"), paths)
    torch.manual_seed(0)
    fresh = GPT2LMHeadModel(model.config)
    encoder = Encoder(tokenizer, get_format(detected_format.format), files.window)
    save_model_folder(folder, fresh, encoder, "", "float32")
    return str(folder)


def unseen_chitchat(path: Path) -> Path:
    """The conversations that the starter has never seen, as a file."""
    sys.path.insert(0, str(Paths.default().assets))
    from starter_data import chitchat, is_held_out

    with path.open("w", encoding="utf-8") as file:
        for key, record in chitchat():
            if is_held_out(key) and len(record["turns"]) > 1:
                print(json.dumps(record, ensure_ascii=False), file=file)
    return path


def first_lines(path: Path, target: Path, count: int) -> Path:
    """A smaller file of the same kind."""
    with path.open(encoding="utf-8") as source:
        target.write_text("".join(line for _, line in zip(range(count), source, strict=False)), encoding="utf-8")
    return target


def trial_of(options: argparse.Namespace, folder: Path) -> Trial:
    """What the options ask for."""
    paths = Paths(folder / "home")
    model, data = options.model, options.data
    if data is None:
        if options.task == "chitchat":
            data = unseen_chitchat(folder / "chitchat.jsonl")
            model = model or fresh_model(folder / "fresh", paths)
        else:
            data = paths.samples / {"shop": "shop.tsv", "talk": "shop.jsonl"}[options.task]
    if options.lines or options.quick:
        data = first_lines(data, folder / f"few{data.suffix}", options.lines or QUICK_LINES)
    now = time.process_time if options.cpu_time else time.perf_counter
    looks = QUICK_LOOKS if options.quick else LOOKS
    return Trial(model or STARTER, data, paths, now, options.minutes * 60, looks)


def seconds_of_command(trial: Trial) -> float:
    """Wall time of the whole command, from its start to its end."""
    command = [sys.executable, "-m", "chat_app", "train", "--data", str(trial.data), "--model", trial.model]
    home = {"CHAT_APP_HOME": str(trial.paths.home / "command"), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    started = time.perf_counter()
    subprocess.run(command, env={**os.environ, **home}, check=True, capture_output=True)
    return time.perf_counter() - started


def options_of() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="shop", choices=("shop", "talk", "chitchat"))
    parser.add_argument("--data", type=Path, help="another file of conversations")
    parser.add_argument("--model", help="another model to start from")
    parser.add_argument("--layout", default="model", choices=("model", "own"))
    parser.add_argument("--pad-to", type=int, default=0, metavar="N", help="pad GPTChat's examples to N tokens")
    parser.add_argument("--rate", type=float, metavar="R", help="the learning rate of the others, in place of theirs")
    parser.add_argument("--minutes", type=float, default=10.0, help="the most that any one of them may train")
    parser.add_argument("--threads", type=int, default=0, help="0 leaves it to PyTorch")
    parser.add_argument("--cpu-time", action="store_true", help="count processor time: for a machine that is busy")
    parser.add_argument("--lines", type=int, default=0, metavar="N", help="take the first lines of the file only")
    parser.add_argument("--quick", action="store_true", help=f"few measurements, and {QUICK_LINES} lines by default")
    parser.add_argument("--picture", type=Path, metavar="FILE.png")
    parser.add_argument("--no-command", action="store_true", help="do not time the whole command")
    return parser.parse_args()


def main() -> None:
    """Run all, and print."""
    options = options_of()
    logging.disable_progress_bar()
    for name in ON_THE_WAY:
        importlib.import_module(name)
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        trial = trial_of(options, Path(folder))
        clock = "of processor time" if options.cpu_time else "of wall time"
        print(f"{trial.data.name}, {torch.get_num_threads()} threads, seconds {clock}", flush=True)
        ours, run = run_ours(trial)
        curves = [ours]
        print(ends([ours]), flush=True)
        for procedure in PROCEDURES:
            chosen = replace(procedure, rate=options.rate or procedure.rate)
            if procedure.learn_all:
                chosen = replace(chosen, pad_to=options.pad_to)
            curves.append(run_other(trial, chosen, run, procedure.layout if options.layout == "own" else ""))
            print(ends(curves[-1:]), flush=True)
        print(f"\nbits per byte of the replies kept aside\n{table(curves)}\n")
        print(summary_of(ours, curves[1:]).sentences())
        if options.picture:
            draw(curves, options.picture)
        if not options.no_command:
            print(f"The whole command, start included: {seconds_of_command(trial):.1f} s of wall time.")


if __name__ == "__main__":
    main()
