"""Tokens learned a second: a training of the product beside a plain torch loop on batches of the same size.

    python -m benchmarks.training [--quick] [--model M]

Every conversation fills its row to the last token, so that a plain loop needs no padding: the easiest case for it, and
where ours has nothing to gain by packing. The loop is transformers' model with the product's precision and dropout,
AdamW and clipped gradients, and does nothing else. Ours is `python -m chat_app train` with its defaults, from whose
plots the speed is taken: with its curves, its state on the disk and its looks for a stop, without its evaluations. Each
is a process of its own. Printed are the medians of several rounds, and of their ratios.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.engine import rounds_of, row
from benchmarks.start import ROOT
from chat_app.config.loading import LoadConfig
from chat_app.config.paths import Paths
from chat_app.config.training import TrainConfig
from chat_app.conversation import Conversation
from chat_app.models.device import resolve_precision
from chat_app.models.loading import load_parts
from chat_app.runs.run import list_runs
from chat_app.tokenization.chat_formats import get_format
from chat_app.tokenization.encoder import Encoder

LENGTH = 128
STEPS, WARM = 50, 10  # Of a round; the first are not timed.
LOOP = """
import sys, time, torch
from chat_app.config.paths import Paths
from chat_app.config.loading import LoadConfig
from chat_app.models.loading import load_parts
name, precision, dropout = sys.argv[1], sys.argv[2], float(sys.argv[3])
batch, length, steps, warm, rate = *map(int, sys.argv[4:8]), 1e-4
model = load_parts(name, LoadConfig(precision="float32", device="cpu"), Paths.default())[0]
for module in model.modules():
    if isinstance(module, torch.nn.Dropout) and dropout >= 0:
        module.p = dropout
model.train()
optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
rows = torch.randint(0, model.config.vocab_size, (steps, batch, length))
for number, ids in enumerate(rows):
    if number == warm:
        started = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
print(batch * length * (steps - warm) / (time.perf_counter() - started))
"""


def conversations(model: str, count: int) -> list[tuple[str, str]]:
    """Questions and answers that come to rows of exactly LENGTH tokens, made of words that are one token each."""
    _, tokenizer, files, detected_format = load_parts(
        model, LoadConfig(precision="float32", device="cpu"), Paths.default()
    )
    encoder = Encoder(tokenizer, get_format(detected_format.format), files.window)
    begin = "Ġ"  # A word's, in this kind of vocabulary.
    known = sorted(one.removeprefix(begin) for one in tokenizer.get_vocab() if one.startswith(begin))
    words = [one for one in known if one.isascii() and one.isalpha() and len(one) > 3]
    draw = random.Random(0)

    def made(replied: int) -> tuple[str, str]:
        return " ".join(draw.choices(words, k=LENGTH // 3)), " ".join(draw.choices(words, k=replied))

    found: list[tuple[str, str]] = []
    replied = LENGTH // 2
    while len(found) < count:
        pair = made(replied)
        missing = LENGTH - len(encoder.examples(Conversation.from_turns(pair))[0].ids)
        if missing:
            replied += missing
        else:
            found.append(pair)
    return found


def ours(model: str, data: Path, home: Path) -> float:
    """Tokens a second of a training."""
    command = [sys.executable, "-m", "chat_app", "train", "--data", str(data), "--model", model]
    environment = {**os.environ, "CHAT_APP_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*command, "--max-steps", str(STEPS), "--log-every", "1"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    (run,) = list_runs(Paths(home).runs)
    speeds = [line["tokens_per_second"] for line in run.metrics() if line.get("tokens_per_second")]
    return statistics.harmonic_mean(speeds[WARM:])  # As many tokens in each.


def plain(model: str) -> float:
    """Tokens a second of the loop."""
    config = TrainConfig()
    numbers = [config.dropout, config.batch_size, LENGTH, STEPS, WARM]
    command = [sys.executable, "-c", LOOP, model, resolve_precision(config.precision, "cpu"), *map(str, numbers)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return float(done.stdout)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--model", default="starter")
    options = parser.parse_args()
    rounds = 2 if options.quick else 5
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "full.tsv"
        pairs = conversations(options.model, STEPS * TrainConfig().batch_size)
        data.write_text("".join(f"{one}\t{other}\n" for one, other in pairs), encoding="utf-8")
        found = rounds_of(
            rounds,
            lambda number: ours(options.model, data, Path(name) / f"home{number}"),
            lambda _: plain(options.model),
        )
    print(f"{STEPS} steps of {TrainConfig().batch_size} x {LENGTH} tokens; medians of {rounds} rounds\n")
    print("| | ours | beside | ratio | goal |\n|---|---|---|---|---|")
    row("tokens learned, a plain torch loop", ">= 0.95", found, "tokens/s")


if __name__ == "__main__":
    main()
