"""Keys and values on a GPU: those of all sequences lie in one tensor, in pages of some tokens, so that one kernel finds
them for every sequence of a step, and its address stays what it is from step to step.

One thread's, but for what is let go of, which may be anywhere. Knows no requests and no ids.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import torch

PAGE = 64  # Tokens. With fewer less is left empty, with more there are fewer lengths to record steps for.
FIRST_WINDOWS = 2  # For so many whole sequences there is room from the first use on, and then twice as much each time.


class Pages:
    """The pages of all sequences, and who holds them.

    Args:
        layers, heads, width: of the model; width is a head's.
        window: the most tokens of a sequence.
        dtype, device: of the numbers.

    Attributes:
        numbers: [layers, pages, tokens of a page, 2 (keys, values), heads, width]. Another tensor after each growth.
            Page 0 is nobody's: what must be written somewhere goes there.
        growths: how often it has become another one.
        tokens: of a page.
    """

    def __init__(self, layers: int, heads: int, width: int, window: int, dtype: torch.dtype, device: Any = "cpu"):
        self.tokens = PAGE
        self.growths = 0
        self.numbers = torch.zeros(layers, 1, PAGE, 2, heads, width, dtype=dtype, device=device)
        self._first = FIRST_WINDOWS * self.count_for(window)
        self._free: list[int] = []
        self._holders = [1]  # How many sequences have each page.
        self._returned: deque[list[int]] = deque()

    @property
    def used(self) -> int:
        """How many pages sequences have."""
        self._collect()
        return len(self._holders) - 1 - len(self._free)

    def count_for(self, length: int) -> int:
        """How many pages so many tokens take."""
        return -(-length // self.tokens)

    def take(self, count: int) -> list[int]:
        """Pages for one sequence, all of them or none.

        They are zeros: a token that may not be seen is multiplied by 0 all the same, and what another sequence left
        there could be no number.

        Raises:
            torch.OutOfMemoryError: there is no memory for so many.
        """
        self._collect()
        if count > len(self._free):
            self._grow(count - len(self._free))
        pages = [self._free.pop() for _ in range(count)]
        for page in pages:
            self._holders[page] = 1
            self.numbers[:, page].zero_()
        return pages

    def share(self, pages: list[int]) -> None:
        """One more sequence has these pages."""
        for page in pages:
            self._holders[page] += 1

    def is_shared(self, page: int) -> bool:
        """Whether several sequences have it."""
        self._collect()
        return self._holders[page] > 1

    def copied(self, page: int, tokens: int) -> int:
        """Another page with the first tokens of this one."""
        (other,) = self.take(1)
        self.numbers[:, other, :tokens] = self.numbers[:, page, :tokens]
        return other

    def give_back(self, pages: list[int]) -> None:
        """A sequence has these no longer. From any thread: objects may be cleared away in each."""
        self._returned.append(pages)

    def _collect(self) -> None:
        while self._returned:
            for page in self._returned.popleft():
                self._holders[page] -= 1
                if not self._holders[page]:
                    self._free.append(page)

    def _grow(self, missing: int) -> None:
        """Twice as many pages, or only what is missing if there is no memory for more."""
        layers, have, *rest = self.numbers.shape
        more = max(have, self._first, missing)
        try:
            numbers = self.numbers.new_zeros(layers, have + more, *rest)
        except torch.OutOfMemoryError:
            more = missing
            numbers = self.numbers.new_zeros(layers, have + more, *rest)
        numbers[:, :have] = self.numbers
        self.numbers = numbers
        self.growths += 1
        self._holders += [0] * more
        self._free += reversed(range(have, have + more))


class PagedKeyValues:
    """What is remembered of one sequence, in pages that it may share with others: whoever writes into one that others
    have too takes a copy for itself.

    Args:
        pool: where the pages are.

    Attributes:
        pages: those that it has, in the order of its tokens.
    """

    def __init__(self, pool: Pages):
        self.length = 0
        self.pages: list[int] = []
        self._pool = pool

    def __del__(self) -> None:
        self._pool.give_back(self.pages)

    @property
    def can_be_cut(self) -> bool:
        """Always."""
        return True

    def cut(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        self.length = min(self.length, length)
        kept = self._pool.count_for(self.length)
        self._pool.give_back(self.pages[kept:])
        del self.pages[kept:]

    def copy(self, length: int) -> PagedKeyValues:
        """Another one with the first `length` tokens of this one. Takes no memory until one of them goes on."""
        other = PagedKeyValues(self._pool)
        pages = self.pages[: self._pool.count_for(length)]
        self._pool.share(pages)
        other.pages, other.length = pages, length
        return other

    def make_room(self, more: int) -> None:
        """Have pages for the next `more` tokens that nobody else has.

        Raises:
            torch.OutOfMemoryError: there is no memory for them; what it remembers stays what it was.
        """
        full, rest = divmod(self.length, self._pool.tokens)
        if rest and self._pool.is_shared(self.pages[full]):
            own = self._pool.copied(self.pages[full], rest)
            self._pool.give_back([self.pages[full]])
            self.pages[full] = own
        missing = self._pool.count_for(self.length + more) - len(self.pages)
        if missing > 0:
            self.pages += self._pool.take(missing)

    def slots(self, more: int) -> list[int]:
        """Where the next `more` tokens go, counted in tokens from the beginning of the first page of all; after
        `make_room`."""
        size = self._pool.tokens
        return [self.pages[at // size] * size + at % size for at in range(self.length, self.length + more)]
