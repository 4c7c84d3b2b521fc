"""How many held-out questions a bot answers right after it was taught a small set of questions and answers.

    python -m benchmarks.answers [SET ...] [--model M ...] [--seeds N] [--flags="--epochs 5"] [--taught RUN | --list]

A SET is one of benchmarks/learning_sets (`library`, `library_close`, `bicycle_shop`, `clinic`, `club`, `bakery_tiny`),
or `shop` for the sample shop. Each model is taught each set by `python -m chat_app train` with every default, or with
the flags that are given; `--taught` asks a model that was taught already. `--list` trains and asks no model: it counts
what the list of questions and answers says by itself, where it is sure, and how often it is sure of a question about
something else. A model is asked each question once greedily, and once for each seed with the default sampling. An
answer is right if every key word of the right reply is in it. Printed is a table with the seconds that the whole
command took, and the processor's name.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processor import processor_name
from chat_app.config.loading import LoadConfig
from chat_app.config.paths import STARTER, Paths
from chat_app.config.sampling import SamplingConfig
from chat_app.conversation import Conversation
from chat_app.data.answer_list import AnswerList, find_exchanges
from chat_app.data.readers import iterate_conversations
from chat_app.inference.backend import reply
from chat_app.inference.loaded_model import load

SETS = Path(__file__).parent / "learning_sets"
GREEDY = SamplingConfig(temperature=0, repetition_penalty=1, seed=0)


@dataclass(frozen=True)
class Question:
    """A held-out question.

    Attributes:
        text: what is asked.
        keys: what the right reply has, in lower case: of each group at least one.
    """

    text: str
    keys: tuple[tuple[str, ...], ...]

    def is_answered_by(self, text: str) -> bool:
        """Whether an answer is right."""
        return all(any(key in text.lower() for key in group) for group in self.keys)


def list_sets() -> list[str]:
    """The names of all sets, the sample shop last."""
    return [*sorted(file.name.removesuffix("_questions.jsonl") for file in SETS.glob("*_questions.jsonl")), "shop"]


def find_set(name: str) -> tuple[Path, list[Question]]:
    """The file of conversations of a set, and its held-out questions."""
    if name == "shop":
        samples = Paths.default().samples
        rows = json.loads((samples / "shop_questions.json").read_text(encoding="utf-8"))
        questions = [Question(row["question"], tuple(map(tuple, row["keywords"]))) for row in rows]
        return samples / "shop.tsv", questions
    lines = (SETS / f"{name}_questions.jsonl").read_text(encoding="utf-8").splitlines()
    questions = [Question(row["question"], tuple((key,) for key in row["key"])) for row in map(json.loads, lines)]
    return SETS / f"{name.removesuffix('_close')}.jsonl", questions


def count_right(answer: Callable[[str], str], questions: Sequence[Question]) -> int:
    """How many questions are answered right."""
    return sum(question.is_answered_by(answer(question.text)) for question in questions)


def teach(data: Path, model: str, flags: Sequence[str], home: Path) -> tuple[str, float]:
    """Teach a set with the command line: the folder of the result, and the seconds that it took."""
    out = home / "taught"
    command = [sys.executable, "-m", "chat_app", "train", "--data", str(data), "--model", model, "--out", str(out)]
    started = time.perf_counter()
    subprocess.run([*command, *flags], env={**os.environ, "CHAT_APP_HOME": str(home)}, check=True, capture_output=True)
    return str(out), time.perf_counter() - started


def ask(model: str, questions: Sequence[Question], seeds: int) -> tuple[int, list[int]]:
    """How many of the questions a model answers right: greedily, and with default sampling for each seed."""
    loaded = load(model, LoadConfig(), Paths.default())

    def answer_with(sampling: SamplingConfig) -> Callable[[str], str]:
        return lambda question: reply(loaded, Conversation.from_turns([question]), sampling).text

    try:
        greedy = count_right(answer_with(GREEDY), questions)
        sampled = [count_right(answer_with(SamplingConfig(seed=seed)), questions) for seed in range(seeds)]
    finally:
        loaded.close()
    return greedy, sampled


def print_list(names: Sequence[str]) -> None:
    """What a list of answers says by itself: the reply that it puts first, and those that it would quote."""
    print("| set | questions | first is right | quoted right, wrong | about something else: quoted | ", end="")
    print("taught, each left out | quoted right, wrong |")
    print("|---|---|---|---|---|---|---|")
    for name in names:
        data, questions = find_set(name)
        pairs = [pair for conversation in iterate_conversations(data) for pair in find_exchanges(conversation)]
        answers = AnswerList(pairs)
        first = [ranked[0].reply if (ranked := answers.rank(one.text, 1)) else "" for one in questions]
        sure = [found.reply if (found := answers.find_sure(one.text)) else None for one in questions]
        right = [one.is_answered_by(reply) for one, reply in zip(questions, first, strict=True)]
        quoted = [fits for fits, reply in zip(right, sure, strict=True) if reply is not None]
        other = read_other(name)
        strange = f"{sum(answers.find_sure(text) is not None for text in other)} of {len(other)}" if other else ""
        counts = f"{len(questions)} | {sum(right)} | {sum(quoted)}, {len(quoted) - sum(quoted)}"
        tried, good, bad = leave_out_each(pairs)
        print(f"| {name} | {counts} | {strange} | {tried} | {good}, {bad} |", flush=True)


def leave_out_each(pairs: Sequence[tuple[str, str]]) -> tuple[int, int, int]:
    """Each different question asked of the list without it: how many there are, and how many are quoted right and
    wrong. Of a reply that has one question only, all that can be right is to quote nothing."""
    different = list(dict.fromkeys(pairs))
    good = bad = 0
    for question, taught in different:
        rest = [pair for pair in different if pair[0] != question]
        found = AnswerList(rest).find_sure(question) if rest else None
        good += found is not None and found.reply == taught
        bad += found is not None and found.reply != taught
    return len(different), good, bad


def read_other(name: str) -> list[str]:
    """The questions about something else; none where a set has no such file."""
    file = SETS / f"{name}_other.jsonl"
    return [json.loads(line)["question"] for line in file.read_text("utf-8").splitlines()] if file.exists() else []


def main() -> None:
    """Teach, ask and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"default: all ({', '.join(list_sets())})")
    parser.add_argument("--model", nargs="+", default=[STARTER], metavar="M", help="what is taught")
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    parser.add_argument("--flags", default="", help="further flags of `train`")
    parser.add_argument("--list", action="store_true", help="count what the list of answers says, without a model")
    parser.add_argument("--taught", metavar="M", help="a model that was taught the set already")
    options = parser.parse_args()
    if options.list:
        print_list(options.sets or list_sets())
        return
    print(f"{processor_name()}; flags: {options.flags or 'none'}\n")
    print("| set | model | questions | greedy | default sampling | seconds |\n|---|---|---|---|---|---|")
    for name in options.sets or list_sets():
        data, questions = find_set(name)
        for model in [options.taught] if options.taught else options.model:
            with tempfile.TemporaryDirectory() as folder:
                taught, seconds = (
                    (model, 0.0) if options.taught else teach(data, model, shlex.split(options.flags), Path(folder))
                )
                greedy, sampled = ask(taught, questions, options.seeds)
            drawn = f"{statistics.mean(sampled):.1f}" if sampled else ""
            print(f"| {name} | {model} | {len(questions)} | {greedy} | {drawn} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
