"""What people say and what a bot answers, several of each -> conversations of two turns. Knows no files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from chat_app.conversation import Conversation

# Beyond this not every question is put together with every answer: a hundred by a hundred would drown all others.
MOST_PAIRS = 100


def pair_up(questions: Sequence[str], answers: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Every question with every answer; of many, each question and each answer at least once."""
    if len(questions) * len(answers) <= MOST_PAIRS:
        yield from ((question, answer) for question in questions for answer in answers)
    elif questions and answers:
        for number in range(max(len(questions), len(answers))):
            yield questions[number % len(questions)], answers[number % len(answers)]


def build_pair(question: str, answer: str) -> Conversation:
    """A question and its answer as a conversation."""
    return Conversation.from_turns([question, answer])


def clean_texts(values: object) -> list[str]:
    """The texts of a list, or a single one, without empty ones and without those that were said before."""
    items = values if isinstance(values, list) else [values]
    return list(dict.fromkeys(text for item in items if isinstance(item, str) and (text := item.strip())))
