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
# A drawing takes the browser and the server so long that the engine, on the same processor, would be held up by more.
SECONDS_BETWEEN_DRAWS = (0.1, 0.25)  # After the first tokens, and later: nobody reads so fast.
SECONDS_TO_FOLLOW = 0.3  # A page that has not begun to by then cannot: a proxy may let nothing through.
_SECONDS_BETWEEN_CHECKS = 0.02  # So often somebody looks whether there is any text yet.
_BACKOFF = 2.0
_NAME_BYTES = 18
_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


class RedrawThrottle:
    """When a reply that grows is drawn again: its first tokens at once, then ever more seldom.

    Args:
        first: seconds until its first tokens may be drawn.

    Attributes:
        wait: seconds from one drawing to the next.
    """

    def __init__(self, first: float = 0.0, clock: Callable[[], float] = time.monotonic):
        self.wait = SECONDS_BETWEEN_DRAWS[0] / _BACKOFF
        self._clock = clock
        self._next = clock() + first

    def is_due(self) -> bool:
        """Whether to draw now."""
        return self._clock() >= self._next

    def record_draw(self) -> None:
        """It was drawn now."""
        self.wait = min(_BACKOFF * self.wait, SECONDS_BETWEEN_DRAWS[1])
        self._next = self._clock() + self.wait


class LiveReply:
    """One reply that is being written.

    Args:
        turn: its text grows, in another thread.
    """

    def __init__(self, turn: ChatTurn):
        self.name = secrets.token_urlsafe(_NAME_BYTES)
        self._turn = turn
        self._readers = 0
        self._is_over = False

    @property
    def is_read(self) -> bool:
        """Whether a page follows it."""
        return self._readers > 0

    def end(self) -> None:
        """Nothing more comes."""
        self._is_over = True

    async def stream_text(self) -> AsyncIterator[str]:
        """Its text from the beginning, in pieces, as often as it is to be drawn."""
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
    """The replies that are being written for pages, by names that nobody can guess."""

    def __init__(self) -> None:
        self._open: dict[str, LiveReply] = {}

    def add_to(self, app: FastAPI) -> None:
        """Put the route into an application, before Gradio's own."""
        app.add_api_route(PATH + "{name}", self.follow, methods=["GET"], response_model=None, include_in_schema=False)

    @contextmanager
    def open(self, turn: ChatTurn) -> Iterator[LiveReply]:
        """A reply that can be followed while in here."""
        reply = LiveReply(turn)
        self._open[reply.name] = reply
        try:
            yield reply
        finally:
            reply.end()
            del self._open[reply.name]

    async def follow(self, name: str) -> StreamingResponse:
        """The text of a reply as server-sent events."""
        reply = self._open.get(name)
        if reply is None:
            raise HTTPException(404, "This reply is no longer being written.")
        events = (f"data: {json.dumps(piece)}\n\n" async for piece in reply.stream_text())
        return StreamingResponse(events, media_type="text/event-stream", headers=_HEADERS)
