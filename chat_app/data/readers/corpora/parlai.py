"""ParlAI's text: fields between tabs (text:... labels:... episode_done:True), or numbered lines as ConvAI2 has them.

The label is the reply to learn; of several the first. Lines about a persona are the system text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from chat_app.conversation import Conversation, Message
from chat_app.data.readers.protocol import InputFile, TextReader
from chat_app.data.readers.split_names import part_from_filename
from chat_app.data.readers.text_source import read_first_lines
from chat_app.data.readers.turn_text import MAX_TURNS, clean_text, decode_line
from chat_app.data.readers.types import Located, Problem, RejectedError

FIELDS = re.compile(r"(?:^|\t)(text|labels|eval_labels|episode_done|label_candidates|id|reward|\w{1,40}):")
NUMBERED = re.compile(r"(\d{1,5}) (.*)")
PERSONA = re.compile(r"your persona: ?(.*)")
PARTNER = re.compile(r"partner's persona: ?.*")
SILENCE = "__SILENCE__"
TABS_SHARE = 0.5


@dataclass
class _Episode:
    """The turns of one conversation while its lines go by."""

    line: int
    persona: list[str] = field(default_factory=list)
    context: list[str] = field(default_factory=list)
    turns: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ParlAIReader(TextReader):
    """Reads ParlAI's text."""

    kind = "parlai"
    numbered: bool

    @classmethod
    def sniff(cls, file: InputFile) -> ParlAIReader | None:
        """A reader if the first lines have ParlAI's fields, or count from 1 and have a tab before the reply."""
        head = file.beginning
        if file.options.columns or not (head.startswith("1 ") or head.startswith(("text:", "id:", "episode_done:"))):
            return None
        lines = [line.decode("utf-8", "replace") for line in read_first_lines(file.source)]
        if all("\t" in line and "text:" in line for line in lines) and any("labels:" in line for line in lines):
            return cls(file.source, file.options, False)
        numbers = [int(match[1]) for line in lines if (match := NUMBERED.match(line))]
        counts = len(numbers) == len(lines) and all(
            number == 1 or number == before + 1 for before, number in zip([0, *numbers], numbers, strict=False)
        )
        spoken = [line for line in lines if not PERSONA.match(line.partition(" ")[2]) and "persona: " not in line]
        tabs = sum("\t" in line for line in spoken)
        return cls(file.source, file.options, True) if counts and tabs and tabs >= TABS_SHARE * len(spoken) else None

    def read(self, *, need_reply: bool = True) -> Iterator[Located | Problem]:
        """The episodes, each at its first line."""
        episode: _Episode | None = None
        for number, raw in self.source.read_lines():
            if raw is not None and not raw.strip():
                continue
            try:
                line = decode_line(raw)
                if episode is not None and self.numbered and line.startswith("1 "):
                    yield from self._finish(episode, need_reply)
                    episode = None
                episode = episode or _Episode(number)
                done = _add_numbered(episode, line) if self.numbered else _add_fields(episode, line)
                if done or len(episode.turns) >= MAX_TURNS:
                    yield from self._finish(episode, need_reply)
                    episode = None
            except RejectedError as rejected:
                yield Problem(self.source.name, number, rejected.reason, rejected.advice)
        if episode is not None:
            yield from self._finish(episode, need_reply)

    def _finish(self, episode: _Episode, need_reply: bool) -> Iterator[Located | Problem]:
        try:
            turns = [clean_text(turn, f"turn {number}") for number, turn in enumerate(episode.turns, start=1)]
            if len(turns) < (2 if need_reply else 1):
                raise RejectedError("This conversation has no reply.", "Write it under labels, or after a tab.")
            head = [Message("system", "\n".join(episode.persona))] if episode.persona else []
            first_is_bot = turns[0] == SILENCE
            spoken = turns[1:] if first_is_bot else turns
            roles = ("assistant", "user") if first_is_bot else ("user", "assistant")
            body = [Message(roles[index % 2], text) for index, text in enumerate(spoken)]  # type: ignore[arg-type]
            part = part_from_filename(self.source.name)
            yield Located(Conversation((*head, *body)), episode.line, self.source.name, part)
        except RejectedError as rejected:
            yield Problem(self.source.name, episode.line, rejected.reason, rejected.advice)


def _add_text(episode: _Episode, text: str) -> str:
    """The turn in a text, with the context that came before it; the lines about the persona go into the episode."""
    said = []
    for line in text.replace("\\n", "\n").split("\n"):
        if match := PERSONA.fullmatch(line):
            episode.persona += [match[1].strip()] if match[1].strip() else []
        elif not PARTNER.fullmatch(line):
            said.append(line)
    before, episode.context = episode.context, []
    return "\n".join((*before, *said)).strip()


def _add_fields(episode: _Episode, line: str) -> bool:
    """A line of fields; whether the conversation ends with it."""
    found: dict[str, str] = {}
    for piece in line.split("\t"):
        name, colon, value = piece.partition(":")
        if colon:
            found.setdefault(name, value)
    if "text" not in found:
        raise RejectedError('This line has no field "text".', "Write text:, a tab, and labels:.")
    said = _add_text(episode, found["text"])
    label = (found.get("labels") or found.get("eval_labels") or "").replace("\\n", "\n").split("|")[0].strip()
    if said and label:
        episode.turns += [said, label]
    elif said:
        episode.context.append(said)
    return found.get("episode_done", "").strip() == "True"


def _add_numbered(episode: _Episode, line: str) -> bool:
    match = NUMBERED.match(line)
    if match is None:
        raise RejectedError("This line does not begin with a number.", "Write the turn's number and a space before it.")
    cells = match[2].split("\t")
    said = _add_text(episode, cells[0])
    if len(cells) > 1 and cells[1].strip():
        episode.turns += [said or SILENCE, cells[1].replace("\\n", "\n").split("|")[0].strip()]
    elif said:
        episode.context.append(said)
    return False
