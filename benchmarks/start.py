"""How long somebody waits before anything happens: for the flags, for the page, and for the first step of a training.

    python -m benchmarks.start [--quick]

The page is asked for from the moment at which `python app.py` is started, and stands beside a Python that imports
gradio and does nothing else, one right after the other: the page's process imports neither torch nor transformers. A
training learns the sample from the starter with the defaults; it is stopped after its first step. Printed are medians
of several rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from chat_app.config.paths import Paths
from chat_app.runs.run import list_runs

ROOT = Path(__file__).resolve().parent.parent
IMPORTS = "import gradio"
LOOK_EVERY = 0.02
MOST_SECONDS = 300


@dataclass(frozen=True)
class Page:
    """Seconds from the start to the first page, to its model, and of the imports alone."""

    page: float
    model: float
    imports: float


@dataclass(frozen=True)
class Training:
    """Seconds from the start to the first line, to the layout of the rows, and to the end of the first step."""

    named: float
    laid_out: float
    step: float


@contextmanager
def a_process(arguments: list[str], home: Path) -> Iterator[tuple[subprocess.Popen[str], list[tuple[float, str]]]]:
    """A process, and what it says with the seconds from its start; it is ended afterwards."""
    environment = {**os.environ, "CHAT_APP_HOME": str(home), "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said: list[tuple[float, str]] = []

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            said.append((time.perf_counter() - started, line))

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield process, said
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
        listener.join()


def seconds_of(arguments: list[str]) -> float:
    """Of a Python from its start to its end."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def when_said(said: list[tuple[float, str]], text: str) -> float | None:
    """Seconds to the first line that has the text."""
    return next((seconds for seconds, line in said if text in line), None)


def wait_until(
    found: Callable[[], float | None], process: subprocess.Popen[str], said: list[tuple[float, str]]
) -> float:
    """Ask again and again until there is an answer; end the benchmark where none can come any more."""
    end = time.perf_counter() + MOST_SECONDS
    while not (answer := found()):
        if process.poll() is not None or time.perf_counter() > end:
            sys.exit("".join(line for _, line in said) or "Nothing happened.")
        time.sleep(LOOK_EVERY)
    return answer


def has_page(port: int) -> bool:
    """Whether the page is answered."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        with contextlib.closing(connection):
            connection.request("GET", "/")
            return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False


def first_page(home: Path) -> Page:
    """Start the app as a person does and wait for its page, and then for its model."""
    imports = seconds_of(["-c", IMPORTS])
    port = free_port()
    started = time.perf_counter()
    with a_process(["app.py", "--port", str(port)], home) as (process, said):
        page = wait_until(lambda: time.perf_counter() - started if has_page(port) else None, process, said)
        model = wait_until(lambda: when_said(said, "ready"), process, said)
    return Page(page, model, imports)


def first_step(home: Path) -> Training:
    """Teach the starter the sample until its first step is done."""
    paths = Paths(home)

    def has_step() -> bool:
        return any(run.state().step for run in list_runs(paths.runs))

    started = time.perf_counter()
    with a_process(["-m", "chat_app", "train", "--data", "sample_data/shop.tsv"], home) as (process, said):
        step = wait_until(lambda: time.perf_counter() - started if has_step() else None, process, said)
        named, laid_out = (when_said(said, text) or step for text in ("Run ", "rows to learn"))
    return Training(named, laid_out, step)


def row(name: str, goal: str, ours: list[float], peer: list[float] | None = None) -> None:
    """Print a line of the table."""
    beside = f"{statistics.median(peer):.2f} s" if peer else ""
    more = ""
    if peer:
        more = f"{statistics.median(one - other for one, other in zip(ours, peer, strict=True)):+.2f} s"
    print(f"| {name} | {statistics.median(ours):.2f} s | {beside} | {more} | {goal} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    rounds = 3 if parser.parse_args().quick else 7
    print(f"medians of {rounds} rounds\n")
    print("| | ours | imports | more than them | goal |\n|---|---|---|---|---|")
    for command in (["app.py"], ["-m", "chat_app"]):
        row(f"{' '.join(command)} --help", "<= 1 s", [seconds_of([*command, "--help"]) for _ in range(rounds)])
    with tempfile.TemporaryDirectory() as name:
        pages = [first_page(Path(name)) for _ in range(rounds + 1)][1:]  # The first one finds nothing in any cache.
        imports = [one.imports for one in pages]
        row("app.py to its first page", "<= 3.5 s", [one.page for one in pages], imports)
        row("app.py to its model", "", [one.model for one in pages], imports)
        steps = [first_step(Path(name) / str(number)) for number in range(rounds)]
        row("train to the name of its run", "", [one.named for one in steps])
        row("train to its rows", "", [one.laid_out for one in steps])
        row("train to its first step", "<= 10 s", [one.step for one in steps])


if __name__ == "__main__":
    main()
