"""Prefix caching: the KV caches of recently finished sequences are kept, so that the next turn of a chat, a retry and
an edited message compute only the tokens that are new.

Only the engine's thread uses it. Knows no model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from chat_app.inference.kv_cache import KVCache


@dataclass(frozen=True, eq=False)
class CachedPrefix:
    """A sequence and its KV cache.

    Attributes:
        ids, types: of the sequence, at least as many as `kv_cache` holds; types None where the request had none.
    """

    ids: list[int]
    types: list[int] | None
    kv_cache: KVCache

    def common_length(self, ids: list[int], types: list[int] | None) -> int:
        """How many tokens in the cache are also the first ones of another sequence, with the same types."""
        if (self.types is None) != (types is None):
            return 0
        most = min(self.kv_cache.length, len(ids))
        if self.types is not None and types is not None:
            most = _common_length(self.types, types, most)
        return _common_length(self.ids, ids, most)


def _common_length(first: list[int], second: list[int], most: int) -> int:
    if first[:most] == second[:most]:
        return most
    return next(index for index in range(most) if first[index] != second[index])


class PrefixCache:
    """Finished sequences in the order of their last use, the most recent last.

    Args:
        max_tokens: how many tokens their KV caches hold together at most.
    """

    def __init__(self, max_tokens: int):
        self._max_tokens = max_tokens
        self._entries: list[CachedPrefix] = []

    @property
    def tokens(self) -> int:
        """How many tokens the KV caches hold."""
        return sum(entry.kv_cache.length for entry in self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def insert(self, new: CachedPrefix) -> None:
        """Keep a sequence; it replaces those that are a prefix of it."""
        kv_cache = new.kv_cache
        if not kv_cache.length or not kv_cache.can_truncate:
            return
        ids, types = new.ids[: kv_cache.length], new.types[: kv_cache.length] if new.types is not None else None
        others = [entry for entry in self._entries if entry.common_length(ids, types) < entry.kv_cache.length]
        self._entries = [*others, CachedPrefix(ids, types, kv_cache)]
        self.evict(self._max_tokens)

    def evict(self, max_tokens: int) -> None:
        """Drop the least recently used sequences until at most `max_tokens` tokens are left."""
        while self._entries and self.tokens > max_tokens:
            self._entries.pop(0)

    def acquire(self, ids: list[int], types: list[int] | None, running: Iterable[CachedPrefix] = ()) -> KVCache | None:
        """A KV cache with the longest known prefix of a sequence, for its own use; None where no prefix is known.

        At least the last token is left to compute. A kept cache is handed over if the sequence shares most of it, and
        copied if it shares only the beginning, such as a system prompt; one of `running` is always copied.
        """
        known = [*self._entries, *(entry for entry in running if entry.kv_cache.can_truncate)]
        lengths = [min(entry.common_length(ids, types), len(ids) - 1) for entry in known]
        length = max(lengths, default=0)
        if not length:
            return None
        index = lengths.index(length)
        best = known[index]
        if index >= len(self._entries):
            return best.kv_cache.copy(length)
        self._entries.remove(best)
        if 2 * length < best.kv_cache.length:
            self._entries.append(best)
            return best.kv_cache.copy(length)
        best.kv_cache.truncate(length)
        return best.kv_cache

    def clear(self) -> None:
        """Drop all."""
        self._entries = []
