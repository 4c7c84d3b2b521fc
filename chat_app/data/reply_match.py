"""Which of the replies of a set is meant by what a model says: the nearest by its words; rare ones count more."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

LEAST_SIMILARITY = 0.5  # Below it none of the replies is meant.
# Where no spaces stand between words, every character is one.
_WORD = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]|[^\W_]+")


class ReplyIndex:
    """The different replies of a set, to be found by similar text.

    Args:
        replies: the texts; copies count once.
    """

    def __init__(self, replies: Iterable[str]):
        self.replies: Sequence[str] = list(dict.fromkeys(replies))
        words = [Counter(_split(reply)) for reply in self.replies]
        documents = Counter(word for one in words for word in one)
        self._weights = {word: math.log(1 + len(words) / count) for word, count in documents.items()}
        self._unknown = math.log(1 + max(len(words), 1))
        self._vectors = [self._vector(one) for one in words]

    def find(self, text: str) -> str | None:
        """The reply whose TF-IDF vector has the greatest cosine with that of `text`; None if all are far from it."""
        vector = self._vector(Counter(_split(text)))
        scores = [sum(weight * other.get(word, 0.0) for word, weight in vector.items()) for other in self._vectors]
        best = max(range(len(scores)), key=scores.__getitem__, default=None)
        return None if best is None or scores[best] < LEAST_SIMILARITY else self.replies[best]

    def _vector(self, words: Mapping[str, int]) -> dict[str, float]:
        weights = {
            word: (1 + math.log(count)) * self._weights.get(word, self._unknown) for word, count in words.items()
        }
        length = math.sqrt(sum(weight * weight for weight in weights.values())) or 1.0
        return {word: weight / length for word, weight in weights.items()}


def _split(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
