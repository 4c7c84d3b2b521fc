"""Data augmentation: paraphrases of prompts by rules of English that keep the meaning.

Training on them makes a correction apply to other wordings of its prompt. In other languages only punctuation, capitals
and the choice of keywords change.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence

# Phrases of one line are interchangeable in a question.
_SAME: tuple[tuple[str, ...], ...] = (
    ("what is", "what's"),
    ("where is", "where's", "where can I find"),
    ("who is", "who's"),
    ("how is", "how's"),
    ("when is", "when's"),
    ("that is", "that's"),
    ("it is", "it's"),
    ("i am", "i'm"),
    ("i have", "i've"),
    ("i will", "i'll"),
    ("you are", "you're"),
    ("do not", "don't"),
    ("does not", "doesn't"),
    ("did not", "didn't"),
    ("is not", "isn't"),
    ("are not", "aren't"),
    ("cannot", "can't", "can not"),
    ("how do i", "how can i", "how should i", "how would i"),
    ("where can i", "where do i", "where could i", "where should i"),
    ("can you", "could you", "would you"),
    ("can i", "could i", "may i", "am i able to", "is it possible to"),
    ("do you have", "have you got"),
    ("do you like", "do you enjoy", "are you fond of"),
    ("do you know", "have you any idea", "can you say"),
    ("do you think", "would you say", "do you believe"),
    ("what is your", "tell me your", "may i know your"),
    ("what are your", "tell me your", "may i know your"),
    ("tell me", "let me know"),
    ("what time", "when"),
    ("what kind of", "what sort of", "which kind of", "what type of"),
    ("how much is", "what is the price of"),
    ("want to", "would like to", "wish to"),
    ("i need", "i want", "i would like"),
    ("favorite", "favourite", "best-loved"),
    ("hello", "hi", "hey"),
    ("thanks", "thank you"),
)
_GREETINGS = ("Hey, ", "Hi, ", "Hello! ", "So, ", "Well, ", "OK, ", "And ", "By the way, ", "One more thing: ")
_ASKING = (
    "Please, ", "Excuse me, ", "Tell me, ", "Can you tell me, ", "Could you please tell me: ", "I want to ask: ",
    "Quick question: ", "I would like to know, ", "Do you know, ", "I have a question. ", "I was wondering, ",
)  # fmt: skip
_CLOSINGS = (" please", ", please", " then", " now")
_ASKED = (" Thanks!", " Thank you.", " Do you know?", " I wonder.", " Tell me!")
_ABOUT = (
    "{}", "{}?", "{} please", "What about {}?", "Tell me about {}.", "I want to ask about {}.", "Which {}?",
    "A question about {}.", "I was wondering about {}.", "What can you say about {}?", "{}, do you know?",
    "Is there {}?", "Is it {}?", "Are there {}?", "Do you know {}?", "Do you have {}?", "Could you {}?", "Can I {}?",
    "May I {}?", "How do I {}?", "How about {}?", "Where is {}?", "What is {}?", "What are {}?", "Who is {}?",
    "When is {}?", "Why {}?", "I would like {}.", "I want {}.", "I need {}.", "My {}?", "Your {}?", "Any {}?",
    "I am looking for {}.", "Could you help me with {}?", "What is it with {}?",
)  # fmt: skip
_END = re.compile(r"[\s.!?]+$")
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_SMALL_WORDS = frozenset(
    _WORD.findall("""
    a an the do does did is are am was were be been to of for in on at it its that this these those so and or but if
    with from by as about you your yours i my me mine we our us he she they them his her their can could would should
    will may might must shall have has had got get not no what which who whom whose where when why how much many any
    some there here please tell just very really too what's where's who's how's i'm i've it's that's don't
    """)
)
# Verbs and adjectives that go with any subject; they are keywords only if a prompt has no others.
_LIGHT_WORDS = frozenset(
    _WORD.findall("""
    like love want need know think go going come say said make take give feel see look use used work works thing things
    good new best great nice today now often always ever also
    """)
)
_DROPPED = frozenset(
    _WORD.findall("a an the do does did is are am be to of for in on at it that this so you your i my me")
)


def paraphrase(prompt: str, chance: random.Random) -> str:
    """Paraphrase a prompt at random: replace phrases, add a greeting, drop a stop word, change capitals or punctuation.

    Args:
        prompt: one line of text; a longer one is returned unchanged.
        chance: the source of randomness.
    """
    mark = (found.group().strip() if (found := _END.search(prompt)) else "")[:3]
    text = _END.sub("", prompt)
    if not text or "\n" in text:
        return prompt
    is_question = "?" in mark
    if chance.random() < 0.7:
        text = _replace_phrases(text, chance)
    if chance.random() < 0.35:
        text = _drop_small_word(text, chance)
    if chance.random() < 0.5:
        text = chance.choice(_GREETINGS + _ASKING if is_question else _GREETINGS) + _lower_first(text)
    if is_question and chance.random() < 0.15:
        text, mark = text + mark + chance.choice(_ASKED), ""
    elif chance.random() < 0.2:
        text += chance.choice(_CLOSINGS)
    if mark and chance.random() < 0.3:
        mark = chance.choice(("", "?", "??") if is_question else ("", "!", "."))
    return chance.choice((text, text, text.lower(), text[:1].upper() + text[1:])) + mark


def is_small_word(word: str) -> bool:
    """Whether a word in lower case is a stop word, which tells little about what is asked."""
    return word in _SMALL_WORDS


def find_keywords(prompt: str) -> list[str]:
    """The keywords of a prompt in lower case: its words without stop words, in their order."""
    words = [word for word in _WORD.findall(prompt.lower()) if word not in _SMALL_WORDS]
    return [word for word in words if word not in _LIGHT_WORDS] or words


def share_of_small_words(texts: Iterable[str]) -> float:
    """The share of English stop words among all words, 0 to 1: high in English, low in other languages."""
    words = [word for text in texts for word in _WORD.findall(text.lower())]
    return sum(word in _SMALL_WORDS for word in words) / len(words) if words else 0.0


def reduce_to_keywords(prompt: str, others: Sequence[frozenset[str]], chance: random.Random) -> str:
    """Rewrite a prompt as its keywords, or all but one of them, in a short frame such as "Tell me about {}.".

    Args:
        prompt: one line of text.
        others: the keywords of the other corrections. If one of them contains all chosen keywords, the result would be
            ambiguous, and the prompt is returned unchanged.
        chance: the source of randomness.
    """
    words = find_keywords(prompt)
    if not words:
        return prompt
    if len(words) > 1 and chance.random() < 0.5:
        words.remove(chance.choice(words))
    if any(other.issuperset(words) for other in others):
        return prompt
    if chance.random() < 0.3:
        words.reverse()
    words = [_switch_number(word) if chance.random() < 0.3 else word for word in words]
    return chance.choice(_ABOUT).format(" ".join(words))


def _switch_number(word: str) -> str:
    """The plural of a singular noun or the reverse, by adding or removing an s."""
    if len(word) < 3 or word.endswith(("ss", "us", "is", "ed", "ing")):
        return word
    return word[:-1] if word.endswith("s") else word + "s"


def _replace_phrases(text: str, chance: random.Random) -> str:
    """Replace one or two phrases by synonymous ones."""
    for _ in range(chance.choice((1, 2))):
        hits = [
            (found, phrase, group)
            for group in _SAME
            for phrase in group
            if (found := re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text, re.IGNORECASE))
        ]
        if hits:
            found, phrase, group = chance.choice(hits)
            other = chance.choice([one for one in group if one != phrase])
            start, end = found.span()
            text = text[:start] + (other[:1].upper() + other[1:] if start == 0 else other) + text[end:]
    return text


def _drop_small_word(text: str, chance: random.Random) -> str:
    """Drop one article, auxiliary or pronoun, as people do in a hurry."""
    words = text.split(" ")
    small = [index for index, word in enumerate(words) if word.lower() in _DROPPED]
    if len(words) >= 4 and small:
        del words[chance.choice(small)]
    return " ".join(words)


def _lower_first(text: str) -> str:
    first = text.split(" ", 1)[0]
    return text if first in ("I", "I'm", "I've", "I'd", "I'll") or first.isupper() else text[:1].lower() + text[1:]


def normalize(text: str) -> str:
    """A normal form for comparing prompts: the words in lower case, without punctuation."""
    return " ".join(re.findall(r"\w+", text.casefold()))
