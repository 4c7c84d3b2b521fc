"""A conversation a line, its turns ended by <|endoftext|>: the text that DialoGPT is trained on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from chat_app.conversation import Conversation
from chat_app.data.readers.protocol import InputFile, TextReader
from chat_app.data.readers.text import transcript
from chat_app.data.readers.text_source import read_first_lines
from chat_app.data.readers.turn_text import check_count, clean_text, decode_line
from chat_app.data.readers.types import Located, Problem, RejectedError

END = "<|endoftext|>"


@dataclass(frozen=True)
class EosLinesReader(TextReader):
    """Reads turns between marks of the end of a text."""

    kind = "eos_lines"

    @classmethod
    def sniff(cls, file: InputFile) -> EosLinesReader | None:
        """A reader if most of the first lines have such a mark between two texts, and no marks of speakers."""
        if END not in file.beginning or file.beginning[:1] in "{[":
            return None
        lines = [line.decode("utf-8", "replace") for line in read_first_lines(file.source)]
        between = sum(len([turn for turn in line.split(END) if turn.strip()]) > 1 for line in lines)
        if 2 * between <= len(lines) or transcript.is_transcript(file.source):
            return None
        return cls(file.source, file.options)

    def read(self, *, need_reply: bool = True) -> Iterator[Located | Problem]:
        """Every line as a conversation or a problem."""
        for number, raw in self.source.read_lines():
            if raw is not None and not raw.strip():
                continue
            try:
                yield Located(_build_conversation(decode_line(raw), need_reply), number, self.source.name)
            except RejectedError as rejected:
                yield Problem(self.source.name, number, rejected.reason, rejected.advice)


def _build_conversation(line: str, need_reply: bool) -> Conversation:
    turns = line.split(END)
    if not turns[-1].strip():
        turns.pop()
    check_count(len(turns))
    texts = [clean_text(turn, f"turn {number}") for number, turn in enumerate(turns, start=1)]
    if len(texts) < (2 if need_reply else 1):
        raise RejectedError("The conversation has 1 turn; it needs at least two turns.", "Add the reply.")
    return Conversation.from_turns(texts)
