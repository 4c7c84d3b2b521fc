"""Data augmentation: what the user says, in the many ways in which people would say it. Replies are never changed.

A model that is taught a small set learns its wordings by heart and fails where a question is asked in other words.
With noise on the user's side (words left out or exchanged, slips of the keyboard, politeness, paraphrases) it has to
learn what the wordings of a question have in common. In languages other than English nothing is added, and where no
spaces stand between words, single characters are left out or exchanged.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace

from chat_app.conversation import Conversation
from chat_app.data.paraphrase import find_keywords, paraphrase, reduce_to_keywords, share_of_small_words

ENGLISH_SHARE = 0.25  # The share of articles, pronouns and auxiliaries from which a text is taken for English.
PARAPHRASED, REDUCED = 0.45, 0.15
SWAPPED, MISSPELLED, LOWERED, UNPUNCTUATED = 0.25, 0.3, 0.3, 0.3
LEAST_DROPPED, MOST_DROPPED = 0.0, 0.35
DROPPED_CHARACTERS = 0.1  # Of a language without spaces, where a character says as much as a word.
_WITHOUT_SPACES = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]"
)
_PUNCTUATION = re.compile(r"[.,;:!?¿¡…]+(?=\s|$)|(?:(?<=\s)|^)[¿¡]+")


class UserNoise:
    """Writes other wordings of the user's turns of a set.

    Args:
        conversations: the whole set, which tells the language and which keywords belong to several replies.
    """

    def __init__(self, conversations: Sequence[Conversation]):
        texts = [turn.text for one in conversations for turn in one.turns if turn.role == "user"]
        self.is_english = share_of_small_words(texts) >= ENGLISH_SHARE
        self._keywords: dict[str, list[frozenset[str]]] = {}
        for one in conversations if self.is_english else ():
            for user, answer in zip(one.turns, one.turns[1:], strict=False):
                if user.role == "user":
                    self._keywords.setdefault(answer.text, []).append(frozenset(find_keywords(user.text)))

    def reword(self, conversation: Conversation, chance: random.Random) -> Conversation:
        """A copy of a conversation with other wordings of all that the user says."""
        messages = list(conversation.messages)
        for place, message in enumerate(messages):
            if message.role == "user":
                answer = messages[place + 1].text if place + 1 < len(messages) else ""
                messages[place] = replace(message, text=self._reword_text(message.text, answer, chance))
        return Conversation(tuple(messages))

    def _reword_text(self, text: str, answer: str, chance: random.Random) -> str:
        if _WITHOUT_SPACES.search(text):
            return _drop_characters(text, chance)
        if self.is_english and chance.random() < REDUCED:
            others = [words for reply, all_of in self._keywords.items() if reply != answer for words in all_of]
            return reduce_to_keywords(text, others, chance)
        return add_noise(text, chance, english=self.is_english)


def add_noise(text: str, chance: random.Random, *, english: bool) -> str:
    """Another wording of a text whose words are separated by spaces: shorter, sloppier or more polite.

    Args:
        english: whether it may be paraphrased by rules of English.
    """
    dropped = chance.uniform(LEAST_DROPPED, MOST_DROPPED)
    words = text.split(" ")
    if len(words) > 2:
        kept = [word for word in words if chance.random() >= dropped]
        words = kept if len(kept) >= 2 else chance.sample(words, 2)
    if len(words) > 2 and chance.random() < SWAPPED:
        place = chance.randrange(len(words) - 1)
        words[place], words[place + 1] = words[place + 1], words[place]
    if chance.random() < MISSPELLED:
        place = chance.randrange(len(words))
        words[place] = _misspell(words[place], chance)
    said = " ".join(words)
    if english and chance.random() < PARAPHRASED:
        said = paraphrase(said, chance)
    if chance.random() < UNPUNCTUATED:
        said = _PUNCTUATION.sub("", said)
    if chance.random() < LOWERED:
        said = said.lower()
    return said if said.strip() else text


def _misspell(word: str, chance: random.Random) -> str:
    """Lose, double or exchange a letter inside of a word; short words and numbers stay."""
    if len(word) < 4 or not word.isalpha():
        return word
    place = chance.randrange(1, len(word) - 1)
    before, letter, after = word[:place], word[place], word[place + 1 :]
    return before + chance.choice((after, 2 * letter + after, after[0] + letter + after[1:]))


def _drop_characters(text: str, chance: random.Random) -> str:
    """Leave out a few characters, and exchange two that stand side by side."""
    kept = [one for one in text if chance.random() >= DROPPED_CHARACTERS]
    if len(kept) < max(2, len(text) // 2):
        return text
    if len(kept) > 3 and chance.random() < SWAPPED:
        place = chance.randrange(len(kept) - 1)
        kept[place], kept[place + 1] = kept[place + 1], kept[place]
    return "".join(kept)
