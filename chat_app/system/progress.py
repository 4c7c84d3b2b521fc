"""Progress reports and cancellation of long-running work: the same two callbacks throughout the product.

A long-running function has a parameter `progress` and calls it now and then. A caller cancels work through a function
`should_stop`. Training calls it after each step and saves a checkpoint before it ends; other work is given
`stop_when(should_stop, progress)` as its `progress`, and ends with a StoppedError at the next report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Progress:
    """A progress report.

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
"""A function that takes one line of text for people."""
ShouldStop = Callable[[], bool]
"""A function that says whether the work should end now. It is called often and from any thread, so it must be fast."""


class StoppedError(Exception):
    """The work was stopped on request. Nothing failed, so this is no ChatAppError."""


@dataclass(frozen=True, slots=True)
class StopRequest:
    """Whether a training is to end, and why.

    Attributes:
        is_wanted: asked after each step.
        describe: the reason, as one sentence; called once a stop is wanted.
    """

    is_wanted: ShouldStop
    describe: Callable[[], str] = lambda: "The program that had started this run ended."


def ignore_progress(progress: Progress) -> None:
    """A progress callback that does nothing."""


def discard_line(line: str) -> None:
    """A log callback that does nothing."""


def never_stop() -> bool:
    """A `should_stop` that is never true."""
    return False


NEVER_STOP = StopRequest(never_stop)


def stop_when(should_stop: ShouldStop, progress: ProgressCallback = ignore_progress) -> ProgressCallback:
    """A progress callback that raises StoppedError once `should_stop` is true, and else calls `progress`."""

    def report(now: Progress) -> None:
        if should_stop():
            raise StoppedError
        progress(now)

    return report


def add_prefix(prefix: str, progress: ProgressCallback) -> ProgressCallback:
    """A progress callback that puts a text in front of each message, such as "Model 1 of 2: "."""
    return lambda now: progress(replace(now, message=prefix + now.message))


def report_items(items: Iterable[T], progress: ProgressCallback, every: int) -> Iterator[T]:
    """Yield the items, and report the count after each `every` of them."""
    for done, item in enumerate(items, start=1):
        yield item
        if done % every == 0:
            progress(Progress(done=done))
