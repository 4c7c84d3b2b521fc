"""From a file of conversations to rows that are ready to train: time and memory for 10,000, 100,000 and 1,000,000.

    python -m benchmarks.data_in [--counts N [N ...]] [--model M] [--no-peer]

Each stage runs in a process of its own, so that its peak memory is its own; "memory" is what it needs above the same
process without any conversation. The peer is the usual way: `datasets` reads the JSON lines and maps a tokenizer over
them, which checks nothing and lays out nothing.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WORDS = """
the a of to and in is it you that was for on are with as I his they be at one have this from or had by hot word but
what some we can out other were all there when up use your how said an each she which do their time if will way about
many then them write would like so these her long make thing see him two has look more day could go come did number
sound no most people my over know water than call first who may down side been now find any new work part take get
""".split()  # noqa: SIM905
STAGES = ("nothing", "read", "again", "check", "lay out", "peer")


def write_conversations(path: Path, count: int) -> None:
    """JSON Lines of two to six turns, about 200 bytes each."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            turns = draw.choice((2, 2, 2, 4, 6))
            messages = [
                {
                    "role": "user" if turn % 2 == 0 else "assistant",
                    "content": " ".join(draw.choices(WORDS, k=draw.randint(2, 9)))
                    + f" {number if turn == 0 else turn}.",
                }
                for turn in range(turns)
            ]
            file.write(json.dumps({"messages": messages}) + "\n")


def run_stage(stage: str, file: Path, home: Path, model: str) -> dict[str, float]:
    """One stage in this process: its seconds and its peak memory in bytes."""
    work = _work(stage, file, home, model)
    began = time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def _work(stage: str, file: Path, home: Path, model: str) -> Callable[[], Any]:
    from chat_app.config.paths import Paths
    from chat_app.data.source import DataSource, check_dataset, load_source
    from chat_app.data.tokenized_dataset import TokenizationOptions, tokenize_conversations
    from chat_app.models.tokenizer import load_tokenizer, read_window
    from chat_app.tokenization.chat_formats import get_format
    from chat_app.tokenization.encoder import Encoder

    paths, wanted = Paths(home), DataSource((file,))
    if stage in ("read", "again"):
        return lambda: load_source(wanted, paths)
    if stage == "check":
        material = load_source(wanted, paths)
        return lambda: check_dataset(material, paths, model)
    if stage == "lay out":
        encoder = Encoder(load_tokenizer(model, paths), get_format("roles"), read_window(model, paths))
        return lambda: len(tokenize_conversations(file, encoder, TokenizationOptions(), paths.open_cache("rows")))
    if stage == "peer":
        return _peer(file, home, model)
    return lambda: None


def _peer(file: Path, home: Path, model: str) -> Callable[[], Any]:
    import datasets

    from chat_app.models.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(model)

    def tokenised(batch: dict[str, list[Any]]) -> dict[str, Any]:
        texts = ["".join(one["content"] for one in messages) for messages in batch["messages"]]
        return {"input_ids": tokenizer(texts)["input_ids"]}

    def work() -> None:
        datasets.disable_progress_bars()
        data = datasets.load_dataset("json", data_files=str(file), split="train", cache_dir=str(home / "peer"))
        data.map(tokenised, batched=True, remove_columns=["messages"])

    return work


def measure(count: int, model: str, stages: tuple[str, ...]) -> None:
    """Print a line for each stage."""
    with tempfile.TemporaryDirectory() as folder:
        file, home = Path(folder) / "conversations.jsonl", Path(folder) / "home"
        write_conversations(file, count)
        base = 0.0
        for stage in stages:
            command = [sys.executable, "-m", "benchmarks.data_in", "--stage", stage, "--file", str(file)]
            answer = subprocess.run(
                [*command, "--home", str(home), "--model", model], check=True, stdout=subprocess.PIPE, text=True
            )
            found = json.loads(answer.stdout.splitlines()[-1])
            if stage == "nothing":
                base = found["bytes"]
                continue
            speed = count / found["seconds"]
            print(
                f"{count:>9,}  {file.stat().st_size / 1e6:>5.0f} MB  {stage:<8} {found['seconds']:>8.2f} s  "
                f"{speed:>9,.0f}/s  {(found['bytes'] - base) / 1e6:>6.0f} MB",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--model", default="starter")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        print(json.dumps(run_stage(options.stage, options.file, options.home, options.model)))
        return
    print(f"{'count':>9}  {'size':>8}  {'stage':<8} {'time':>10}  {'speed':>11}  {'memory':>9}")
    for count in options.counts:
        measure(count, options.model, STAGES[:-1] if options.no_peer else STAGES)


if __name__ == "__main__":
    main()
