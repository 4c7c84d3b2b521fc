"""From threads to the event loop: everything arrives, in its order, and the loop is woken no more than it must be."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from functools import partial
from typing import Any

import pytest

from chat_app.errors import BusyError, ModelError
from chat_app.server.streaming import StreamRegistry, ThreadToAsyncStream


def counting(count: int, stopped: threading.Event) -> Generator[int, None, None]:
    yield from range(count)


def failing(count: int, stopped: threading.Event) -> Generator[int, None, None]:
    yield from range(count)
    raise ModelError("It broke.")


def endless(stopped: threading.Event) -> Generator[int, None, None]:
    number = 0
    while not stopped.is_set():
        yield number
        number += 1


async def take(stream: ThreadToAsyncStream[int], found: list[tuple[int, int]]) -> None:
    """What comes one by one, with what is there beside it."""
    while (item := await stream.next()) is not None:
        found += [item, *stream.ready()]


def test_items_of_several_generators_come_in_their_order_and_then_the_end() -> None:
    async def run() -> None:
        for _ in range(50):
            streams = StreamRegistry(3)
            stream = streams.start([partial(counting, count) for count in (200, 1, 0)])
            found: list[tuple[int, int]] = []
            await asyncio.wait_for(take(stream, found), 180)
            assert [item for number, item in found if number == 0] == list(range(200))
            assert [item for number, item in found if number == 1] == [0]
            assert len(found) == 201
            assert await stream.next() is None
            assert len(streams) == 0

    asyncio.run(run())


def test_an_error_comes_after_the_items_before_it_and_ends_the_others() -> None:
    async def run() -> None:
        streams = StreamRegistry(2)
        stream = streams.start([partial(failing, 5), endless])
        found: list[tuple[int, int]] = []
        with pytest.raises(ModelError, match="It broke"):
            await asyncio.wait_for(take(stream, found), 180)
        assert [item for number, item in found if number == 0] == list(range(5))
        assert stream.stopped.is_set()
        with pytest.raises(BusyError):
            streams.start([endless] * 3)
        while len(streams):
            await asyncio.sleep(0)

    asyncio.run(run())


@pytest.mark.parametrize("factory", [partial(counting, 1000), partial(failing, 1000)])
def test_who_awaits_all_is_woken_once(factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        woken: list[Any] = []
        wake = loop.call_soon_threadsafe

        def counted(what: Any) -> Any:
            woken.append(what)
            return wake(what)

        monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
        stream = StreamRegistry(1).start([factory])
        if factory.func is counting:
            assert await asyncio.wait_for(stream.all(), 180) == [(0, number) for number in range(1000)]
        else:
            with pytest.raises(ModelError, match="It broke"):
                await asyncio.wait_for(stream.all(), 180)
        assert len(woken) == 1

    asyncio.run(run())


def test_a_pause_is_over_as_soon_as_the_last_item_is_there() -> None:
    async def run() -> None:
        stream = StreamRegistry(1).start([partial(counting, 3)])
        await asyncio.wait_for(stream.pause(3600), 180)
        assert stream.ready() == [(0, 0), (0, 1), (0, 2)]
        assert await stream.next() is None

    asyncio.run(run())


def test_a_pause_does_not_wait_for_who_goes_on_writing() -> None:
    async def run() -> None:
        stream = StreamRegistry(1).start([endless])
        await asyncio.wait_for(stream.pause(0.001), 180)
        assert not stream.stopped.is_set()
        stream.stopped.set()

    asyncio.run(run())
