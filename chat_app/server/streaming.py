"""From the threads that write replies to the asyncio server that sends them."""

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
    error: Exception | None


Make = Callable[[threading.Event], Generator[Item, None, None]]


class Relays:
    """The replies that are being written for programs: so many at once, and all of them can be stopped.

    Used from the server's event loop only.
    """

    def __init__(self, most: int):
        self._most = most
        self._running: set[Relay[Any]] = set()

    def start(self, makes: Sequence[Make[Item]]) -> Relay[Item]:
        """Begin the replies of one request, all at the same time.

        Raises:
            BusyError: there are too many.
        """
        if len(self) + len(makes) > self._most:
            raise BusyError("Too many programs are waiting for replies.", advice="Try again in a moment.")
        relay = Relay(makes, self._running.discard)
        self._running.add(relay)
        return relay

    def stop_all(self) -> None:
        """Let every one end where it is."""
        for relay in self._running:
            relay.stopped.set()

    def __len__(self) -> int:
        return sum(relay.replies for relay in self._running)


class Relay(Generic[Item]):
    """Runs generators, each in a thread of its own, which also closes it. The first error ends them all.

    Args:
        makes: make the generators; they end soon after the event they are given is set.
        when_done: called in the event loop when all threads are done.
    """

    def __init__(self, makes: Sequence[Make[Item]], when_done: Callable[[Relay[Any]], None]):
        self.stopped = threading.Event()
        self.replies = self._left = len(makes)
        self._when_done = when_done
        self._loop = asyncio.get_running_loop()
        self._items: deque[tuple[int, Item]] = deque()
        self._end: _End | None = None  # Set in the event loop, after all items of its thread are there.
        self._arrived, self._over = asyncio.Event(), asyncio.Event()
        self._is_awaited = False
        for number, make in enumerate(makes):
            threading.Thread(target=self._run, args=(number, make), name="reply", daemon=True).start()

    async def next(self) -> tuple[int, Item] | None:
        """The next item and the number of its generator; None after the last.

        Raises:
            Whatever a generator raised.
        """
        # The loop is woken only while somebody waits: each waking takes the processor from who writes.
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
        """Let items gather for so long, or until the last is there."""
        with anyio.move_on_after(seconds):
            await self._over.wait()

    async def all(self) -> list[tuple[int, Item]]:
        """All items, once the last is there; for who has awaited none before.

        Raises:
            Whatever a generator raised.
        """
        await self._over.wait()
        self._check_end()
        return self.ready()

    def _check_end(self) -> None:
        assert self._end is not None, "awaited before"
        if self._end.error is not None:
            raise self._end.error

    def ready(self) -> list[tuple[int, Item]]:
        """What can be had without waiting."""
        return [self._items.popleft() for _ in range(len(self._items))]

    def _run(self, number: int, make: Make[Item]) -> None:
        end = _End(None)
        try:
            with contextlib.closing(make(self.stopped)) as items:
                for item in items:
                    if self.stopped.is_set():
                        break
                    self._items.append((number, item))
                    if self._is_awaited:
                        self._tell(self._arrived.set)
        except Exception as error:  # The thread's edge: who waits for the items raises it again.
            end = _End(error)
            self.stopped.set()
        self._tell(partial(self._ended, end))

    def _ended(self, end: _End) -> None:
        self._left -= 1
        if self._end is None and (end.error is not None or not self._left):
            self._end = end
            self._arrived.set()
            self._over.set()
        if not self._left:
            self._when_done(self)

    def _tell(self, what: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # The server is gone.
            self._loop.call_soon_threadsafe(what)


@contextlib.asynccontextmanager
async def stopping_when_gone(request: Request, relay: Relay[Item]) -> AsyncIterator[None]:
    """While in here, a caller who leaves ends the relay; so does leaving by an error."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        relay.stopped.set()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except BaseException:
        relay.stopped.set()
        raise
    finally:
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watcher
