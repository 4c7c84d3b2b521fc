"""ChatterBot's corpora in YAML: lists of what is said, one after the other, below "conversations"."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from chat_app.conversation import Conversation
from chat_app.data.readers.protocol import InputFile, TextReader
from chat_app.data.readers.turn_text import check_count, replace_unstorable
from chat_app.data.readers.types import Located, Problem, RejectedError
from chat_app.data.readers.yaml_values import YamlList, YamlText, parse_yaml

BEGINNING = re.compile(r"(?m)^conversations:[ \t]*(?:#.*)?\r?\n(?:[ \t]*(?:#.*)?\r?\n){0,50}[ \t]*- ?(?:-|\[|\r?\n)")


@dataclass(frozen=True)
class ChatterBotReader(TextReader):
    """Reads a corpus of ChatterBot."""

    kind = "chatterbot"
    conversations: Any

    @classmethod
    def sniff(cls, file: InputFile) -> ChatterBotReader | None:
        """A reader if the file is YAML with a list of lists below "conversations"."""
        if file.beginning.lstrip()[:1] in "{[" or not BEGINNING.search(file.beginning):
            return None
        value = parse_yaml(file.source)
        found = value.get("conversations") if isinstance(value, dict) else None
        return cls(file.source, file.options, found) if isinstance(found, list) else None

    def read(self, *, need_reply: bool = True) -> Iterator[Located | Problem]:
        """The conversations, each at its line."""
        for number, turns in enumerate(self.conversations, start=1):
            line = getattr(turns, "line", number)
            said = list(_flatten(turns))
            texts = [text for one in said if (text := replace_unstorable(one).strip())]
            try:
                if len(texts) < (2 if need_reply else 1):
                    raise RejectedError("This conversation has less than two turns.", "Add the reply, or delete it.")
                check_count(len(texts))
                yield Located(Conversation.from_turns(texts), line, self.source.name)
            except RejectedError as rejected:
                yield Problem(self.source.name, line, rejected.reason, rejected.advice)


def _flatten(turns: Any) -> Iterator[str]:
    """The texts; a list inside stands for what is said at that place."""
    if isinstance(turns, YamlText):
        yield turns
    elif isinstance(turns, YamlList):
        for turn in turns:
            if isinstance(turn, YamlText):
                yield turn
            elif isinstance(turn, YamlList) and turn and isinstance(turn[0], YamlText):
                yield turn[0]
            elif isinstance(turn, dict):
                # "- Fine: thanks" is read as a key with a value; it was meant as a text.
                yield from (f"{key}: {value}" for key, value in turn.items() if isinstance(value, YamlText))
