"""The text of one turn: what of it can be used. Knows nothing of where a turn stands in a file."""

from __future__ import annotations

from chat_app.conversation import Conversation
from chat_app.data.readers.text_source import MAX_LINE_MEGABYTES
from chat_app.data.readers.types import RejectedError

MAX_TURNS = 2_000
TURN_SEPARATOR = " EOS "
REPLACEMENT = "\ufffd"


def clean_text(text: str, what: str) -> str:
    """The text without the spaces around it. `what` names it in a complaint ("turn 2").

    Raises:
        RejectedError: nothing is left, or it holds a character that no text has.
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
    """The turns inside a context; ` EOS ` separates them. One separator at the very end separates nothing."""
    if TURN_SEPARATOR not in context:
        return [context]
    turns = context.split(TURN_SEPARATOR)
    if not turns[-1].strip():
        turns.pop()
    return turns


def check_count(turns: int) -> None:
    """Refuses a conversation that is too long to be one."""
    if turns > MAX_TURNS:
        raise RejectedError(
            f"This conversation has {turns:,} turns; at most {MAX_TURNS:,} are read.", "Split it into several ones."
        )


def build_answered(context: list[str], reply: str, system: str | None = None) -> Conversation:
    """What was said before, and the reply to learn: the assistant speaks last. All texts as they stand in the file."""
    check_count(len(context) + 1)
    if len(context) == 1:
        turns = [clean_text(context[0], "the context")]
    else:
        turns = [clean_text(turn, f"turn {number}") for number, turn in enumerate(context, start=1)]
    turns.append(clean_text(reply, "the reply"))
    return Conversation.from_turns(turns, system=system, last="assistant")


def build_unanswered(turns: list[str], system: str | None = None) -> Conversation:
    """What was said, whose reply is still to come: the user speaks last. All texts as they stand in the file."""
    check_count(len(turns))
    said = [clean_text(turn, f"turn {number}") for number, turn in enumerate(turns, start=1)]
    return Conversation.from_turns(said, system=system, last="user")


def replace_unstorable(text: str) -> str:
    """The text with what no file of text can hold (NUL, half a surrogate pair) replaced."""
    if "\0" not in text and _is_whole(text):
        return text
    return "".join(REPLACEMENT if sign == "\0" or "\ud800" <= sign <= "\udfff" else sign for sign in text)


def not_utf8_error(position: int, what: str = "line") -> RejectedError:
    """The complaint about bytes in another encoding than the rest of their file; `position` counts from 0."""
    return RejectedError(
        f"This {what} has bytes that are not UTF-8 text (byte {position + 1:,}).",
        "Type them again, or save the file as UTF-8.",
    )


def decode_line(line: bytes | None, if_too_long: str = "Put each conversation on its own line.") -> str:
    """The text of a line as `Source.read_lines` gives it.

    Raises:
        RejectedError: it is too long, with that advice, or not UTF-8.
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
