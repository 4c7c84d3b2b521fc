"""How well the starter talks, to strangers and about what nobody taught it.

    python -m benchmarks.starter [--model M ...] [--seeds N] [--data FOLDER] [--chats FILE]

Its exchanges are `tests/starter_exchanges.jsonl`: a reply passes if one expression of `must` and none of `must_not` is
found in it. Its chats are `tests/starter_chats.jsonl`: ten turns of a person, answered one after the other; no reply
may repeat an earlier one, be empty, or show a special token. `--data` is the folder that `assets/starter_data.py`
writes: bits per byte are measured on each source's conversations that were kept aside. `--chats` writes the whole chats
to a file, to be read. `python -m benchmarks.answers` measures how well it learns.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processor import processor_name
from chat_app.config.loading import LoadConfig
from chat_app.config.paths import STARTER, Paths
from chat_app.config.sampling import SamplingConfig
from chat_app.conversation import Conversation, Message
from chat_app.inference.backend import ReplyBackend, ReplyEnd, reply
from chat_app.inference.loaded_model import load

TESTS = Path(__file__).resolve().parent.parent / "tests"


@dataclass(frozen=True)
class Exchange:
    """The beginning of a chat, and what a fitting reply must have (one of them) and must not have (any)."""

    conversation: Conversation
    must: tuple[str, ...]
    must_not: tuple[str, ...]

    def passes(self, text: str) -> bool:
        """Whether a reply fits."""
        has = [any(re.search(one, text, re.IGNORECASE) for one in wanted) for wanted in (self.must, self.must_not)]
        return bool(text.strip()) and (has[0] or not self.must) and not has[1]


def read_exchanges() -> list[Exchange]:
    """The exchanges that a reply is judged on."""
    rows = map(json.loads, (TESTS / "starter_exchanges.jsonl").read_text(encoding="utf-8").splitlines())
    return [
        Exchange(
            Conversation.from_messages(Message(one["role"], one["content"]) for one in row["messages"]),
            tuple(row["must"]),
            tuple(row["must_not"]),
        )
        for row in rows
    ]


def read_scripts() -> list[list[str]]:
    """What a person says in each of the ten chats."""
    lines = (TESTS / "starter_chats.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["turns"] for line in lines]


def count_fitting(model: ReplyBackend, exchanges: Sequence[Exchange], seed: int) -> tuple[int, list[ReplyEnd]]:
    """How many replies fit, and all of them."""
    ends = [reply(model, one.conversation, SamplingConfig(seed=seed)) for one in exchanges]
    return sum(one.passes(end.text) for one, end in zip(exchanges, ends, strict=True)), ends


def hold_chat(model: ReplyBackend, script: Sequence[str], seed: int) -> list[str]:
    """A whole chat: the person's turns and the replies."""
    turns: list[str] = []
    for said in script:
        turns.append(said)
        turns.append(reply(model, Conversation.from_turns(turns), SamplingConfig(seed=seed)).text)
    return turns


def find_faults(turns: Sequence[str]) -> int:
    """How many replies of a chat repeat an earlier one, are empty, or show a special token."""
    replies = [text.strip().lower() for text in turns[1::2]]
    return sum(not text or "<|" in text or text in replies[:at] for at, text in enumerate(replies))


def measure_bits(model: str, folder: Path) -> dict[str, float]:
    """Bits per byte on each file of conversations that were kept aside."""
    found = {}
    for file in sorted((folder / "heldout").glob("*.jsonl")):
        command = [sys.executable, "-m", "chat_app", "evaluate", "--model", model, "--data", str(file)]
        options = ["--learn", "all", "--replies", "0", "--json"]
        done = subprocess.run([*command, *options], check=True, capture_output=True, text=True)
        found[file.stem] = float(json.loads(done.stdout)["bits_per_byte"])
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=[STARTER], metavar="M")
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    parser.add_argument("--data", type=Path, metavar="FOLDER")
    parser.add_argument("--chats", type=Path, metavar="FILE")
    options = parser.parse_args()
    exchanges, scripts = read_exchanges(), read_scripts()
    print(f"{processor_name()}; {options.seeds} seeds, default sampling\n")
    print(f"| model | fitting of {len(exchanges)} | faults in {len(scripts)} chats | tokens/s | bits per byte |")
    print("|---|---|---|---|---|")
    for name in options.model:
        model = load(name, LoadConfig(), Paths.default())
        counts, speeds = [], []
        for seed in range(options.seeds):
            fitting, ends = count_fitting(model, exchanges, seed)
            counts.append(fitting)
            speeds += [end.tokens_per_second for end in ends if end.reply_tokens > 4]
        chats = [hold_chat(model, script, 0) for script in scripts]
        model.close()
        if options.chats is not None:
            options.chats.write_text("\n\n".join("\n".join(turns) for turns in chats) + "\n", encoding="utf-8")
        bits = measure_bits(name, options.data) if options.data is not None else {}
        share = f"{statistics.mean(counts):.1f} ({100 * statistics.mean(counts) / len(exchanges):.0f} %)"
        columns = [share, sum(map(find_faults, chats)), f"{statistics.median(speeds):.0f}"]
        print(f"| {name} | {' | '.join(map(str, columns))} | {', '.join(f'{k} {v:.3f}' for k, v in bits.items())} |")


if __name__ == "__main__":
    main()
