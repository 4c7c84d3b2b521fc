"""Work that takes long, in a thread of its own: it tells how far it is, and stops when nobody waits for it any more."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
FIRST_LOOK, LOOK_EVERY = 0.15, 0.5

Tell = Callable[[str], None]


class Stopped(Exception):
    """Nobody waits for this work any more. Raised inside the work, where it tells how far it is."""


class Work(Generic[T]):
    """A piece of work that begins at once.

    Iterating gives what it tells, now and then, until it has ended; an iteration that is given up stops it.

    Args:
        do: does the work; it is given a function that takes a sentence for the person and raises Stopped.
    """

    def __init__(self, do: Callable[[Tell], T]):
        self._do, self._stop, self._ended = do, threading.Event(), threading.Event()
        self._told = ""
        self._result: T | None = None
        self._error: BaseException | None = None
        threading.Thread(target=self._run, name="reading", daemon=True).start()

    def __iter__(self) -> Iterator[str]:
        try:
            wait = FIRST_LOOK
            while not self._ended.wait(wait):
                yield self._told
                wait = LOOK_EVERY
        finally:
            self._stop.set()

    def result(self) -> T:
        """What came of it, once the iteration has ended.

        Raises:
            Whatever the work has raised.
        """
        if self._error is not None:
            raise self._error
        assert self._ended.is_set()
        return self._result  # type: ignore[return-value]

    def _run(self) -> None:
        try:
            self._result = self._do(self._tell)
        except BaseException as error:
            self._error = error
        finally:
            self._ended.set()

    def _tell(self, text: str) -> None:
        if self._stop.is_set():
            raise Stopped
        self._told = text
