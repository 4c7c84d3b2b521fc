"""A list of answers: the questions and replies of a data set, and which reply a new question asks for.

Each different reply is one document of all questions that it was taught for and of its own words. Documents are
ranked by BM25 (Robertson & Zaragoza 2009) over the stems of words, pairs of neighbours, pieces of three and four
letters (slips of the pen, compounds) and the groups of `everyday_words` (other words for the same). A reply is quoted
only where the question is covered well and the second reply lies clearly behind. Knows no model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from chat_app.conversation import Conversation
from chat_app.data.everyday_words import find_groups, find_words, stem
from chat_app.data.paraphrase import is_small_word, normalize
from chat_app.errors import DataError

MOST_REPLIES = 20_000
MOST_WORDS = 200  # Of one text; a question is no longer, and a long reply says little in its later words.
# How much a feature counts beside the stem of a content word.
SMALL_WORD, PAIR, PIECE, GROUP, OF_REPLY = 0.2, 0.2, 0.12, 1.5, 0.6
_SATURATION, _LENGTH = 4.0, 0.75  # k1 and b of BM25.
_MEANS_THE_SAME = 0.7  # How far another word of its group covers a word.
SURE_COVER, SURE_LEAD = 0.42, 0.3


@dataclass(frozen=True, slots=True)
class RankedReply:
    """A reply of the list for a question.

    Attributes:
        reply: as it stands in the data.
        question: one that it was taught for, the most similar to what was asked.
        score: BM25 over the features of the question.
        cover: the share of the question's content words, by their rarity, that were taught with this reply, 0 to 1.
    """

    reply: str
    question: str
    score: float
    cover: float


class AnswerList:
    """The questions and replies of a data set.

    Args:
        pairs: (question, reply), in any order; each is a user's turn and the turn that follows it.

    Raises:
        DataError: there are none, or too many different replies for a list.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]]):
        asked: dict[str, dict[str, None]] = {}
        for question, reply in pairs:
            if question.strip() and reply.strip():
                asked.setdefault(reply.strip(), {})[question.strip()] = None
            if len(asked) > MOST_REPLIES:
                raise DataError(
                    f"There are more than {MOST_REPLIES:,} different replies: too many for a list of answers.",
                    advice="Let the model answer.",
                )
        if not asked:
            raise DataError("There are no questions with replies to answer from.")
        self.replies = list(asked)
        self._questions = [list(questions) for questions in asked.values()]
        self._build()

    @classmethod
    def of(cls, conversations: Iterable[Conversation]) -> AnswerList:
        """The list in conversations: every turn of the user's with the reply that follows it."""
        return cls(pair for conversation in conversations for pair in find_exchanges(conversation))

    def __len__(self) -> int:
        return len(self.replies)

    def _build(self) -> None:
        documents = []
        for reply, questions in zip(self.replies, self._questions, strict=True):
            document: dict[str, float] = {}
            for text, share in [*((question, 1.0) for question in questions), (reply, OF_REPLY)]:
                for feature, weight in _extract_features(text).items():
                    document[feature] = document.get(feature, 0.0) + share * weight
            documents.append(document)
        lengths = [sum(document.values()) for document in documents]
        mean = sum(lengths) / len(lengths) or 1.0
        self._postings: dict[str, dict[int, float]] = {}
        for number, (document, length) in enumerate(zip(documents, lengths, strict=True)):
            spread = _SATURATION * (1 - _LENGTH + _LENGTH * length / mean)
            for feature, count in document.items():
                share = count * (_SATURATION + 1) / (count + spread)
                self._postings.setdefault(feature, {})[number] = share

    def _rarity(self, feature: str) -> float:
        """The inverse document frequency; a feature that no reply has is as rare as one that one reply has."""
        known = max(len(self._postings.get(feature, ())), 1)
        return math.log(1 + (len(self.replies) - known + 0.5) / (known + 0.5))

    def rank(self, question: str, most: int = 5) -> list[RankedReply]:
        """The replies that fit a question, the best first; none where no word is known."""
        features = _extract_features(question)
        scores: dict[int, float] = {}
        for feature, weight in features.items():
            value = self._rarity(feature) * weight
            for number, share in self._postings.get(feature, {}).items():
                scores[number] = scores.get(number, 0.0) + value * share
        best = sorted(scores, key=lambda number: (-scores[number], number))[:most]
        return [
            RankedReply(
                self.replies[number],
                self._find_nearest(features, number),
                scores[number],
                self._measure_cover(question, number),
            )
            for number in best
        ]

    def _measure_cover(self, question: str, number: int) -> float:
        """How much of the content of a question a reply was taught with; 0 where a question has no content word."""
        whole = covered = 0.0
        for word in dict.fromkeys(find_words(question)[:MOST_WORDS]):
            stemmed = stem(word)
            groups = find_groups(stemmed)
            if is_small_word(word) and not groups:
                continue
            rarity = self._rarity(f"w:{stemmed}") * (SMALL_WORD if is_small_word(word) else 1.0)
            whole += rarity
            if number in self._postings.get(f"w:{stemmed}", ()):
                covered += rarity
            elif any(number in self._postings.get(f"g:{group}", ()) for group in groups):
                covered += _MEANS_THE_SAME * rarity
        return covered / whole if whole else 0.0

    def find_sure(self, question: str) -> RankedReply | None:
        """The reply to quote, or None where none is sure: too little of the question is known, or two replies fit."""
        ranked = self.rank(question, 2)
        if ranked and normalize(ranked[0].question) == normalize(question):
            return ranked[0]
        if not ranked or ranked[0].cover < SURE_COVER:
            return None
        if len(ranked) > 1 and ranked[1].score > (1 - SURE_LEAD) * ranked[0].score:
            return None
        return ranked[0]

    def _find_nearest(self, asked: dict[str, float], number: int) -> str:
        """Of the questions of a reply, the one that shares most with the features of what was asked."""
        return max(
            self._questions[number],
            key=lambda known: sum(
                self._rarity(feature) * min(weight, asked.get(feature, 0.0))
                for feature, weight in _extract_features(known).items()
            ),
        )


def find_exchanges(conversation: Conversation) -> list[tuple[str, str]]:
    """Each turn of the user's, with the assistant's turn that follows it."""
    return [
        (before.text, after.text)
        for before, after in pairwise(conversation.turns)
        if before.role == "user" and after.role == "assistant"
    ]


def _extract_features(text: str) -> dict[str, float]:
    """The features of a text with their weights: words, pairs, pieces of words and groups of the same meaning."""
    words = find_words(text)[:MOST_WORDS]
    features: dict[str, float] = {}
    stems = []
    for word in words:
        stemmed = stem(word)
        stems.append(stemmed)
        for group in find_groups(stemmed):  # Also of "when" and "where", which say what kind of reply is wanted.
            features[f"g:{group}"] = GROUP
        if is_small_word(word):
            features[f"w:{stemmed}"] = SMALL_WORD
            continue
        features[f"w:{stemmed}"] = 1.0
        framed = f"^{stemmed}$"
        for size in (3, 4):
            for start in range(len(framed) - size + 1):
                features[f"c:{framed[start : start + size]}"] = PIECE
    for first, second in pairwise(stems):
        features[f"p:{first} {second}"] = PAIR
    return features
