"""What runs in a model's process: it loads one model, and streams its replies to the app.

The main thread loads. One thread receives; each reply has a thread that iterates the engine's stream and sends what
comes. Importing this module is cheap, because the app does so, too; torch is imported in the process.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import queue
import threading
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from chat_app.errors import ChatAppError
from chat_app.inference.worker.messages import (
    HEARTBEAT_SECONDS,
    CancelReply,
    FromApp,
    Heartbeat,
    Load,
    Loaded,
    LoadFailed,
    ReplyFailed,
    ReplyProgress,
    StartReply,
)
from chat_app.system.child_process import Channel, prepare_child
from chat_app.system.sent_errors import SentError

if TYPE_CHECKING:
    from chat_app.inference.loaded_model import LoadedModel

LOGGER = logging.getLogger(__name__)
VITAL_THREADS = ("receive", "beat", "reply", "engine")


def run_worker(connection: Connection) -> None:
    """The process: it serves the app until the app closes the connection or kills it."""
    prepare_child(VITAL_THREADS)
    Worker(Channel(connection)).run()


class Worker:
    """The model of this process and its replies under way.

    Args:
        channel: to the app.
    """

    def __init__(self, channel: Channel):
        self._channel = channel
        self._loads: queue.SimpleQueue[Load] = queue.SimpleQueue()
        self._model: LoadedModel | None = None
        self._replies: dict[int, threading.Event] = {}  # Cancel events; changed by several threads, each its own key.

    def run(self) -> None:
        """Load what the app asks for, and serve. It ends with the process."""
        for task in (self._receive, self._beat):
            threading.Thread(target=task, name=task.__name__.strip("_"), daemon=True).start()
        with contextlib.suppress(Exception):  # While the request is still on its way. A failure is reported below.
            import chat_app.inference.loaded_model  # noqa: F401
        while True:
            self._load(self._loads.get())

    def _load(self, wanted: Load) -> None:
        try:
            from chat_app.inference.loaded_model import load
            from chat_app.models.device import spread_over_gpus

            device = spread_over_gpus(wanted.config.device, wanted.taken)
            self._model = load(wanted.name, replace(wanted.config, device=device), wanted.paths)
            answer: Loaded | LoadFailed = Loaded(self._model.description)
        except Exception as error:  # The edge of the process: the app gets a sentence, the log the traceback.
            answer = LoadFailed(self._describe(error, "Loading the model"))
        gc.collect()
        gc.freeze()  # Libraries and model stay: looking through them for garbage would interrupt replies.
        self._channel.send(answer)

    def _receive(self) -> None:
        while True:
            message: FromApp = self._channel.receive()
            if isinstance(message, Load):
                self._loads.put(message)
            elif isinstance(message, StartReply):
                self._start_reply(message)
            elif isinstance(message, CancelReply) and (event := self._replies.get(message.number)) is not None:
                event.set()

    def _start_reply(self, wanted: StartReply) -> None:
        cancel_event = self._replies[wanted.number] = threading.Event()
        try:
            threading.Thread(target=self._reply, args=(wanted, cancel_event), name="reply", daemon=True).start()
        except (RuntimeError, MemoryError) as error:  # There is no room for the stack of a thread.
            del self._replies[wanted.number]
            self._channel.send(ReplyFailed(wanted.number, self._describe(error, "The model")))

    def _reply(self, wanted: StartReply, cancel_event: threading.Event) -> None:
        number = wanted.number
        try:
            if self._model is None:
                raise ChatAppError("The model is not loaded yet.", advice="Ask again.")
            for event in self._model.stream(wanted.request, cancel_event):
                self._channel.send(ReplyProgress(number, event))
        except Exception as error:  # The edge of the process.
            self._channel.send(ReplyFailed(number, self._describe(error, "The model")))
        finally:
            self._replies.pop(number, None)

    def _beat(self) -> None:
        while True:
            self._channel.send(Heartbeat())
            time.sleep(HEARTBEAT_SECONDS)

    def _describe(self, error: Exception, what: str) -> SentError:
        if not isinstance(error, ChatAppError):
            LOGGER.error("%s failed", what, exc_info=error)
        return SentError.of(error, what)
