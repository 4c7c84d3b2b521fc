"""Whether the cells of a column are things that people say, as far as that can be seen. Knows texts; knows no names."""

from __future__ import annotations

import re
from collections.abc import Sequence

# What ends a sentence, also inside quotes or brackets and before a smiley.
SENTENCE_END = re.compile(r"[.!?…。！？؟।;](?:[\"'”’»)\]]|\s*[^\w\s]{1,3})?$")
QUESTION_END = re.compile(r"[?？؟;][\"'”’»)\]]?$")
# Scripts without spaces between words: four of their characters say about as much as two words.
UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]{4}")
FEWEST_WORDS = 3
SAID_SHARE = 0.5
PAIR_SHARE = 0.3
FEWEST_CONSTANT = 3


def is_said(text: str) -> bool:
    """Whether a text looks like something said: it ends as a sentence does, or has words that go on in small letters.

    Names, addresses and titles have capitals in most of their words and no full stop.
    """
    text = text.strip()
    if SENTENCE_END.search(text) and (" " in text or len(text) > 2):
        return True
    if UNSPACED.search(text):
        return True
    words = [word for word in text.split() if word[0].isalpha()]
    rest = words[1:]
    return len(words) >= FEWEST_WORDS and 2 * sum(not word[0].isupper() for word in rest) >= len(rest)


def share_said(texts: Sequence[str]) -> float:
    """The share of the texts that look like something said; 0 if there are none."""
    full = [text for text in texts if text.strip()]
    return sum(map(is_said, full)) / len(full) if full else 0.0


def share_asked(texts: Sequence[str]) -> float:
    """The share of the texts that end with a question mark; 0 if there are none."""
    full = [stripped for text in texts if (stripped := text.strip())]
    return sum(QUESTION_END.search(text) is not None for text in full) / len(full) if full else 0.0


def is_constant(texts: Sequence[str]) -> bool:
    """Whether a column says the same in every row, so that it is a remark about the table and no talk."""
    full = {text.strip() for text in texts if text.strip()}
    return len(full) == 1 and len(texts) >= FEWEST_CONSTANT
