"""Whether nearly every text stands in quotes, as after a file was read with the wrong sign for them."""

from __future__ import annotations

from chat_app.data.quality.excerpts import quote
from chat_app.data.quality.issue_types import KINDS
from chat_app.data.quality.report import MAX_SPOTS, Finding, Spot
from chat_app.data.readers.types import Located

PAIRS = frozenset(('""', "''", "“”", "„“", "‘’", "«»", "»«", "「」"))
FEWEST, SHARE = 10, 0.8


class QuotedTextCounter:
    """Counts the turns, and those of them that begin and end with a quotation mark."""

    def __init__(self) -> None:
        self._turns = 0
        self._quoted = 0
        self._conversations = 0
        self._spots: list[Spot] = []

    def add(self, located: Located) -> None:
        """Count the turns of a conversation."""
        before = self._quoted
        for turn in located.conversation.turns:
            text = turn.text
            self._turns += 1
            if len(text) > 2 and text[0] + text[-1] in PAIRS:
                self._quoted += 1
                if len(self._spots) < MAX_SPOTS:
                    self._spots.append(Spot(located.file, located.line, quote(text)))
        self._conversations += self._quoted > before

    def build_finding(self) -> Finding | None:
        """The finding, if nearly all turns stand in quotes; somebody who is quoted now and then is none."""
        if self._quoted < max(FEWEST, SHARE * self._turns):
            return None
        kind = KINDS["quoted"]
        spots = tuple(self._spots)
        return Finding(kind.name, kind.title, self._quoted, self._conversations, spots, kind.advice, kind.repair)
