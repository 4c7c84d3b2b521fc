"""What the tests let a model's process run: the real thing, with a fault in it or with someone who looks on.

A test names one of these with `functools.partial`; the process imports this module.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
import types
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from chat_app.errors import ModelNotFoundError, NotEnoughMemoryError
from chat_app.inference.backend import ModelDescription, ReplyEnd, ReplyEvent, ReplyRequest, TextDelta
from chat_app.inference.worker.child import run_worker

FAST_STEPS = 8
ABORT = "abort now"
SECONDS_BETWEEN_LOOKS = 0.02
SCRIPTED_BYTES, SCRIPTED_NEED = 400, 1000  # What a scripted model says that it takes, and that it needs.


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


class ScriptedModel:
    """In place of a loaded model: it writes the same word again and again, and needs no torch, so it is there at once.

    Args:
        name: a folder.
        seconds: between two words.
    """

    def __init__(self, name: str, seconds: float):
        if not Path(name).is_dir():
            raise ModelNotFoundError(f"There is no folder '{name}'.")
        self.description = ModelDescription(
            name, "folder", is_ready=True, window=128, device="cpu", memory_bytes=SCRIPTED_BYTES
        )
        self._seconds = seconds

    def stream(self, request: ReplyRequest, cancel_event: threading.Event) -> Iterator[ReplyEvent]:
        """The reply."""
        words = 0
        while words < request.sampling.max_new_tokens and not cancel_event.is_set():
            yield TextDelta("word ")
            words += 1
            time.sleep(self._seconds)
        reason = "cancelled" if cancel_event.is_set() else "length"
        yield ReplyEnd("word " * words, reason, words, 3, 128, 1.0, 0.1)  # type: ignore[arg-type]


def run_scripted(seconds: float, connection: Connection) -> None:
    """A model that is there at once, and writes a word every `seconds`."""
    _replace_load(lambda name, config, paths: ScriptedModel(name, seconds))
    run_worker(connection)


def run_in_tight_memory(file: Path, connection: Connection) -> None:
    """A model that is there at once if it fits. In the file stand bytes that are free, more bytes that are free once a
    process has ended, and the id of that process."""

    def load(name: str, config: Any, paths: Any) -> ScriptedModel:
        free, more, pid = map(int, file.read_text().split())
        if not psutil.pid_exists(pid):
            free += more
        if free < SCRIPTED_NEED:
            raise NotEnoughMemoryError(f"It needs {SCRIPTED_NEED} bytes, and {free} are free.", SCRIPTED_NEED, free)
        return ScriptedModel(name, 0.0)

    _replace_load(load)
    run_worker(connection)


def run_loading_for_ever(connection: Connection) -> None:
    """The model never gets loaded."""
    _replace_load(lambda name, config, paths: threading.Event().wait())
    run_worker(connection)


def _replace_load(load: Any) -> None:
    """Replace the modules of the real thing, so that they are not imported."""
    sys.modules["chat_app.inference.loaded_model"] = types.SimpleNamespace(load=load)  # type: ignore[assignment]
    alone = types.SimpleNamespace(spread_over_gpus=lambda device, taken: device)
    sys.modules["chat_app.models.device"] = alone  # type: ignore[assignment]


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
