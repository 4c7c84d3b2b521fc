"""The owner of a run: which process works on it, kept fresh by a heartbeat.

On one computer the run's lock tells whether a process works on it. Some network file systems share no locks between
computers; there the heartbeat tells.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from chat_app.runs.files import read_json, write_json

HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 120.0  # A computer that is busy, or whose clock is a little off, is still alive.
_FILE = "owner.json"


@contextlib.contextmanager
def keep_heartbeat(folder: Path) -> Iterator[None]:
    """Be the owner of a run for the length of a block."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(HEARTBEAT_SECONDS):
            _write(folder)

    _write(folder)
    thread = threading.Thread(target=beat, name="heartbeat of the run", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(OSError):
            (folder / _FILE).unlink(missing_ok=True)


def find_owner_elsewhere(folder: Path) -> str:
    """The name of another computer whose process works on this run and is alive; empty if there is none."""
    values = read_json(folder / _FILE)
    if not isinstance(values, dict):
        return ""
    host, beat = values.get("host"), values.get("time")
    if not isinstance(host, str) or host == socket.gethostname() or not isinstance(beat, (int, float)):
        return ""
    return host if time.time() - beat < STALE_SECONDS else ""


def _write(folder: Path) -> None:
    with contextlib.suppress(OSError):  # A full disk must not end a training by way of its heartbeat.
        write_json(folder / _FILE, {"host": socket.gethostname(), "process": os.getpid(), "time": time.time()})
