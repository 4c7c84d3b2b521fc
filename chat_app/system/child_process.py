"""A child process that works for this one: how it is started, how the two talk, and how it ended.

The child is a new interpreter (`spawn`), so that nothing which this process holds is in it. They talk through a pair of
connected sockets that only they hold: nothing listens anywhere, and a secret is not needed. When this process ends, in
whatever way, the child's end of the connection closes, and `Channel` ends the child.
"""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from chat_app.errors import ChildProcessDiedError
from chat_app.system.memory import is_out_of_memory

EXIT_OUT_OF_MEMORY, EXIT_THREAD_FAILED = 86, 87
_JOIN_SECONDS = 5.0
_CRASHES = frozenset(
    getattr(signal, name) for name in ("SIGABRT", "SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE") if hasattr(signal, name)
)


@dataclass(frozen=True)
class Child:
    """A running child process and this process's end of the connection with it."""

    process: BaseProcess
    connection: Connection

    @property
    def pid(self) -> int:
        """Its process id."""
        return int(self.process.pid or 0)

    def kill(self) -> None:
        """End it at once. It holds nothing that would have to be saved."""
        with contextlib.suppress(OSError):
            self.process.kill()

    def wait(self) -> int | None:
        """Wait for its end, which must be near. Returns the exit code; None where the system does not tell."""
        self.process.join(_JOIN_SECONDS)
        return self.process.exitcode


def start_child(run: Callable[..., None], *arguments: Any, name: str) -> Child:
    """Start a child process that calls `run(connection, *arguments)`.

    Args:
        run: a function of a module; importing that module in the child must not start anything.
        name: for lists of processes.

    Raises:
        ChildProcessDiedError: the system refuses.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=run, args=(there, *arguments), name=name, daemon=True)
    try:
        with _interrupts_blocked():
            process.start()
    except OSError as error:
        here.close()
        raise ChildProcessDiedError(f"A process cannot be started ({error.strerror or error}).") from error
    finally:
        there.close()  # Otherwise the end of the child would not close the connection.
    return Child(process, here)


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block SIGINT in this thread. The child inherits that, so that Ctrl-C in a terminal, which reaches both processes,
    leaves it alone: this process decides what ends when."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def prepare_child(vital_threads: Collection[str] = ()) -> None:
    """What every child does first: it leaves SIGINT to its parent, and writes to the log where native code crashes.

    Args:
        vital_threads: names of threads without which the process is of no use: an exception that ends one of them ends
            the process, so that the parent notices.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError, ValueError, AttributeError):  # Where there is no standard error.
        faulthandler.enable()
    report = threading.excepthook

    def end_process(failure: threading.ExceptHookArgs) -> None:
        try:
            report(failure)
        finally:
            if failure.thread is not None and failure.thread.name in vital_threads:
                ran_out = failure.exc_value is not None and is_out_of_memory(failure.exc_value)
                os._exit(EXIT_OUT_OF_MEMORY if ran_out else EXIT_THREAD_FAILED)

    threading.excepthook = end_process


class Channel:
    """The child's end of the connection: threads send, one thread receives, and the parent's end ends the process.

    Args:
        connection: with the parent.
    """

    def __init__(self, connection: Connection):
        self._connection = connection
        self._pending: deque[Any] = deque()
        self._sending = threading.Lock()

    def receive(self) -> Any:
        """The parent's next message. Once the parent is gone, the process exits."""
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            os._exit(0)

    def send(self, message: Any) -> None:
        """Send a message, in the order of the calls.

        What other threads have to send at the same moment goes along in the same write, as one list: on few processors
        each write takes time from the engine.
        """
        self._pending.append(message)
        while self._pending and self._sending.acquire(blocking=False):
            try:
                batch = []
                while self._pending:
                    batch.append(self._pending.popleft())
                if batch:
                    self._connection.send(batch)
            except OSError:  # The parent is gone.
                os._exit(0)
            except MemoryError:
                os._exit(EXIT_OUT_OF_MEMORY)
            finally:
                self._sending.release()


def explain_exit(code: int | None, what: str) -> ChildProcessDiedError:
    """What a person is told about the end of a child process that should not have ended.

    Args:
        code: its exit code; negative for the number of a signal.
        what: whose process it was, as in "The model's process".
    """
    if code == EXIT_OUT_OF_MEMORY:
        return ChildProcessDiedError(f"{what} ended because the memory ran out.")
    if code == EXIT_THREAD_FAILED:
        return ChildProcessDiedError(f"{what} crashed.")
    if code is not None and -code in _CRASHES:
        return ChildProcessDiedError(f"{what} crashed ({_signal_name(-code)}).")
    if code is not None and code < 0:
        often = "; often that is a lack of memory" if -code == getattr(signal, "SIGKILL", 9) else ""
        return ChildProcessDiedError(f"{what} was ended from outside ({_signal_name(-code)}){often}.")
    return ChildProcessDiedError(f"{what} ended" + (f" (code {code})." if code is not None else "."))


def _signal_name(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
