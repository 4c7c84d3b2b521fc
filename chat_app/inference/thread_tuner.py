"""How many processor threads a step should use, found by trying.

Several threads share a step's work only while each has a processor of its own. As soon as another program, such as a
training, wants one too, they wait for one another at every layer, and one thread alone is many times faster. Knows no
model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median_low

_REMEMBERED = 5
_TRIES = 2  # At the beginning, of each number. The first finds cold memory and does not count.
_CLEARLY = 1.25  # So many times faster another number must be.
_LOST = 4  # So many of its steps must have been lost: a page that draws slows a few steps down, and no more.
_LEAST_STEPS = 3  # In so many steps at least: now and then one takes very long whatever its number of threads.
_STEPS_OF_A_TRY = 2  # The slower counts: while another program waits for something, one step may be lucky.
_TRY_AFTER, _TRY_EVERY = 6, 192  # Steps, from one try of another number to the next: first, and later.
_SHARE = 0.05  # A step with a bad number may take as long as many good ones: tries may take so much of the time,
_TRY_AT_LAST = 400  # but after so many steps one is made.


class Pace:
    """Chooses among numbers of threads by the time of their last steps; for steps of each size by itself.

    Args:
        numbers: to choose from, the most promising first; at least one.
    """

    def __init__(self, numbers: Sequence[int]):
        self._numbers = tuple(dict.fromkeys(numbers))
        self._sizes: dict[int, _Size] = {}

    def choose(self, tokens: int) -> int:
        """The number for a step of so many tokens: mostly the fastest; now and then another, to see if it is still
        slower."""
        return self._size(tokens).choose()

    def took(self, number: int, tokens: int, seconds: float) -> None:
        """Tell how long a step took."""
        self._size(tokens).took(number, seconds / tokens)

    def _size(self, tokens: int) -> _Size:
        """What is known of steps of this size. The first ones go by what is known of the next size: trying bad numbers
        would make somebody wait."""
        size = tokens.bit_length()
        if size not in self._sizes:
            known = [one for one, other in self._sizes.items() if other.is_tried]
            numbers = self._numbers
            if known:
                best = self._sizes[min(known, key=lambda one: abs(one - size))].best
                numbers = (best, *(number for number in numbers if number != best))
            self._sizes[size] = _Size(numbers, dict.fromkeys(numbers, _TRIES) if known else {})
        return self._sizes[size]


@dataclass
class _Size:
    """What is known of steps of about one size.

    Attributes:
        numbers: to choose from, the most promising first.
        tries: how often each number was used. times: the last seconds a token of each. best: the number to use.
        lost: seconds a token that the last steps took longer than with the best of the other numbers. trial: the times
        of the number that is being tried.
        since: steps since another was tried. patience: after so many the next is. turn: whose turn it is.
    """

    numbers: tuple[int, ...]
    tries: dict[int, int] = field(default_factory=dict)
    times: dict[int, list[float]] = field(default_factory=dict)
    best: int = -1
    lost: float = 0.0
    trial: list[float] = field(default_factory=list)
    since: int = 0
    patience: float = _TRY_AFTER
    turn: int = 0

    def __post_init__(self) -> None:
        self.best = self.numbers[0]

    def choose(self) -> int:
        """The number for the next step."""
        fewest = min(self.numbers, key=lambda number: self.tries.get(number, 0))
        if len(self.numbers) > 1 and self.tries.get(fewest, 0) < _TRIES:
            return fewest
        others = [number for number in self.numbers if number != self.best]
        return others[self.turn % len(others)] if others and self.since >= self.patience else self.best

    def took(self, number: int, seconds: float) -> None:
        """Tell how long a token took."""
        was_tried = self.is_tried
        self.tries[number] = self.tries.get(number, 0) + 1
        if self.tries[number] < _TRIES:
            return
        if was_tried and number != self.best:
            self._try(number, seconds)
            return
        times = self.times.setdefault(number, [])
        times.append(seconds)
        del times[:-_REMEMBERED]
        self.since += number == self.best
        if was_tried:
            self._lose(seconds)
        else:
            self._begin(number)

    @property
    def is_tried(self) -> bool:
        """Whether each number was timed."""
        return len(self.times) == len(self.numbers)

    def usual(self, number: int) -> float:
        """Seconds a token. Of two times the lower counts: a step is easily held up by something else."""
        return median_low(self.times[number])

    def _begin(self, number: int) -> None:
        """Not all were tried yet: the fastest of those that were is the best."""
        if number != self.best and self.best in self.times:
            self.since, self.turn = 0, self.turn + 1
        self.best = min(self.times, key=self.usual)

    def _lose(self, seconds: float) -> None:
        """The best number was used: is it still the best?"""
        if len(self.numbers) == 1:
            return
        rival = min((number for number in self.numbers if number != self.best), key=self.usual)
        much = _LOST * self.usual(rival)
        self.lost = max(self.lost + min(seconds - _CLEARLY * self.usual(rival), much / _LEAST_STEPS), 0.0)
        if self.lost >= much:  # The number left is soon to be tried again: what was good before may come back.
            self.best, self.lost, self.trial = rival, 0.0, []
            self.since, self.patience = 0, _TRY_AFTER

    def _try(self, number: int, seconds: float) -> None:
        """Another number was used."""
        self.trial.append(seconds)
        if len(self.trial) < _STEPS_OF_A_TRY:
            return
        cost = _STEPS_OF_A_TRY * (min(self.trial) / self.usual(self.best) - 1)
        self.times[number] = [max(self.trial)]
        self.patience = min(max(min(2 * self.patience, _TRY_EVERY), cost / _SHARE), _TRY_AT_LAST)
        self.since, self.trial, self.turn = 0, [], self.turn + 1
