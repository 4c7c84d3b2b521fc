"""What the tests let a model's process run: the real thing, with a fault in it or with someone who looks on.

A test names one of these with `functools.partial`; the process imports this module.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from chat_app.inference.worker.child import run_worker

FAST_STEPS = 8
ABORT = "abort now"
SECONDS_BETWEEN_LOOKS = 0.02


def run_slowly(seconds: float, connection: Connection) -> None:
    """After its first steps each step takes `seconds` more, so that a reply lasts until the test has done its part."""
    _after_load(lambda loaded: _slow_down(loaded, seconds))
    run_worker(connection)


def run_observed(seconds: float, file: Path, connection: Connection) -> None:
    """As `run_slowly`; the number of requests in the engine stands in a file."""

    def observe(loaded: Any) -> None:
        _slow_down(loaded, seconds)
        threading.Thread(target=_write_requests, args=(loaded.engine, file), daemon=True).start()

    _after_load(observe)
    run_worker(connection)


def run_until_asked_to_abort(connection: Connection) -> None:
    """A step whose prompt was asked to abort calls abort(), as the C library does on a corrupted heap."""

    def crash_on_request(loaded: Any) -> None:
        really = loaded.encoder.prompt

        def prompt(conversation: Any, *args: Any, **more: Any) -> Any:
            if conversation.turns[-1].text == ABORT:
                os.abort()
            return really(conversation, *args, **more)

        loaded.encoder.prompt = prompt

    _after_load(crash_on_request)
    run_worker(connection)


def run_in_tight_memory(file: Path, connection: Connection) -> None:
    """The free memory stands in a file: bytes, and more bytes that are free once a process has ended."""
    from chat_app.system import memory

    def free_memory(device: str) -> int:
        free, more, pid = map(int, file.read_text().split())
        return free if psutil.pid_exists(pid) else free + more

    memory.free_memory = free_memory
    run_worker(connection)


def run_loading_for_ever(connection: Connection) -> None:
    """The model never gets loaded."""
    import chat_app.inference.loaded_model as module

    def load(*args: Any) -> Any:
        threading.Event().wait()

    module.load = load
    run_worker(connection)


def _after_load(change: Any) -> None:
    import chat_app.inference.loaded_model as module

    really = module.load

    def load(*args: Any) -> Any:
        loaded = really(*args)
        change(loaded)
        return loaded

    module.load = load


def _slow_down(loaded: Any, seconds: float) -> None:
    runner, steps = loaded.engine._runner, itertools.count()
    really = runner.step

    def step(chunks: Any) -> Any:
        if next(steps) >= FAST_STEPS:
            time.sleep(seconds)
        return really(chunks)

    runner.step = step


def _write_requests(engine: Any, file: Path) -> None:
    shown = -1
    while True:
        if (now := engine.requests) != shown:
            shown = now
            new = file.with_suffix(".new")
            new.write_text(str(now))
            new.replace(file)
        time.sleep(SECONDS_BETWEEN_LOOKS)
