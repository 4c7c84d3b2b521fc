"""The app's side of one model's process: starts and kills it, asks it for replies, notices when it dies or hangs.

One thread reads what the process sends and puts each event into the queue of the reply that it belongs to.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any, TypeAlias

import psutil

from chat_app.config.loading import LoadConfig
from chat_app.config.paths import Paths
from chat_app.errors import ChatAppError, ChildProcessDiedError
from chat_app.inference.backend import ModelDescription, ReplyEnd, ReplyEvent, ReplyRequest
from chat_app.inference.worker.child import run_worker
from chat_app.inference.worker.messages import (
    CancelReply,
    FromApp,
    FromWorker,
    Load,
    Loaded,
    LoadFailed,
    ReplyFailed,
    ReplyProgress,
    StartReply,
)
from chat_app.system.child_process import explain_exit, start_child
from chat_app.system.sent_errors import SentError

LOGGER = logging.getLogger(__name__)
TICK_SECONDS = 1.0
SUSPECT_SECONDS = 3.0  # Silent for longer than a heartbeat: is the process stopped?
HUNG_SECONDS = 8.0
HUNG_WHILE_LOADING_SECONDS = 120.0  # Importing and compiling may keep Python from running for long.
CANCEL_POLL_SECONDS = 0.05
WHAT = "The model's process"
Run: TypeAlias = Callable[..., None]
_Item: TypeAlias = ReplyEvent | SentError


class WorkerProcess:
    """A process that holds one model. It is started at once.

    Args:
        on_death: called once, from the reading thread, when the process has ended without `close`, before the replies
            under way are told.
        run: what the process runs.
    """

    def __init__(self, on_death: Callable[[WorkerProcess, ChatAppError], None], run: Run = run_worker):
        self._on_death = on_death
        self._child = start_child(run, name="chat_app model")
        self._sending = threading.Lock()
        self._numbers = itertools.count()
        self._loads: queue.SimpleQueue[ModelDescription | SentError] = queue.SimpleQueue()
        self._lock = threading.Lock()  # Guards the next two attributes.
        self._replies: dict[int, queue.SimpleQueue[_Item]] = {}
        self._end: SentError | None = None
        self._is_loading = True
        self._closing: ChatAppError | None = None
        self._fault = ""  # Why this side has given it up.
        self._heard = time.monotonic()
        self._has_ended = threading.Event()
        self._reader = threading.Thread(target=self._read, name="model reader", daemon=True)
        self._reader.start()
        threading.Thread(target=self._watch, name="model watcher", daemon=True).start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    def load(self, name: str, config: LoadConfig, paths: Paths, taken: Mapping[str, int]) -> ModelDescription:
        """Let it load a model, and wait for that.

        Args:
            taken: as in `Load`.

        Raises:
            ModelError, FormatError, SettingError: as `loaded_model.load`; the process is still there then.
            ChildProcessDiedError: it ended meanwhile.
        """
        self._is_loading = True
        self._send(Load(name, config, paths, dict(taken)))
        outcome = self._loads.get()
        if isinstance(outcome, SentError):
            raise outcome.rebuild()
        self._is_loading = False
        return outcome

    def stream(
        self, request: ReplyRequest, cancel_event: threading.Event | None = None
    ) -> Generator[ReplyEvent, None, None]:
        """A reply, as `ReplyBackend.stream` describes it.

        Raises:
            ChildProcessDiedError: the process ended, crashed or hung; what came before is the reply so far.
        """
        number, events = next(self._numbers), queue.SimpleQueue[_Item]()
        with self._lock:
            if self._end is not None:
                raise self._end.rebuild()
            self._replies[number] = events
        is_over = is_cancelled = False
        try:
            self._send(StartReply(number, request))
            while not is_over:
                event = _take(events)
                if not is_cancelled and cancel_event is not None and cancel_event.is_set():
                    is_cancelled = True
                    self._send(CancelReply(number))
                if isinstance(event, SentError):
                    is_over = True
                    raise event.rebuild()
                if event is not None:
                    is_over = isinstance(event, ReplyEnd)
                    yield event
        finally:
            with self._lock:
                self._replies.pop(number, None)
            if not is_over and not is_cancelled:
                self._send(CancelReply(number))

    def close(self, reason: ChatAppError | None = None) -> None:
        """Kill the process. Replies under way end with `reason`; its memory is free when this returns."""
        self._closing = reason or ChatAppError(
            "The model was unloaded before the reply was finished.", advice="Ask again."
        )
        self._child.kill()
        if threading.current_thread() is not self._reader:
            self._reader.join()

    def _send(self, message: FromApp) -> None:
        try:
            with self._sending:
                self._child.connection.send(message)
        except OSError:
            pass  # It has ended: the reading thread notices, and tells all that wait.

    def _read(self) -> None:
        """The reading thread: hand over what comes until the process ends."""
        try:
            while True:
                for message in self._child.connection.recv():
                    self._dispatch(message)
                self._heard = time.monotonic()
        except (EOFError, OSError):
            pass  # The process has ended.
        except Exception as error:  # It sent what cannot be read, and is of no use any more.
            self._fault = f"{WHAT} sent what cannot be read ({type(error).__name__}: {error})."
        self._finish()

    def _watch(self) -> None:
        """The watching thread: kill a process that is silent for too long; its end is noticed as any other."""
        ticked = time.monotonic()
        while not self._has_ended.wait(TICK_SECONDS):
            now = time.monotonic()
            if now - ticked > TICK_SECONDS + SUSPECT_SECONDS:
                self._heard = now  # This process itself was stopped, or the computer slept: count anew.
            ticked, silence = now, now - self._heard
            limit = HUNG_WHILE_LOADING_SECONDS if self._is_loading else HUNG_SECONDS
            if silence > limit or (silence > SUSPECT_SECONDS and self._is_stopped()):
                self._fault = f"{WHAT} did not respond any more."
                self._child.kill()

    def _is_stopped(self) -> bool:
        try:
            return bool(psutil.Process(self.pid).status() == psutil.STATUS_STOPPED)
        except psutil.Error:
            return False

    def _dispatch(self, message: FromWorker) -> None:
        if isinstance(message, ReplyProgress):
            self._put(message.number, message.event)
        elif isinstance(message, ReplyFailed):
            self._put(message.number, message.error)
        elif isinstance(message, Loaded):
            self._loads.put(message.description)
        elif isinstance(message, LoadFailed):
            self._loads.put(message.error)

    def _put(self, number: int, item: Any) -> None:
        with self._lock:
            events = self._replies.get(number)
        if events is not None:  # Otherwise its reader is gone.
            events.put(item)

    def _finish(self) -> None:
        """The process has ended, or is of no use any more: tell who waits for it, and why, whatever else fails here."""
        self._has_ended.set()
        error = self._closing
        try:
            code = self._reap()
            if error is None:
                error = ChildProcessDiedError(self._fault) if self._fault else explain_exit(code, WHAT)
                self._on_death(self, error)
        except Exception:  # The thread's edge.
            LOGGER.exception("the end of a model's process was not handled in order")
        with self._lock:
            self._end = SentError.of(error or explain_exit(None, WHAT))
            waiting = list(self._replies.values())
        for events in waiting:
            events.put(self._end)
        self._loads.put(self._end)

    def _reap(self) -> int | None:
        """End the process for certain, and close the connection. Returns its exit code, if the system tells it."""
        self._child.kill()
        code = self._child.wait()
        with self._sending, contextlib.suppress(OSError):
            self._child.connection.close()
        return code


def _take(events: queue.SimpleQueue[_Item]) -> _Item | None:
    """The next event; None if none came within a moment, so that the caller can look whether it is cancelled."""
    try:
        return events.get(timeout=CANCEL_POLL_SECONDS)
    except queue.Empty:
        return None
