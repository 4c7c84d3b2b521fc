"""DialoGPT's training format: lines with a loss weight of 0.0 or 1.0 before each turn, and a tab before the reply."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from chat_app.conversation import Conversation, Message
from chat_app.data.readers.options import ReadingOptions
from chat_app.data.readers.protocol import InputFile, TextReader
from chat_app.data.readers.text_source import Source, read_first_lines
from chat_app.data.readers.turn_text import check_count, clean_text, decode_line, split_context
from chat_app.data.readers.types import Located, Problem, RejectedError

WEIGHT = re.compile(r"\s*([01](?:\.\d{1,6})?)(?:\s+|$)")
WEIGHTED_LINE = re.compile(rb"\s*[01]\.\d{1,6} [^\t]*\t\s*[01]\.\d{1,6} ")


@dataclass(frozen=True)
class DialoGPTReader(TextReader):
    """Reads lines with a weight before each turn."""

    kind = "dialogpt"

    @classmethod
    def sniff(cls, file: InputFile) -> DialoGPTReader | None:
        """A reader if most of the first lines have a weight before the context and before the reply."""
        return cls(file.source, file.options) if is_dialogpt(file.source) else None

    def read(self, *, need_reply: bool = True) -> Iterator[Located | Problem]:
        """The conversations and the problems, line by line."""
        return read_conversations(self.source, self.options, need_reply)


def is_dialogpt(source: Source) -> bool:
    """Whether most of the first lines have a weight before the context and before the reply."""
    lines = read_first_lines(source)
    return bool(lines) and 2 * sum(WEIGHTED_LINE.match(line) is not None for line in lines) > len(lines)


def read_conversations(
    source: Source, options: ReadingOptions | None = None, need_reply: bool = True
) -> Iterator[Located | Problem]:
    """Read each line as a conversation or a problem; empty lines are skipped. `options` has no effect."""
    for number, raw in source.read_lines():
        if raw is not None and not raw.strip():
            continue
        try:
            yield Located(_build_conversation(raw, need_reply), number, source.name)
        except RejectedError as rejected:
            yield Problem(source.name, number, rejected.reason, rejected.advice)


def _build_conversation(raw: bytes | None, need_reply: bool) -> Conversation:
    cells = decode_line(raw).split("\t")
    if len(cells) != 2:
        raise RejectedError(
            f"This line has {len(cells):,} column{'s' if len(cells) > 1 else ''}; two are needed.",
            "Write what was said, press the Tab key, then write the reply.",
        )
    turns = [*split_context(cells[0]), cells[1]]
    check_count(len(turns))
    said = [
        _split_weight(turn, "the reply" if number == len(turns) else f"turn {number}")
        for number, turn in enumerate(turns, 1)
    ]
    messages = [
        Message("assistant" if (len(said) - number) % 2 else "user", text, learned)
        for number, (text, learned) in enumerate(said)
    ]
    if need_reply and not any(message.in_loss for message in messages if message.role == "assistant"):
        raise RejectedError(
            "Every reply has the weight 0.0: there is nothing to learn in this line.",
            "Write 1.0 before the reply that is to be learned, or delete the line.",
        )
    return Conversation(tuple(messages))


def _split_weight(turn: str, what: str) -> tuple[str, bool]:
    """The text of a turn without its weight, and whether it is in the loss."""
    weight = WEIGHT.match(turn)
    name = f"{what[0].upper()}{what[1:]}"
    if weight is None:
        raise RejectedError(
            f"{name} does not begin with a weight.", "Write 1.0 before it if it is to be learned, else 0.0."
        )
    value = float(weight.group(1))
    if value not in (0.0, 1.0):
        raise RejectedError(f"{name} has the weight {weight.group(1)}.", "Write 1.0 for what is to be learned, or 0.0.")
    return clean_text(turn[weight.end() :], what), value == 1.0
