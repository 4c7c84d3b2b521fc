"""What a person should look at though nothing is wrong with a file: guesses, and what is in it and not learned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from chat_app.conversation import Conversation
from chat_app.data.readers.text_source import Source, read_first_lines
from chat_app.data.readers.types import Note, RejectedError, quote_text

LOOKED_LINES = 500
PLACEHOLDERS = ("<image>", "<video>", "<audio>")
NOT_LEARNED = "not to be learned (train: false, or a weight of 0)"


class MarkedBadError(RejectedError):
    """A conversation that its publisher marks as a bad example. They are counted, and said once a file."""

    def __init__(self, mark: str):
        self.mark = mark
        super().__init__(f"It is marked as a bad answer ({mark}).", "It is not learned.")


@dataclass
class BadExamples:
    """How many examples of a file carry which mark of a bad answer, and the first of them."""

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, int] = field(default_factory=dict)

    def add(self, mark: str, line: int) -> None:
        """Count one."""
        self.counts[mark] = self.counts.get(mark, 0) + 1
        self.first.setdefault(mark, line)

    def iterate_notes(self, file: str) -> Iterator[Note]:
        """A note for each mark."""
        for mark, count in self.counts.items():
            what = "1 answer is" if count == 1 else f"{count:,} answers are"
            where = "" if count == 1 else "the first "
            reason = f"{what} marked as bad ({mark}), {where}here, and not learned."
            yield Note(file, self.first[mark], reason, "Take the mark away where an answer is good.")


@dataclass
class Counts:
    """What is counted of the conversations of a file: replies that are not learned, and places of pictures."""

    not_learned: int = 0
    placeholders: dict[str, int] = field(default_factory=dict)

    def add(self, conversation: Conversation) -> None:
        """Count those of a conversation."""
        for message in conversation.messages:
            self.not_learned += not message.in_loss
            for placeholder in PLACEHOLDERS:
                if placeholder in message.text:
                    self.placeholders[placeholder] = self.placeholders.get(placeholder, 0) + 1

    def iterate_notes(self, file: str) -> Iterator[Note]:
        """A note for each of them that there is."""
        if self.not_learned:
            what = "1 message is" if self.not_learned == 1 else f"{self.not_learned:,} messages are"
            yield Note(file, None, f"{what} marked as {NOT_LEARNED}.", "A model reads them only as what was said.")
        for placeholder, count in self.placeholders.items():
            what = "1 message holds" if count == 1 else f"{count:,} messages hold"
            reason = f"{what} {placeholder}, the place of something that is no text."
            yield Note(file, None, reason, "Only the words around it are learned; take such conversations out.")


def note_encoding(source: Source) -> Iterator[Note]:
    """A note where the encoding of a text is a guess, with a line in which it can be checked."""
    if not source.is_guessed:
        return
    lines = (line.decode("utf-8", "replace") for line in read_first_lines(source, LOOKED_LINES))
    shown = next((line for line in lines if not line.isascii()), "")
    like = f", as in {quote_text(_begin_at_sign(shown))}" if shown else ""
    reason = f"Please look: this text was taken for {source.encoding}{like}."
    yield Note(source.name, None, reason, "If these are the wrong letters, say the encoding (--encoding NAME).")


def _begin_at_sign(line: str) -> str:
    """The line from a few words before its first character beyond ASCII."""
    first = next(place for place, sign in enumerate(line) if not sign.isascii())
    return line[max(line.rfind(" ", 0, max(first - 12, 0)) + 1, 0) :] if first > 24 else line
