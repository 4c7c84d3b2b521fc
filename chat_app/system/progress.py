"""How long work reports its progress and how it is stopped: the same two callbacks throughout the product.

A function that may take long has a parameter `progress` and calls it now and then. The caller's way to stop work is a
function `should_stop`. A training asks it after each step and saves a checkpoint before it ends; other work is given
`stop_when(should_stop, progress)` as its `progress`, and ends with a StoppedError at the next report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a piece of work is.

    Attributes:
        message: a sentence for a person; empty where there is only a count.
        done: how many items are done, such as conversations; 0 where nothing is counted.
        total: how many there are, if that is known.
    """

    message: str = ""
    done: int = 0
    total: int | None = None


ProgressCallback = Callable[[Progress], None]
LogCallback = Callable[[str], None]
"""Takes one line for a person."""
ShouldStop = Callable[[], bool]
"""Whether the work should end now. It is asked often and from any thread, so it must be quick."""


class StoppedError(Exception):
    """The work was stopped on request. Nothing failed, so this is no ChatAppError."""


def ignore_progress(progress: Progress) -> None:
    """The progress callback of a caller who does not watch."""


def discard_line(line: str) -> None:
    """The log callback of a caller who does not read."""


def never_stop() -> bool:
    """The `should_stop` of a caller who waits to the end."""
    return False


def stop_when(should_stop: ShouldStop, progress: ProgressCallback = ignore_progress) -> ProgressCallback:
    """A progress callback that ends the work with a StoppedError as soon as `should_stop` says so."""

    def report(now: Progress) -> None:
        if should_stop():
            raise StoppedError
        progress(now)

    return report


def add_prefix(prefix: str, progress: ProgressCallback) -> ProgressCallback:
    """A progress callback that puts a text in front of each message, such as "Model 1 of 2: "."""
    return lambda now: progress(replace(now, message=prefix + now.message))


def report_items(items: Iterable[T], progress: ProgressCallback, every: int) -> Iterator[T]:
    """The same items, with a report after each `every` of them."""
    for done, item in enumerate(items, start=1):
        yield item
        if done % every == 0:
            progress(Progress(done=done))
