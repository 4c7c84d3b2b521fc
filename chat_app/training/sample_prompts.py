"""The questions that a model answers again at each evaluation, as a person writes them: one a line."""

from __future__ import annotations

from collections.abc import Iterable

from chat_app.errors import SettingError

MOST = 12
LONGEST = 300


def parse_questions(text: str | Iterable[str]) -> tuple[str, ...]:
    """The questions in a text, one a line, each once; empty lines do not count.

    Raises:
        SettingError: more than twelve, or one that is too long.
    """
    lines = text.splitlines() if isinstance(text, str) else [line for one in text for line in one.splitlines()]
    questions = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if len(questions) > MOST:
        raise SettingError("questions", f"These are {len(questions)}.", advice=f"Write at most {MOST}, one a line.")
    for question in questions:
        if len(question) > LONGEST:
            raise SettingError(
                "questions", f"'{question[:40]}…' is too long.", advice=f"Write at most {LONGEST} characters."
            )
    return questions
