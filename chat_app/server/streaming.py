"""Streams from threads that generate replies into the asyncio event loop that sends them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import anyio
from starlette.requests import Request

from chat_app.errors import BusyError

Item = TypeVar("Item")


@dataclass(frozen=True)
class _End:
    """How the stream ended: with an error, or None."""

    error: Exception | None


ReplyFactory = Callable[[threading.Event], Generator[Item, None, None]]


class StreamRegistry:
    """All streams that run for the HTTP API: it limits their number and can stop them all.

    Not thread-safe: it is used from the server's event loop only.
    """

    def __init__(self, most: int):
        self._max_streams = most
        self._running: set[ThreadToAsyncStream[Any]] = set()

    def start(self, factories: Sequence[ReplyFactory[Item]]) -> ThreadToAsyncStream[Item]:
        """Start the generators of one request, each in a thread.

        Raises:
            BusyError: too many streams are running.
        """
        if len(self) + len(factories) > self._max_streams:
            raise BusyError("Too many programs are waiting for replies.", advice="Try again in a moment.")
        stream = ThreadToAsyncStream(factories, self._running.discard)
        self._running.add(stream)
        return stream

    def stop_all(self) -> None:
        """Ask every generator to end at its next item."""
        for stream in self._running:
            stream.stopped.set()

    def __len__(self) -> int:
        return sum(stream.replies for stream in self._running)


class ThreadToAsyncStream(Generic[Item]):
    """Runs generators, each in a thread, and hands their items to a coroutine. The first error ends them all.

    Args:
        factories: each makes a generator from a cancel event; the generator ends soon after the event is set.
        when_done: called in the event loop when all threads have ended.
    """

    def __init__(self, factories: Sequence[ReplyFactory[Item]], when_done: Callable[[ThreadToAsyncStream[Any]], None]):
        self.stopped = threading.Event()
        self.replies = self._left = len(factories)
        self._when_done = when_done
        self._loop = asyncio.get_running_loop()
        self._items: deque[tuple[int, Item]] = deque()
        self._end: _End | None = None  # Set in the event loop, after all items of its thread have arrived.
        self._arrived, self._over = asyncio.Event(), asyncio.Event()
        self._is_awaited = False
        for number, factory in enumerate(factories):
            threading.Thread(target=self._run, args=(number, factory), name="reply", daemon=True).start()

    async def next(self) -> tuple[int, Item] | None:
        """The next item with the index of its generator; None after the last.

        Raises:
            Whatever a generator raised.
        """
        # Threads wake the event loop only while a coroutine waits: each wake-up takes CPU time from the decode step.
        self._is_awaited = True
        while not self._items and self._end is None:
            await self._arrived.wait()
            self._arrived.clear()
        self._is_awaited = False
        if self._items:
            return self._items.popleft()
        self._check_end()
        return None

    async def pause(self, seconds: float) -> None:
        """Let items accumulate for that long, or until the last has arrived."""
        with anyio.move_on_after(seconds):
            await self._over.wait()

    async def all(self) -> list[tuple[int, Item]]:
        """All items, once the last has arrived; to be used instead of `next`.

        Raises:
            Whatever a generator raised.
        """
        await self._over.wait()
        self._check_end()
        return self.ready()

    def _check_end(self) -> None:
        assert self._end is not None, "called after the last item"
        if self._end.error is not None:
            raise self._end.error

    def ready(self) -> list[tuple[int, Item]]:
        """The items that have arrived, without waiting."""
        return [self._items.popleft() for _ in range(len(self._items))]

    def _run(self, number: int, factory: ReplyFactory[Item]) -> None:
        end = _End(None)
        try:
            with contextlib.closing(factory(self.stopped)) as items:
                for item in items:
                    if self.stopped.is_set():
                        break
                    self._items.append((number, item))
                    if self._is_awaited:
                        self._call_in_loop(self._arrived.set)
        except Exception as error:  # The edge of the thread: the coroutine that awaits the items raises it again.
            end = _End(error)
            self.stopped.set()
        self._call_in_loop(partial(self._finish_generator, end))

    def _finish_generator(self, end: _End) -> None:
        self._left -= 1
        if self._end is None and (end.error is not None or not self._left):
            self._end = end
            self._arrived.set()
            self._over.set()
        if not self._left:
            self._when_done(self)

    def _call_in_loop(self, what: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # The event loop is closed: the server has shut down.
            self._loop.call_soon_threadsafe(what)


@contextlib.asynccontextmanager
async def stop_on_disconnect(request: Request, stream: ThreadToAsyncStream[Item]) -> AsyncIterator[None]:
    """Inside the block a client that disconnects stops the stream; so does an exception."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        stream.stopped.set()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except BaseException:
        stream.stopped.set()
        raise
    finally:
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watcher
