"""DailyDialog: one conversation a line with __eou__ after each turn, or rows on the Hub with a list "dialog".

Its text is tokenised ("how are you ?"), so it is detokenized.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from chat_app.conversation import Conversation
from chat_app.data.readers.detokenize import looks_tokenised, tidy_text
from chat_app.data.readers.json.messages import describe_value, require_text
from chat_app.data.readers.options import ReadingOptions
from chat_app.data.readers.protocol import InputFile, TextReader
from chat_app.data.readers.split_names import part_from_filename
from chat_app.data.readers.text_source import Source, read_first_lines
from chat_app.data.readers.turn_text import check_count, clean_text, decode_line
from chat_app.data.readers.types import Located, Problem, RejectedError

END_OF_TURN = "__eou__"
# In the Ubuntu corpus this ends a turn, and __eou__ an utterance in it; its files are tables.
OTHER_END_OF_TURN = b"__eot__"
LABELS = ("act", "emotion")


@dataclass(frozen=True)
class DailyDialogReader(TextReader):
    """Reads DailyDialog's original files."""

    kind = "dailydialog"

    @classmethod
    def sniff(cls, file: InputFile) -> DailyDialogReader | None:
        """A reader if most of the first lines end their turns with __eou__; not if the options name columns."""
        return cls(file.source, file.options) if not file.options.columns and is_dailydialog(file.source) else None

    def read(self, *, need_reply: bool = True) -> Iterator[Located | Problem]:
        """The conversations and the problems, line by line."""
        return read_conversations(self.source, self.options, need_reply)


def is_dailydialog(source: Source) -> bool:
    """Whether most of the first lines have the mark at the end of a turn, and none is JSON or of the Ubuntu corpus."""
    lines = read_first_lines(source)
    if any(OTHER_END_OF_TURN in line for line in lines):
        return False
    marked = sum(END_OF_TURN.encode() in line and not line.startswith((b"{", b"[")) for line in lines)
    return bool(lines) and 2 * marked > len(lines)


def read_conversations(source: Source, options: ReadingOptions, need_reply: bool = True) -> Iterator[Located | Problem]:
    """Read each line of a file (dialogues_text.txt, dialogues_train.txt) as a conversation or a problem."""
    part = part_from_filename(source.name)
    for number, raw in source.read_lines():
        if raw is not None and not raw.strip():
            continue
        try:
            turns = _split_turns(raw)
            yield Located(_build_conversation(turns, options, need_reply), number, source.name, part)
        except RejectedError as rejected:
            yield Problem(source.name, number, rejected.reason, rejected.advice)


def is_row(record: dict[str, Any]) -> bool:
    """Whether a record is a row of this corpus on the Hub."""
    return isinstance(record.get("dialog"), list) and any(key in record for key in LABELS)


def convert_row(record: dict[str, Any], options: ReadingOptions, need_reply: bool = True) -> Conversation:
    """Convert a row to a conversation.

    Raises:
        RejectedError: the row cannot be used.
    """
    dialog = record.get("dialog")
    if not isinstance(dialog, list):
        raise RejectedError(f'"dialog" is {describe_value(dialog)}, not a list of turns.', "Write the turns there.")
    turns = [require_text(turn, f"turn {number}") for number, turn in enumerate(dialog, start=1)]
    if options.tidy == "automatic" and not any(map(looks_tokenised, turns)):
        return _build_conversation(turns, ReadingOptions(tidy="off"), need_reply)
    return _build_conversation(turns, options, need_reply)


def _split_turns(raw: bytes | None) -> list[str]:
    turns = decode_line(raw).split(END_OF_TURN)
    if not turns[-1].strip():
        turns.pop()
    return turns


def _build_conversation(turns: list[str], options: ReadingOptions, need_reply: bool) -> Conversation:
    check_count(len(turns))
    texts = [tidy_text(clean_text(turn, f"turn {number}"), options.tidy) for number, turn in enumerate(turns, start=1)]
    if not texts:
        raise RejectedError("The conversation has no turns.", "Write at least two, or delete the line.")
    if need_reply and len(texts) < 2:
        raise RejectedError("The conversation has 1 turn; it needs at least two turns.", "Add the reply.")
    return Conversation.from_turns(texts)
