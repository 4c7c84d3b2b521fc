"""A reply on its way to the page while it is being written: its text alone, beside Gradio's events.

An event of Gradio's goes through the whole page, on the server and in the browser; that takes four times what a few
words cost by themselves, and on the same processor it is taken from the engine. So an event tells the page the name
under which it can follow the reply, as server-sent events of nothing but text, and Gradio only begins and ends it.
Knows no components and no model.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse

from chat_app.ui.chat.session import ChatTurn

PATH = "/gradio_api/live/"  # Beside Gradio's own, so that the guard lets only those in who may see the page.
# Each redraw takes processor time from the engine, in the browser and in the server.
SECONDS_BETWEEN_DRAWS = (0.1, 0.25)  # After the first tokens, and later.
SECONDS_TO_FOLLOW = 0.3  # A page that has not connected by then probably cannot, for example because of a proxy.
_SECONDS_BETWEEN_CHECKS = 0.02  # How often to check for the first text.
_BACKOFF = 2.0
_NAME_BYTES = 18
_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


class RedrawThrottle:
    """Decides when a growing reply is drawn again: its first tokens at once, then with growing pauses.

    Args:
        first: seconds until its first tokens may be drawn.

    Attributes:
        wait: seconds from one redraw to the next.
    """

    def __init__(self, first: float = 0.0, clock: Callable[[], float] = time.monotonic):
        self.wait = SECONDS_BETWEEN_DRAWS[0] / _BACKOFF
        self._clock = clock
        self._next = clock() + first

    def is_due(self) -> bool:
        """Whether it is time to draw."""
        return self._clock() >= self._next

    def record_draw(self) -> None:
        """Note that the reply was drawn, and lengthen the pause until the next time."""
        self.wait = min(_BACKOFF * self.wait, SECONDS_BETWEEN_DRAWS[1])
        self._next = self._clock() + self.wait


class LiveReply:
    """A reply that is being generated.

    Args:
        turn: the turn whose text another thread extends.
    """

    def __init__(self, turn: ChatTurn):
        self.name = secrets.token_urlsafe(_NAME_BYTES)
        self._turn = turn
        self._readers = 0
        self._is_over = False

    @property
    def is_read(self) -> bool:
        """Whether a page is connected to its stream."""
        return self._readers > 0

    def end(self) -> None:
        """Note that no more text will come."""
        self._is_over = True

    async def stream_text(self) -> AsyncIterator[str]:
        """Yield its text from the beginning, in pieces, as often as it is to be drawn."""
        throttle, sent = RedrawThrottle(), 0
        self._readers += 1
        try:
            while True:
                is_over, text = self._is_over, self._turn.text
                if len(text) > sent:
                    yield text[sent:]
                    sent = len(text)
                    throttle.record_draw()
                if is_over:
                    return
                await asyncio.sleep(throttle.wait if sent else _SECONDS_BETWEEN_CHECKS)
        finally:
            self._readers -= 1


class LiveReplies:
    """The replies that are being generated, by unguessable names."""

    def __init__(self) -> None:
        self._open: dict[str, LiveReply] = {}

    def add_to(self, app: FastAPI) -> None:
        """Add the route of the streams to an application. Call this before Gradio is mounted."""
        app.add_api_route(PATH + "{name}", self.follow, methods=["GET"], response_model=None, include_in_schema=False)

    @contextmanager
    def open(self, turn: ChatTurn) -> Iterator[LiveReply]:
        """Open a reply for streaming until the context ends."""
        reply = LiveReply(turn)
        self._open[reply.name] = reply
        try:
            yield reply
        finally:
            reply.end()
            del self._open[reply.name]

    async def follow(self, name: str) -> StreamingResponse:
        """Answer with the text of a reply as server-sent events."""
        reply = self._open.get(name)
        if reply is None:
            raise HTTPException(404, "This reply is no longer being written.")
        events = (f"data: {json.dumps(piece)}\n\n" async for piece in reply.stream_text())
        return StreamingResponse(events, media_type="text/event-stream", headers=_HEADERS)
