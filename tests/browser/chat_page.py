"""The chat page on a server of this process, with a backend that says what a test tells it to, and when.

A model would cost seconds for each test, and no test could choose the moment at which a reply goes on.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI

from chat_app.config.paths import Paths
from chat_app.config.server import ServerRules
from chat_app.errors import ChatAppError
from chat_app.inference.backend import ModelDescription, ReplyEnd, ReplyEvent, ReplyRequest, TextDelta
from chat_app.services import Services
from chat_app.ui.chat.streaming import LiveReplies
from chat_app.ui.components.theme import page_arguments
from chat_app.ui.page import build_page

WINDOW = 1024
SECONDS_TO_WAIT = 120


class ScriptedBackend:
    """In place of a model.

    Attributes:
        asked: the requests, in their order.
        is_held: whether a reply stops after its first word until `go_on`.
        words: of each reply. Its number stands before them.
        end_reason: why replies end that are not stopped.
        refusal: what is raised instead of a reply.
    """

    name = "scripted"
    description = ModelDescription("scripted", "remote", is_ready=True, window=WINDOW, host="scripted")

    def __init__(self) -> None:
        self._go = threading.Event()
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget what was asked, and everything a test has set."""
        self.asked: list[ReplyRequest] = []
        self.is_held = False
        self.words = ["and", "then", "the", "end"]
        self.end_reason: Any = "end"
        self.refusal: ChatAppError | None = None

    def connect(self) -> None:
        """It is always there."""

    def close(self) -> None:
        """It holds nothing."""

    def hold(self) -> None:
        """From now on, replies stop after their first word."""
        self._go.clear()
        self.is_held = True

    def go_on(self) -> None:
        """Let replies go on that were held."""
        self.is_held = False
        self._go.set()

    def stream(
        self, request: ReplyRequest, cancel_event: threading.Event | None = None
    ) -> Generator[ReplyEvent, None, None]:
        """A reply of its number and the words."""
        self.asked.append(request)
        if self.refusal is not None:
            raise self.refusal
        text, reason = request.prefix, self.end_reason
        for word in [f"Reply {len(self.asked)}", *(f" {word}" for word in self.words)]:
            text += word
            yield TextDelta(word)
            if self.is_held:
                self._wait(cancel_event)
            if cancel_event is not None and cancel_event.is_set():
                reason = "cancelled"
                break
        yield ReplyEnd(text, reason, len(self.words), 3, WINDOW, 1.0, 0.1)

    def _wait(self, cancel_event: threading.Event | None) -> None:
        """Wait for `go_on`, or until the reply is cancelled; a test that has failed must not leave a thread behind."""
        for _ in range(SECONDS_TO_WAIT * 50):
            if self._go.wait(0.02) or (cancel_event is not None and cancel_event.is_set()):
                return


class ChatServer:
    """A server with the page, which can be ended and started again on its port.

    Args:
        home: the home folder.

    Attributes:
        backend: what replies.
        address: of the page.
    """

    def __init__(self, home: Path):
        self.backend = ScriptedBackend()
        self._home = home
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self._port}"

    @contextmanager
    def run(self) -> Iterator[None]:
        """Serve until the context ends."""
        services: Any = Services(Paths(self._home), ServerRules(training=False), remote=self.backend)
        live, app = LiveReplies(), FastAPI()
        live.add_to(app)
        gr.mount_gradio_app(app, build_page(services, live), path="/", **page_arguments())
        config = uvicorn.Config(app, "127.0.0.1", self._port, log_level="error", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started and thread.is_alive():
            thread.join(0.02)
        try:
            yield
        finally:
            self.backend.go_on()
            server.should_exit = True
            thread.join()
