"""Cornell Movie-Dialogs: the lines in one file (movie_lines.txt), which of them are a conversation in another.

Who speaks first in a conversation is the user, the other character the assistant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from chat_app.conversation import Conversation, Message
from chat_app.data.readers.protocol import InputFile, JoinedReader, OpenedReader
from chat_app.data.readers.text_source import Source
from chat_app.data.readers.turn_text import MAX_TURNS, replace_unstorable
from chat_app.data.readers.types import Located, Preview, Problem
from chat_app.errors import DataError

FIELD = " +++$+++ "
LINE = re.compile(r"L\d+ \+\+\+\$\+\+\+ u\d+ \+\+\+\$\+\+\+ m\d+ \+\+\+\$\+\+\+ ")
CONVERSATION = re.compile(r"u\d+ \+\+\+\$\+\+\+ u\d+ \+\+\+\$\+\+\+ m\d+ \+\+\+\$\+\+\+ \[")
ID = re.compile(r"L\d+")
MOST_LINES = 5_000_000


class CornellReader(JoinedReader):
    """Reads the two files of Cornell Movie-Dialogs."""

    @classmethod
    def sniff(cls, file: InputFile) -> CornellReader | None:
        """A reader if the first line is of one of the two files."""
        head = file.beginning
        return cls(file) if LINE.match(head) or CONVERSATION.match(head) else None

    @classmethod
    def join(cls, files: Sequence[InputFile]) -> Sequence[OpenedReader]:
        """One reader of both files."""
        lines = [file.source for file in files if LINE.match(file.beginning)]
        conversations = [file.source for file in files if not LINE.match(file.beginning)]
        if not lines or not conversations:
            missing = "movie_conversations.txt" if lines else "movie_lines.txt"
            raise DataError(
                "This is one of the two files of Cornell Movie-Dialogs.",
                where=files[0].name,
                advice=f"Give {missing} together with it, or the folder of both.",
            )
        return [CornellCorpus(lines, conversations)]


@dataclass(frozen=True)
class CornellCorpus:
    """Both files."""

    lines: list[Source]
    conversations: list[Source]

    def preview(self) -> Preview:
        """The kind."""
        first = self.conversations[0]
        return Preview(first.name, "cornell", first.encoding)

    def read(self, *, need_reply: bool = True) -> Iterator[Located | Problem]:
        """The conversations, each at its line in the file of the conversations."""
        said = dict(_read_lines(self.lines))
        for source in self.conversations:
            for number, raw in source.read_lines():
                line = (raw or b"").decode("utf-8", "replace")
                if line.strip():
                    yield _build(line, said, source.name, number, need_reply)


def _read_lines(sources: Sequence[Source]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Each line's id, who says it, and what."""
    count = 0
    for source in sources:
        for _, raw in source.read_lines():
            cells = (raw or b"").decode("utf-8", "replace").split(FIELD.strip(), 4)
            count += 1
            if count > MOST_LINES:
                raise DataError(f"More than {MOST_LINES:,} lines are said here.", where=source.name, advice="Split it.")
            if len(cells) == 5:
                yield cells[0].strip(), (cells[1].strip(), replace_unstorable(cells[4]).strip())


def _build(line: str, said: dict[str, tuple[str, str]], file: str, number: int, need_reply: bool) -> Located | Problem:
    ids = ID.findall(line.rpartition(FIELD)[2])
    found = [said[one] for one in ids if one in said]
    if len(found) < len(ids) or not ids:
        return Problem(file, number, "A line of this conversation is not in movie_lines.txt.", "Get both files again.")
    spoken = [(speaker, text) for speaker, text in found if text]
    speakers = {speaker for speaker, _ in spoken}
    if len(speakers) < (2 if need_reply else 1) or len(spoken) > MAX_TURNS:
        return Problem(file, number, "Nobody answers in this conversation.", "Nothing has to be done.")
    first = spoken[0][0]
    messages = (Message("user" if speaker == first else "assistant", text) for speaker, text in spoken)
    return Located(Conversation.from_messages(messages), number, file)
