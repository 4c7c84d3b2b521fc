"""Detection of duplicates, near duplicates (MinHash) and shared openings of conversations.

Of each text only a hash of 64 bits is kept. A million of them take some 20 MB, and the probability of any collision
among them is below one in ten million. They are Python's hashes, which differ from process to process.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from chat_app.conversation import Message

MAX_COMPARED = 80_000  # about a kilobyte of index each
FEWEST_SHINGLES = 8
SIMILARITY = 0.8
PERMUTATIONS, BANDS = 32, 8
SEED = 42

# Thai, Lao, Khmer, Japanese and Chinese put no spaces between words: each character counts as a word.
_APART = "\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
_WORDS = re.compile(rf"[{_APART}]|[^\W{_APART}]+")
_SPACED = {ord(sign): " " for sign in map(chr, range(128)) if not (sign.isalnum() or sign in "_ ")}
_BETWEEN = "\x1f"


class Fingerprints:
    """A hash set of 64-bit integers with open addressing in one array: 16 to 32 bytes each, not 100 as in a set."""

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 << 10))
        self._last = len(self._slots) - 1
        self._used = 0
        self._has_zero = False

    def __len__(self) -> int:
        return self._used + self._has_zero

    def add(self, number: int) -> bool:
        """Add a fingerprint; returns whether it is new."""
        if not number:
            is_new, self._has_zero = not self._has_zero, True
            return is_new
        slots, last = self._slots, self._last
        slot = number & last
        while slots[slot]:
            if slots[slot] == number:
                return False
            slot = (slot + 1) & last
        slots[slot] = number
        self._used += 1
        if 2 * self._used > last:
            self._grow()
        return True

    def __contains__(self, number: int) -> bool:
        if not number:
            return self._has_zero
        slots, last = self._slots, self._last
        slot = number & last
        while slots[slot]:
            if slots[slot] == number:
                return True
            slot = (slot + 1) & last
        return False

    def _grow(self) -> None:
        before = self._slots
        self._slots, self._last, self._used = array("Q", bytes(16 * len(before))), 2 * len(before) - 1, 0
        for number in before:
            if number:
                self.add(number)


class DuplicateIndex:
    """The conversations of one part seen so far.

    Args:
        compared: the number of conversations to keep in the index for near duplicates.
    """

    def __init__(self, compared: int = MAX_COMPARED) -> None:
        self._kept = Fingerprints()
        self._near = Fingerprints()
        self._normal = Fingerprints()
        self._index: Any = None
        self._free = compared
        self.is_complete = True
        self.can_compare_words = True

    def __contains__(self, number: int) -> bool:
        return number in self._kept or number in self._near

    def judge(self, messages: Sequence[Message], number: int) -> tuple[bool, bool]:
        """Compare a conversation with those before it, and add it.

        Args:
            number: the fingerprint of the messages.

        Returns:
            (whether an equal conversation came before, whether a similar one did). A copy of a near duplicate is both,
            so that a repair that drops near duplicates drops their copies as well.
        """
        if number in self._near:
            return True, True
        if number in self._kept:
            return True, False
        words = _split_words(_BETWEEN.join([one.text for one in messages]).casefold())
        if words:  # Without words, as in "?!", only exact copies count.
            roles = "".join([one.role[0] for one in messages])
            if not self._normal.add(_hash(f"{roles} {''.join(words)}")) or self._is_similar(words):
                self._near.add(number)
                return False, True
        self._kept.add(number)
        return False, False

    def _is_similar(self, words: Sequence[str]) -> bool:
        """Whether MinHash over pairs of words finds a similar conversation; short ones have too few pairs."""
        if len(words) <= FEWEST_SHINGLES:
            return False
        if not self._free:
            self.is_complete = False
            return False
        try:
            from rensa import RMinHash, RMinHashDeduplicator
        except ImportError:  # The package is optional: it has no wheels for some platforms.
            self.can_compare_words = False
            return False
        if self._index is None:
            self._index = RMinHashDeduplicator(SIMILARITY, PERMUTATIONS, True, BANDS, SEED)
        sketch = RMinHash(PERMUTATIONS, SEED)
        sketch.update(list(map(" ".join, pairwise(words))))
        is_new = self._index.add(str(self._free), sketch)
        self._free -= is_new
        return not is_new


def fingerprint(messages: Sequence[Message]) -> int:
    """A hash of the roles and texts."""
    return _hash(_BETWEEN.join([piece for one in messages for piece in (one.role, one.text)]))


def fingerprint_opening(messages: Sequence[Message]) -> int:
    """A hash of the first two turns, without regard to capitals."""
    first = int(messages[0].role == "system")
    return _hash(_BETWEEN.join([turn.text.casefold() for turn in messages[first : first + 2]]))


def _split_words(text: str) -> list[str]:
    """The words of a text without punctuation."""
    return text.translate(_SPACED).split() if text.isascii() else _WORDS.findall(text)


def _hash(text: str) -> int:
    return hash(text) & 0xFFFF_FFFF_FFFF_FFFF
