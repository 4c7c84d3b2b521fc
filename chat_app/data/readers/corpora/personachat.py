"""Persona-Chat: a personality, and utterances with a history and candidate replies, of which the last is the true one.

The last utterance's history and true reply are the whole conversation. The speaker of the true reply, who has the
personality, is the assistant, and the personality is the system text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from chat_app.conversation import Conversation
from chat_app.data.readers.detokenize import tidy_text
from chat_app.data.readers.json.messages import describe_value, require_text
from chat_app.data.readers.options import ReadingOptions
from chat_app.data.readers.turn_text import check_count, clean_text
from chat_app.data.readers.types import Located, Part, Problem, RejectedError

SILENCE = "__ SILENCE __"
SILENCES = frozenset((SILENCE, "__SILENCE__"))


def is_record(record: Mapping[str, Any]) -> bool:
    """Whether a record is a conversation of this corpus in the original layout."""
    utterances = record.get("utterances")
    return (
        isinstance(utterances, list)
        and bool(utterances)
        and isinstance(utterances[0], dict)
        and "history" in utterances[0]
        and "candidates" in utterances[0]
    )


def is_row(record: Mapping[str, Any]) -> bool:
    """Whether a record is a single utterance of this corpus, as in some copies on the Hub."""
    return all(isinstance(record.get(key), list) for key in ("personality", "history", "candidates"))


def convert_record(record: Mapping[str, Any], options: ReadingOptions, need_reply: bool = True) -> Conversation:
    """Convert a record to a conversation.

    Raises:
        RejectedError: the record cannot be used.
    """
    utterances = record.get("utterances")
    if not isinstance(utterances, list) or not utterances:
        raise RejectedError("The conversation has no utterances.", "Delete it, or get the file again.")
    last = utterances[-1]
    if not isinstance(last, dict):
        raise RejectedError(
            f"The last utterance is {describe_value(last)}, not an object in braces.", "Get the file again."
        )
    return _build_conversation(record.get("personality"), last, options)


def convert_rows(
    rows: Iterable[tuple[int, Mapping[str, Any]]],
    file: str,
    options: ReadingOptions,
    need_reply: bool = True,
    part: Part = "train",
) -> Iterator[Located | Problem]:
    """Convert rows of one utterance each; the last row of a conversation has all of its turns."""
    first, before = 0, None
    for number, row in rows:
        if before is not None and not _continues(before, row):
            yield _convert_row(before, first, file, options, part)
            before = None
        if before is None:
            first = number
        before = row
    if before is not None:
        yield _convert_row(before, first, file, options, part)


def _continues(before: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    if "conv_id" in row or "conv_id" in before:
        return before.get("conv_id") == row.get("conv_id")
    history, earlier = row.get("history"), before.get("history")
    return (
        isinstance(history, list) and isinstance(earlier, list) and bool(earlier) and history[: len(earlier)] == earlier
    )


def _convert_row(
    row: Mapping[str, Any], number: int, file: str, options: ReadingOptions, part: Part
) -> Located | Problem:
    try:
        return Located(_build_conversation(row.get("personality"), row, options), number, file, part)
    except RejectedError as rejected:
        return Problem(file, number, rejected.reason, rejected.advice)


def _build_conversation(personality: Any, last: Mapping[str, Any], options: ReadingOptions) -> Conversation:
    history, candidates = last.get("history"), last.get("candidates")
    if not isinstance(history, list):
        raise RejectedError(f"The history is {describe_value(history)}, not a list of turns.", "Get the file again.")
    if not isinstance(candidates, list) or not candidates:
        raise RejectedError("The last utterance has no candidates, so its reply is missing.", "Get the file again.")
    said = [require_text(turn, f"turn {number}") for number, turn in enumerate([*history, candidates[-1]], start=1)]
    turns = [turn for turn in said if turn.strip() not in SILENCES]
    check_count(len(turns))
    texts = [tidy_text(clean_text(turn, f"turn {number}"), options.tidy) for number, turn in enumerate(turns, start=1)]
    if not texts:
        raise RejectedError("The conversation has no turns.", "Delete it, or get the file again.")
    return Conversation.from_turns(texts, system=_join_persona(personality, options), last="assistant")


def _join_persona(personality: Any, options: ReadingOptions) -> str | None:
    if personality is None:
        return None
    sentences = personality if isinstance(personality, list) else [personality]
    lines = [require_text(sentence, "the personality").strip() for sentence in sentences]
    lines = [tidy_text(line, options.tidy) for line in lines if line]
    return clean_text("\n".join(lines), "the personality") if lines else None
