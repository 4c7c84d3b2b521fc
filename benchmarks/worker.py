"""What it costs that a model has a process of its own: the same replies from there and from an engine in this process.

    python -m benchmarks.worker [--quick] [--precision P] [--model M]

Without --model it is GPT-2 with 124 million random weights. Every measurement is a pair, one right after the other, in
several rounds and in changing order; printed are the medians of both, and the median of the rounds' ratios (tokens a
second) or differences (the first token). Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processor import processor_name
from chat_app.config.loading import LoadConfig
from chat_app.config.paths import Paths
from chat_app.config.sampling import SamplingConfig
from chat_app.conversation import Conversation
from chat_app.inference.backend import ReplyBackend, ReplyEnd, ReplyRequest, TextDelta
from chat_app.inference.worker.model import WorkerModel

TOKENS, TOGETHER = 96, 8
PAUSE = 0.3  # Seconds: the threads of a step wait busily for a moment after their last work.
GOALS = {"first token": "<= 5 ms later", "one chat": ">= 0.97", "eight chats": ">= 0.97"}


@dataclass(frozen=True)
class Timing:
    """Seconds of one reply to its first text and to its end, and its tokens."""

    first: float
    seconds: float
    tokens: int


def time_reply(backend: ReplyBackend, seed: int) -> Timing:
    """Ask for a reply to a conversation that no other has begun like."""
    sampling = SamplingConfig(temperature=1, top_k=50, top_p=1, repetition_penalty=1, max_new_tokens=TOKENS, seed=seed)
    conversation = Conversation.from_turns(
        [f"{seed} times I asked you: what is it that you like to do on a day in May?"]
    )
    started, first, tokens = time.perf_counter(), 0.0, 0
    for event in backend.stream(ReplyRequest(conversation, sampling)):
        if isinstance(event, TextDelta):
            first = first or time.perf_counter() - started
        elif isinstance(event, ReplyEnd):
            tokens = event.reply_tokens
    return Timing(first, time.perf_counter() - started, tokens)


def measure_first_token(backend: ReplyBackend, seed: int) -> float:
    """Milliseconds to the first text of one chat."""
    return 1000 * time_reply(backend, seed).first


def measure_one(backend: ReplyBackend, seed: int) -> float:
    """Tokens a second of one chat."""
    timing = time_reply(backend, seed)
    return timing.tokens / timing.seconds


def measure_eight(backend: ReplyBackend, seed: int) -> float:
    """Tokens a second of eight chats in all."""
    timings: list[Timing] = []
    threads = [
        threading.Thread(target=lambda number=number: timings.append(time_reply(backend, 100 * seed + number)))  # type: ignore[misc]
        for number in range(TOGETHER)
    ]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(timing.tokens for timing in timings) / (time.perf_counter() - started)


def compare(
    measure: Callable[[ReplyBackend, int], float], alone: ReplyBackend, worker: ReplyBackend, rounds: int, seed: int
) -> list[tuple[float, float]]:
    """Pairs of the same measurement: of the engine in this process, and of the worker."""
    pairs = []
    for number in range(rounds):
        order = (alone, worker) if number % 2 else (worker, alone)
        found = {}
        for backend in order:
            time.sleep(PAUSE)
            found[id(backend)] = measure(backend, seed + number)
        pairs.append((found[id(alone)], found[id(worker)]))
    return pairs


def print_row(name: str, pairs: list[tuple[float, float]]) -> None:
    """Print the medians, and how the worker stands beside the engine alone."""
    alone, worker = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
    if name == "first token":
        beside = f"{statistics.median(pair[1] - pair[0] for pair in pairs):+.1f} ms"
    else:
        beside = f"{statistics.median(pair[1] / pair[0] for pair in pairs):.3f}"
    print(f"| {name} | {alone:.1f} | {worker:.1f} | {beside} | {GOALS[name]} |", flush=True)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--precision", default="8-bit")
    parser.add_argument("--model")
    options = parser.parse_args()
    from benchmarks.engine import make_model
    from chat_app.inference.loaded_model import load

    with tempfile.TemporaryDirectory() as folder:
        name = options.model
        if name is None:
            make_model(Path(folder))
            name = folder
        config, paths = LoadConfig(precision=options.precision), Paths.default()
        alone, worker = load(name, config, paths), WorkerModel(name, config, paths)
        started = time.perf_counter()
        worker.load()
        print(f"{processor_name()}; the process was there after {time.perf_counter() - started:.1f} s\n")
        try:
            for backend in (alone, worker):
                for seed in range(6):
                    time_reply(backend, seed)  # The engine finds out how many threads are best.
            print(
                "| | the engine alone | in a process of its own | beside it | goal |\n| --- | --- | --- | --- | --- |"
            )
            rounds = 5 if options.quick else 15
            print_row("first token", compare(measure_first_token, alone, worker, 3 * rounds, 1_000))
            print_row("one chat", compare(measure_one, alone, worker, rounds, 2_000))
            print_row("eight chats", compare(measure_eight, alone, worker, rounds, 3_000))
        finally:
            alone.close()
            worker.close()


if __name__ == "__main__":
    main()
