"""The time that a training says it will take, beside the time that it takes.

    python -m benchmarks.plan_time [--seconds 60] [--only NAME ...]

Ten runs of different kinds, each in a process of its own as `python -m chat_app train` starts it. The prediction is the
one of the dry run, which the page and the log show. The real time is that from the end of the dry run to the end of the
training, as the run folder tells both. `--seconds` is about how long each training is to take: a first dry run tells
how many steps that is. The aim is a prediction within 20 %; what else uses the processor falsifies it.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.start import ROOT
from chat_app.config.paths import STARTER, Paths
from chat_app.config.training import TrainConfig
from chat_app.conversation import Conversation
from chat_app.data.readers import Reading
from chat_app.models.saving import save_model_folder
from chat_app.models.tokenizer import load_tokenizer
from chat_app.runs.run import Run
from chat_app.tokenization.chat_formats import DEFAULT_FORMAT, get_format
from chat_app.tokenization.encoder import Encoder
from chat_app.training.prepare import write_run
from chat_app.training.pretraining import PRETRAIN_DEFAULTS, SIZES, new_model

AIM = 0.2
MANY_STEPS, FEWEST_STEPS = 10_000, 20
WORDS = (
    *("the", "a", "we", "you", "shop", "open", "close", "when", "where", "is", "it", "in", "on", "at", "of", "to"),
    *("and", "price", "help", "order", "red", "blue", "tea", "bread"),
)


@dataclass(frozen=True)
class Kind:
    """A kind of run.

    Attributes:
        model: the starter, or the size of a new model.
        words: the shortest and the longest turn, in words.
        conversations: how many of them, of two turns each.
        evaluations: how many there are in the training.
    """

    model: str = STARTER
    words: tuple[int, int] = (4, 20)
    conversations: int = 300
    evaluations: int = 4
    settings: Mapping[str, Any] = field(default_factory=dict)


KINDS: Mapping[str, Kind] = {
    "starter": Kind(),
    "starter, long rows": Kind(words=(60, 160)),
    "starter, short and long rows": Kind(words=(2, 200)),
    "starter, one evaluation": Kind(evaluations=1),
    "starter, LoRA": Kind(settings={"method": "lora"}),
    "starter, LoRA on 8 bits": Kind(settings={"method": "lora-8bit"}),
    "starter, small batches added up": Kind(settings={"batch_size": 2, "accumulation": 4}),
    "a new mini model": Kind("mini", (20, 60), settings=PRETRAIN_DEFAULTS),
    "GPT-2 of 124M": Kind("small", conversations=120, evaluations=2),
    "GPT-2 of 124M, LoRA, recomputing": Kind(
        "small", conversations=120, evaluations=2, settings={"method": "lora", "gradient_checkpointing": "on"}
    ),
}


def write_conversations(kind: Kind) -> Reading:
    """Conversations of random words, whose lengths are drawn evenly."""
    draw = random.Random(0)

    def turn() -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(*kind.words)))

    found = [Conversation.from_turns([turn(), turn()]) for _ in range(kind.conversations)]
    return Reading(found, [], list(range(len(found))), "tsv", "utf-8")


def write_model(size: str, paths: Paths, home: Path) -> str:
    """A new model of a size with the starter's tokenizer, as a folder; the starter itself as it is."""
    if size == STARTER:
        return size
    folder = home / f"new-{size}"
    if not folder.exists():
        tokenizer = load_tokenizer(STARTER, paths)
        encoder = Encoder(tokenizer, get_format(DEFAULT_FORMAT), SIZES[size].window)
        save_model_folder(folder, new_model(tokenizer, size), encoder, precision="float32")
    return str(folder)


def prepare(kind: Kind, paths: Paths, home: Path, steps: int) -> Run:
    """A run of so many steps."""
    settings = {
        **kind.settings,
        "model": write_model(kind.model, paths, home),
        "max_steps": steps,
        "evaluate_every": max(steps // kind.evaluations, 1),
        "rehearse": "on",
        "patience": 0,
        "device": "cpu",
        "valid_share": 0.1,
    }
    folder = home / "run"
    shutil.rmtree(folder, ignore_errors=True)
    return write_run(TrainConfig(**settings), write_conversations(kind), paths, folder=folder)


def start(run: Run, paths: Paths) -> subprocess.Popen[str]:
    """The process that trains a run."""
    environment = {**os.environ, "CHAT_APP_HOME": str(paths.home), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "chat_app", "train", "--run", str(run.folder)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def find_steps(kind: Kind, paths: Paths, home: Path, seconds: float) -> int:
    """How many steps take about so long, by the dry run of a training that is stopped after it."""
    run = prepare(kind, paths, home, MANY_STEPS)
    process = start(run, paths)
    while process.poll() is None and "plan" not in run.about():
        time.sleep(0.1)
    run.request_stop()
    _, errors = process.communicate()
    if "plan" not in run.about():
        raise SystemExit(errors)
    return max(int(seconds / run.about()["plan"]["rehearsal"]["seconds_a_step"]), FEWEST_STEPS)


def compare(kind: Kind, paths: Paths, home: Path, steps: int) -> tuple[float, float]:
    """The seconds that the dry run predicted, and those that the training took after it."""
    run = prepare(kind, paths, home, steps)
    process = start(run, paths)
    _, errors = process.communicate()
    if process.returncode:
        raise SystemExit(errors)
    plan = run.about()["plan"]
    return plan["rehearsal"]["seconds"], run.state().time - plan["decided"]


def main() -> None:
    """Train each kind and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--only", nargs="+", choices=list(KINDS), metavar="NAME")
    options = parser.parse_args()
    errors = []
    print("| run | steps | predicted | real | error |\n| --- | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        paths = Paths(home / "home")
        for name in options.only or KINDS:
            kind = KINDS[name]
            steps = find_steps(kind, paths, home, options.seconds)
            predicted, real = compare(kind, paths, home, steps)
            errors.append(predicted / real - 1)
            print(f"| {name} | {steps} | {predicted:.1f} s | {real:.1f} s | {errors[-1]:+.0%} |", flush=True)
    within = sum(abs(error) <= AIM for error in errors)
    print(f"\n{within} of {len(errors)} within {AIM:.0%}.")


if __name__ == "__main__":
    main()
