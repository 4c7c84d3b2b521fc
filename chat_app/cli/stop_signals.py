"""The signals that end a training in good order, and the exit code and the reason that tell of them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from chat_app.runs.run import Run
from chat_app.system.progress import StopRequest

_REASONS = {
    "SIGTERM": "The training process was asked to end (SIGTERM).",
    "SIGHUP": "The terminal of the training was closed (SIGHUP).",
}
_PARENT_ENDED = "The program that had started this run ended."
FIRST_SIGNAL_CODE = 128  # A shell shows a process that a signal has ended as 128 plus its number.


class StopSignals:
    """Whether this process was asked to end, and by what.

    While a run is prepared, a signal ends the process at once, so that what was prepared is removed. While it is
    trained, a checkpoint is saved first.
    """

    def __init__(self) -> None:
        self.parent_ended = threading.Event()
        self._run: Run | None = None
        self._number = 0

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Catch the signals for the length of a block. Only the main thread can; elsewhere nothing is caught."""
        before = {}
        if threading.current_thread() is threading.main_thread():
            for number in _list_signals():
                # What `nohup` ignores stays ignored.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    before[number] = signal.signal(number, self._handle)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def begin_training(self, run: Run) -> None:
        """From now on a signal stops this run after its step."""
        self._run = run

    @property
    def request(self) -> StopRequest:
        """What the training asks after each step."""
        return StopRequest(self._is_wanted, self._describe)

    @property
    def exit_code(self) -> int:
        """128 plus the number of the signal that ended the training; 0 without one."""
        return FIRST_SIGNAL_CODE + self._number if self._number else 0

    def _is_wanted(self) -> bool:
        return self.parent_ended.is_set() or self._number not in (0, signal.SIGINT)

    def _describe(self) -> str:
        name = signal.Signals(self._number).name if self._number else ""
        return _REASONS.get(name, _PARENT_ENDED)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._run is None:
            raise SystemExit(FIRST_SIGNAL_CODE + number)
        if number == signal.SIGINT:
            if self._number == signal.SIGINT:  # The second Ctrl-C does not wait for the step.
                raise KeyboardInterrupt
            self._run.request_stop()
        self._number = number


def _list_signals() -> list[signal.Signals]:
    names = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP.
    return [getattr(signal, name) for name in names if hasattr(signal, name)]
