"""Beginnings that were computed before: the memories of the last finished requests, so that the next turn of a chat, a
retry and an edit compute only what is new.

One thread's. Knows no model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from chat_app.inference.kv_cache import Memory


@dataclass(frozen=True, eq=False)
class Computed:
    """A sequence and what the model remembers of it.

    Attributes:
        ids, types: at least as many as `memory` has; types None where the request had none.
    """

    ids: list[int]
    types: list[int] | None
    memory: Memory

    def common(self, ids: list[int], types: list[int] | None) -> int:
        """How many tokens that are remembered stand at the beginning of another sequence too, types included."""
        if (self.types is None) != (types is None):
            return 0
        most = min(self.memory.length, len(ids))
        if self.types is not None and types is not None:
            same = _same(self.types, types, most)
            most = min(most, same)
        return _same(self.ids, ids, most)


def _same(one: list[int], other: list[int], most: int) -> int:
    if one[:most] == other[:most]:
        return most
    return next(at for at in range(most) if one[at] != other[at])


class Prefixes:
    """Finished sequences, the one used last at the end, together at most `most_tokens` long."""

    def __init__(self, most_tokens: int):
        self._most_tokens = most_tokens
        self._entries: list[Computed] = []

    @property
    def tokens(self) -> int:
        """How many are kept."""
        return sum(one.memory.length for one in self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def keep(self, new: Computed) -> None:
        """Keep a sequence in place of those that are the beginning of it."""
        if not new.memory.length or not new.memory.can_be_cut:
            return
        ids, types = new.ids[: new.memory.length], new.types[: new.memory.length] if new.types is not None else None
        others = [one for one in self._entries if one.common(ids, types) < one.memory.length]
        self._entries = [*others, Computed(ids, types, new.memory)]
        self.shrink(self._most_tokens)

    def shrink(self, most_tokens: int) -> None:
        """Forget what was used longest ago until at most so many tokens are left."""
        while self._entries and self.tokens > most_tokens:
            self._entries.pop(0)

    def take(self, ids: list[int], types: list[int] | None, running: Iterable[Computed] = ()) -> Memory | None:
        """A memory of the longest beginning of a sequence that is known, for its own use; None where there is none.

        The last token is always left to compute. A kept memory is handed over if that loses little of it, and copied
        if the sequence shares only its beginning, such as a system text; one of `running` is always copied.
        """
        known = [*self._entries, *(one for one in running if one.memory.can_be_cut)]
        lengths = [min(one.common(ids, types), len(ids) - 1) for one in known]
        length = max(lengths, default=0)
        if not length:
            return None
        at = lengths.index(length)
        best = known[at]
        if at >= len(self._entries):
            return best.memory.copy(length)
        self._entries.remove(best)
        if 2 * length < best.memory.length:
            self._entries.append(best)
            return best.memory.copy(length)
        best.memory.cut(length)
        return best.memory

    def clear(self) -> None:
        """Forget all."""
        self._entries = []
