"""A piece of work in a child process of its own: what crashes there, or runs out of memory, ends only that work.

The function is named, not passed, because importing its module may take seconds and hundreds of megabytes that this
process should not spend. The child runs at a lower priority and with half of the processor threads: chats go on.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

from chat_app.system.child_process import Channel, Child, explain_exit, prepare_child, start_child
from chat_app.system.progress import Progress, ProgressCallback
from chat_app.system.sent_errors import SentError

POLL_SECONDS = 0.25
NICE = 10
WHAT = "The process that did this"


@dataclass(frozen=True)
class _Result:
    value: Any


@dataclass(frozen=True)
class _Failure:
    error: SentError | OSError


def run_in_child(function: str, *arguments: Any, progress: ProgressCallback | None = None, **named: Any) -> Any:
    """Call a function in a child process, and wait for what it returns.

    Args:
        function: its module and its name, such as "chat_app.evaluation.runner.evaluate_models".
        arguments, named: what it is called with; as its result, they travel between the processes.
        progress: if given, the function is called with a `progress` of its own, whose reports arrive here. Whatever
            this callback raises ends the work; it is also called now and then without news, so that it can.

    Raises:
        ChatAppError, OSError: as the function.
        ChildProcessDiedError: the process ended, crashed or ran out of memory.
    """
    child = start_child(_run, function, arguments, named, progress is not None, name="chat_app job")
    try:
        for message in _messages(child, progress):
            if isinstance(message, _Result):
                return message.value
            raise message.error.rebuild() if isinstance(message.error, SentError) else message.error
        raise explain_exit(child.wait(), WHAT)
    finally:
        child.kill()
        child.wait()
        child.connection.close()


def _messages(child: Child, progress: ProgressCallback | None) -> Iterator[_Result | _Failure]:
    """What the child sends, until it ends; its progress is reported."""
    now = Progress()
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            batch = child.connection.recv() if child.connection.poll(POLL_SECONDS) else [now]
            for message in batch:
                if not isinstance(message, Progress):
                    yield message
                elif progress is not None:
                    now = message
                    progress(now)


def _run(
    connection: Connection, function: str, arguments: tuple[Any, ...], named: dict[str, Any], reports: bool
) -> None:
    """The child."""
    prepare_child()
    channel = Channel(connection)
    # Receives nothing, and ends the process once its parent has ended.
    threading.Thread(target=channel.receive, name="receive", daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(NICE)
    if reports:
        named = {**named, "progress": channel.send}
    try:
        module, _, name = function.rpartition(".")
        called = getattr(import_module(module), name)
        _halve_threads()
        outcome: _Result | _Failure = _Result(called(*arguments, **named))
    except OSError as error:
        outcome = _Failure(OSError(error.errno, error.strerror or str(error)))
    except Exception as error:  # The edge of the process.
        outcome = _Failure(SentError.of(error, "This"))
    channel.send(outcome)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # Python's own end can crash in libraries whose threads still run.


def _halve_threads() -> None:
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(max((torch.get_num_threads() + 1) // 2, 1))
