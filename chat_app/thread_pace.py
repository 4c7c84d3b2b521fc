"""How many processor threads a step should use, found by trying.

Several threads share a step's work only while each has a processor of its own. As soon as another program, such as a
training, wants one too, they wait for one another at every layer, and one thread alone is many times faster. Knows no
model.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

_REMEMBERED = 5
_TRY_EVERY = 48  # Steps; one with a bad number may take as long as several good ones.


class Pace:
    """Chooses among numbers of threads by the time of their last steps; for steps of each size by itself.

    Args:
        numbers: to choose from, the most promising first; at least one.
    """

    def __init__(self, numbers: Sequence[int]):
        self._numbers = tuple(dict.fromkeys(numbers))
        self._times: dict[tuple[int, int], list[float]] = {}
        self._since: dict[int, int] = {}

    def choose(self, tokens: int) -> int:
        """The number for a step of so many tokens: mostly the fastest; now and then another, to see if it is still
        slower."""
        size = tokens.bit_length()
        untried = [number for number in self._numbers if (size, number) not in self._times]
        if untried:
            return untried[0]
        best = self._best(size)
        others = [number for number in self._numbers if number != best]
        since = self._since.get(size, 0)
        return others[since % len(others)] if others and since >= _TRY_EVERY else best

    def took(self, number: int, tokens: int, seconds: float) -> None:
        """Tell how long a step took."""
        size = tokens.bit_length()
        times = self._times.setdefault((size, number), [])
        times.append(seconds / tokens)
        del times[:-_REMEMBERED]
        self._since[size] = self._since.get(size, 0) + 1 if number == self._best(size) else 0

    def _best(self, size: int) -> int:
        return min(self._numbers, key=lambda number: median(self._times.get((size, number), [0.0])))
