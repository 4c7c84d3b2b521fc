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
_CLEARLY = 1.25  # So many times faster another number must be: a page that draws slows a few steps down, too.
_TRY_AFTER, _TRY_EVERY = 6, 48  # Steps; one with a bad number may take as long as several good ones.


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
        tries: how often each number was used. times: the last seconds a token of each. chosen: the fastest, once known.
        since: steps since another than the best was tried. patience: after so many the next is. turn: whose turn it is.
    """

    numbers: tuple[int, ...]
    tries: dict[int, int] = field(default_factory=dict)
    times: dict[int, list[float]] = field(default_factory=dict)
    chosen: int = 0
    since: int = 0
    patience: int = _TRY_AFTER
    turn: int = 0

    def choose(self) -> int:
        """The number for the next step."""
        fewest = min(self.numbers, key=lambda number: self.tries.get(number, 0))
        if len(self.numbers) > 1 and self.tries.get(fewest, 0) < _TRIES:
            return fewest
        others = [number for number in self.numbers if number != self.best]
        return others[self.turn % len(others)] if others and self.since >= self.patience else self.best

    def took(self, number: int, seconds: float) -> None:
        """Tell how long a token took."""
        best = self.best
        self.tries[number] = self.tries.get(number, 0) + 1
        if self.tries[number] >= _TRIES:
            clearly = _CLEARLY if self.is_tried else 1.0
            times = self.times.setdefault(number, [])
            times.append(seconds)
            del times[:-_REMEMBERED]
            self._choose_again(clearly)
        if self.best != best:  # The machine has changed: what was good before may soon be good again.
            self.since, self.patience = 0, _TRY_AFTER
        elif number != best:
            self.since, self.patience, self.turn = 0, min(2 * self.patience, _TRY_EVERY), self.turn + 1
        else:
            self.since += 1

    @property
    def is_tried(self) -> bool:
        """Whether each number was timed."""
        return len(self.times) == len(self.numbers)

    @property
    def best(self) -> int:
        """The fastest number."""
        return self.chosen or self.numbers[0]

    def _choose_again(self, clearly: float) -> None:
        """Take another number if it is so many times faster. Of two times the lower counts: a step is easily held up
        by something else."""
        fastest = min(self.times, key=lambda number: median_low(self.times[number]))
        known = self.times.get(self.best)
        if known is None or median_low(known) > clearly * median_low(self.times[fastest]):
            self.chosen = fastest
