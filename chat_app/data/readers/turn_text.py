"""Cleaning and validation of the texts of turns, and building conversations from them."""

from __future__ import annotations

from chat_app.conversation import Conversation
from chat_app.data.readers.text_source import MAX_LINE_MEGABYTES
from chat_app.data.readers.types import RejectedError

MAX_TURNS = 2_000
TURN_SEPARATOR = " EOS "
UTTERANCE_END, TURN_END = "__eou__", "__eot__"
REPLACEMENT = "\ufffd"


def clean_text(text: str, what: str) -> str:
    """Strip a text.

    Args:
        text: the text.
        what: the name of the text in an error, such as "turn 2".

    Raises:
        RejectedError: the text is empty or contains a NUL.
    """
    text = text.strip()
    if not text:
        raise RejectedError(
            f"{what[0].upper()}{what[1:]} is empty.", "Write something there, or delete the whole conversation."
        )
    if "\0" in text:
        raise RejectedError(
            f"{what[0].upper()}{what[1:]} holds a character that is not text (NUL).", "Delete that character."
        )
    return text


def split_context(context: str) -> list[str]:
    """The turns inside a context; ` EOS ` separates them. One separator at the very end separates nothing.

    In the Ubuntu corpus `__eot__` ends a turn, and `__eou__` each utterance in it, which becomes a line.
    """
    if TURN_SEPARATOR not in context:
        if UTTERANCE_END in context:
            return [turn for part in context.split(TURN_END) if (turn := join_utterances(part))] or [""]
        return [context]
    turns = context.split(TURN_SEPARATOR)
    if not turns[-1].strip():
        turns.pop()
    return turns


def join_utterances(turn: str) -> str:
    """The utterances of a turn, a line each."""
    return "\n".join(said for part in turn.split(UTTERANCE_END) if (said := part.strip()))


def check_count(turns: int) -> None:
    """Check the number of turns of a conversation.

    Raises:
        RejectedError: there are more than 2,000.
    """
    if turns > MAX_TURNS:
        raise RejectedError(
            f"This conversation has {turns:,} turns; at most {MAX_TURNS:,} are read.", "Split it into several ones."
        )


def build_answered(context: list[str], reply: str, system: str | None = None) -> Conversation:
    """Build a conversation from the turns before a reply and the reply, all as they are in the file.

    Raises:
        RejectedError: a text is empty or cannot be used, or there are too many turns.
    """
    check_count(len(context) + 1)
    if len(context) == 1:
        turns = [clean_text(context[0], "the context")]
    else:
        turns = [clean_text(turn, f"turn {number}") for number, turn in enumerate(context, start=1)]
    turns.append(clean_text(reply, "the reply"))
    return Conversation.from_turns(turns, system=system, last="assistant")


def build_unanswered(turns: list[str], system: str | None = None) -> Conversation:
    """Build a conversation whose last turn is the user's, from turns as they are in the file.

    Raises:
        RejectedError: a text is empty or cannot be used, or there are too many turns.
    """
    check_count(len(turns))
    said = [clean_text(turn, f"turn {number}") for number, turn in enumerate(turns, start=1)]
    return Conversation.from_turns(said, system=system, last="user")


def replace_unstorable(text: str) -> str:
    """Replace characters that cannot be stored as UTF-8 text: NUL and lone surrogates."""
    if "\0" not in text and _is_whole(text):
        return text
    return "".join(REPLACEMENT if sign == "\0" or "\ud800" <= sign <= "\udfff" else sign for sign in text)


def not_utf8_error(position: int, what: str = "line") -> RejectedError:
    """The error for bytes that are not UTF-8.

    Args:
        position: the index of the first such byte, from 0.
        what: what to call the bytes: "line" or "file".
    """
    return RejectedError(
        f"This {what} has bytes that are not UTF-8 text (byte {position + 1:,}).",
        "Type them again, or save the file as UTF-8.",
    )


def decode_line(line: bytes | None, if_too_long: str = "Put each conversation on its own line.") -> str:
    """Decode a line from `Source.read_lines`.

    Args:
        line: the bytes; None for a line that is too long.
        if_too_long: the advice for such a line.

    Raises:
        RejectedError: the line is too long or not UTF-8.
    """
    if line is None:
        raise RejectedError(f"This line is longer than {MAX_LINE_MEGABYTES} MB.", if_too_long)
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8_error(error.start) from error


def _is_whole(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
