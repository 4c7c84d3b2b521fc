"""A roofline of the compiled decode step, and where the time of an engine's step goes. On the processor.

    python -m benchmarks.kernels [--threads N] [--quick]
    NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES=+avx,+avx2,+fma,+sse4.2 python -m benchmarks.kernels

The second command forces another instruction set on a processor that has more. For GPT-2 with 124 million random
weights and for the starter, for each number of rows: the bytes of weights and the multiply-adds of a step, how long
those take at least on this machine, and how long the step takes. A row is a chat of 100 tokens; 96 rows are a prompt.
Times are the least of many, so that other programs matter little; with several threads they do.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.engine import make_model
from benchmarks.engine_peers import ids_of
from benchmarks.kernel_peaks import bytes_per_second, multiply_adds_per_second
from benchmarks.processor import processor_name
from chat_app.config.loading import LoadConfig
from chat_app.config.paths import STARTER, Paths
from chat_app.config.sampling import SamplingConfig
from chat_app.inference.engine import Engine
from chat_app.inference.loaded_model import load
from chat_app.inference.model_runner import Chunk
from chat_app.inference.reply_text import ReplyText
from chat_app.inference.request import Request
from chat_app.inference.sampling import Sampler
from chat_app.inference.sequence import Sequence
from chat_app.kernels.packed_weights import DecodeStep

ROWS = (1, 2, 4, 8, 16, 96)
TOKENS = 100  # Of a chat.
NEW = 64
PRECISIONS = ("8-bit", "bfloat16")


def step_seconds(runner: Any, rows: int, repeats: int) -> float:
    """The least time of the compiled part of a step."""
    kv_caches = [runner.new_kv_cache() for _ in range(rows if rows < ROWS[-1] else 1)]
    for one in kv_caches:
        runner.step([Chunk(list(range(TOKENS)), None, one, False)])
    best = float("inf")
    with timed({"kernel": (DecodeStep, "__call__")}) as times:
        for _ in range(repeats):
            for one in kv_caches:
                one.length = TOKENS if rows < ROWS[-1] else 0
            ids = [5] if rows < ROWS[-1] else list(range(rows))
            times.clear()
            runner.step([Chunk(ids, None, one, True) for one in kv_caches])
            best = min(best, times["kernel"])
    return best


@contextmanager
def timed(methods: dict[str, tuple[type, str]]) -> Iterator[dict[str, float]]:
    """Add up the seconds that methods take, by what they are called here."""
    times: dict[str, float] = defaultdict(float)
    originals = {name: getattr(owner, method) for name, (owner, method) in methods.items()}

    def measure(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return originals[name](*arguments, **named)
            finally:
                times[name] += time.perf_counter() - started

        return call

    try:
        for name, (owner, method) in methods.items():
            setattr(owner, method, measure(name))
        yield times
    finally:
        for name, (owner, method) in methods.items():
            setattr(owner, method, originals[name])


def roofline(name: str, folder: str, precision: str, peaks: tuple[float, float], repeats: int) -> None:
    """Print the rows of a model."""
    loaded = load(folder, LoadConfig(precision=precision, device="cpu"), Paths.default())
    runner: Any = loaded.engine._runner
    packed = runner._weights.packed
    packed._future.result()
    reading, multiplying = peaks
    numbers = [outputs * inputs for outputs, inputs in packed.sizes]
    for rows in ROWS:
        with_head = rows if rows < ROWS[-1] else 1  # A prompt needs the logits of its last token.
        products = rows * sum(numbers[:-1]) + with_head * numbers[-1]
        size = packed.memory_bytes
        seconds = step_seconds(runner, rows, repeats if rows < ROWS[-1] else max(repeats // 8, 3))
        least = [size / reading, products / multiplying if multiplying else 0.0]
        shown = " | ".join(f"{1000 * one:.2f} ms" for one in (*least, seconds))
        work = f"{size / 1e6:.0f} MB | {products / 1e9:.2f} G"
        print(f"| {name}, {precision} | {rows} | {work} | {shown} | {max(least) / seconds:.0%} |", flush=True)
    loaded.close()


PARTS = {
    "compiled step": (DecodeStep, "__call__"),
    "sampling": (Sampler, "draw"),
    "handing tokens over": (Sequence, "emit_token"),
    "whole steps": (Engine, "_step"),
}


def divide_time(name: str, folder: str, precision: str, chats: int) -> None:
    """Print where the time of an engine's steps goes while some chats are written."""
    loaded = load(folder, LoadConfig(precision=precision, device="cpu"), Paths.default())
    runner: Any = loaded.engine._runner
    runner._weights.packed._future.result()
    sampling = SamplingConfig(temperature=1, top_k=50, top_p=1, repetition_penalty=1, seed=1)
    tokenizer: Any = loaded.tokenizer

    def chat(number: int, new: int) -> float:
        ids = [one % runner.vocabulary for one in ids_of(number)]
        text, seconds = ReplyText(tokenizer, (), []), 0.0
        for token in loaded.engine.stream(Request(ids, None, None, sampling, frozenset(), frozenset(), new)):
            started = time.perf_counter()
            text.add(token)
            seconds += time.perf_counter() - started
        return seconds

    def write(new: int) -> list[float]:
        decoding: list[float] = []
        threads = [
            threading.Thread(target=lambda number=number: decoding.append(chat(number, new))) for number in range(chats)
        ]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        return decoding

    write(NEW)
    with timed(PARTS) as times:
        started = time.perf_counter()
        decoding = write(NEW)
        seconds = time.perf_counter() - started
    rest = times["whole steps"] - sum(times[part] for part in PARTS if part != "whole steps")
    shares = [1000 * times[part] / NEW for part in list(PARTS)[:-1]] + [1000 * rest / NEW]
    shown = " | ".join(f"{one:.2f} ms" for one in shares)
    print(
        f"| {name}, {precision} | {chats} | {chats * NEW / seconds:.0f} | {shown} | "
        f"{1000 * statistics.median(decoding) / NEW:.2f} ms |",
        flush=True,
    )
    loaded.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="fewer repeats, and 8-bit only")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    reading = bytes_per_second(options.threads)
    print(f"{processor_name()}; {options.threads} threads. Memory: {reading / 1e9:.1f} GB/s.", end="")
    peaks = {}
    for precision in PRECISIONS:
        multiplying = multiply_adds_per_second(precision == "8-bit", options.threads)
        peaks[precision] = (reading, multiplying)
        print(f" {precision}: {multiplying / 1e9:.0f} billion multiply-adds/s in registers.", end="")
    precisions = PRECISIONS[:1] if options.quick else PRECISIONS
    with tempfile.TemporaryDirectory() as temporary:
        make_model(Path(temporary))
        models = (("GPT-2 124M", temporary), ("starter", STARTER))
        print(
            "\n\n| | rows | weights | multiply-adds | reading takes | multiplying takes | step takes | of the limit |"
        )
        print("|---|---|---|---|---|---|---|---|", flush=True)
        for name, folder in models:
            for precision in precisions:
                roofline(name, folder, precision, peaks[precision], 8 if options.quick else 40)
        parts = " | ".join([*list(PARTS)[:-1], "rest of the step"])
        print("\nTime a step, and the tokenizer's in the readers' threads:\n")
        print(f"| | chats | tokens/s | {parts} | tokenizer |")
        print("|---|---|---|---|---|---|---|---|", flush=True)
        for name, folder in models:
            for precision in precisions:
                for chats in (1, 8):
                    divide_time(name, folder, precision, chats)


if __name__ == "__main__":
    main()
