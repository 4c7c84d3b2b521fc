"""Detection of replies that make up a large share of all replies."""

from __future__ import annotations

from chat_app.data.quality.excerpts import quote
from chat_app.data.quality.issue_types import COMMON_FEWEST, COMMON_SHARE, KINDS
from chat_app.data.quality.report import MAX_SPOTS, Finding, Spot
from chat_app.data.readers.types import Located

MAX_REPLIES = 50_000
KEY_LENGTH = 200


class ReplyCounter:
    """Counts frequent replies in bounded memory by lossy counting (Manku & Motwani 2002).

    When there are too many different replies, the rarest are dropped; a count is then too low by at most `_missed`.
    """

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._first: dict[str, Spot] = {}
        self._total = 0
        self._missed = 0

    def add(self, reply: str, located: Located) -> None:
        key = reply if len(reply) <= KEY_LENGTH else f"{reply[:KEY_LENGTH]}{len(reply)}"
        self._total += 1
        count = self._counts.get(key, 0) + 1
        self._counts[key] = count
        if count == COMMON_FEWEST:
            self._first.setdefault(key, Spot(located.file, located.line, quote(reply)))
        if len(self._counts) > MAX_REPLIES:
            self._forget()

    def build_finding(self) -> Finding | None:
        """The finding about replies that are a large share of all, or None if there are none."""
        least = max(COMMON_SHARE * self._total, COMMON_FEWEST)
        common = [(count, key) for key, count in self._counts.items() if count >= least and key in self._first]
        if not common:
            return None
        common.sort(key=lambda pair: (-pair[0], pair[1]))
        count = sum(count for count, _ in common)
        kind = KINDS["same_reply"]
        spots = tuple(self._first[key] for _, key in common[:MAX_SPOTS])
        return Finding(kind.name, kind.title, count, count, spots, kind.advice, kind.repair)

    def _forget(self) -> None:
        self._missed += 1
        while len(self._counts) > MAX_REPLIES // 2:
            self._counts = {key: count for key, count in self._counts.items() if count > self._missed}
            self._missed += 1
        self._first = {key: spot for key, spot in self._first.items() if key in self._counts}
