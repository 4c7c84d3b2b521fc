"""Metrics of replies: BLEU, distinct-n, reward, penalty and length. Text in, numbers out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from chat_app.evaluation.segmentation import NO_SPACES, choose_tokenizer

_WORD = re.compile(rf"[{NO_SPACES}]|[^\W{NO_SPACES}]+(?:'[^\W{NO_SPACES}]+)*|[^\w\s]")


def words(text: str) -> list[str]:
    """The words and punctuation marks of a text, in lower case; in scripts without spaces, its characters."""
    return _WORD.findall(text.lower())


def bleu(replies: Sequence[str], references: Sequence[str]) -> float:
    """Corpus BLEU from 0 to 100 (Papineni et al. 2002), as sacrebleu computes it: its number can be compared with
    others'. Its tokenizer is that of `segmentation.choose_tokenizer` for the references."""
    from sacrebleu.metrics import BLEU

    if not replies:
        return 0.0
    return float(BLEU(tokenize=choose_tokenizer(references)).corpus_score(list(replies), [list(references)]).score)


def distinct(replies: Sequence[str], n: int) -> float:
    """Different n-grams over all n-grams of all replies, 0 to 1 (Li et al. 2016): low means that replies repeat."""
    counts: Counter[tuple[str, ...]] = Counter()
    for reply in replies:
        said = words(reply)
        counts.update(zip(*(said[start:] for start in range(n)), strict=False))
    total = sum(counts.values())
    return len(counts) / total if total else 0.0


def reward(replies: Sequence[str], references: Sequence[str]) -> float:
    """The share of the references' words that the replies contain, 0 to 1; a word counts as often as it occurs in
    both."""
    hits = expected = 0
    for reply, reference in zip(replies, references, strict=True):
        wanted = Counter(words(reference))
        hits += sum((wanted & Counter(words(reply))).values())
        expected += sum(wanted.values())
    return hits / expected if expected else 0.0


def penalty(replies: Sequence[str]) -> float:
    """The share of words that repeat the word before them, 0 to 1."""
    repeats = total = 0
    for reply in replies:
        said = words(reply)
        repeats += sum(first == second for first, second in pairwise(said))
        total += len(said)
    return repeats / total if total else 0.0


def mean_words(replies: Sequence[str]) -> float:
    """How many words a reply has on average; punctuation marks are no words."""
    counts = [sum(word[0].isalnum() or word[0] == "_" for word in words(reply)) for reply in replies]
    return sum(counts) / len(counts) if counts else 0.0
