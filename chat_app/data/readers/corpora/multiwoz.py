"""MultiWOZ (data.json: logs by the name of their dialogue) and the turns of Schema-Guided Dialogue -> conversations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from chat_app.conversation import Conversation, Message
from chat_app.data.readers.json.document import parse_document
from chat_app.data.readers.json.items import looks_like_json
from chat_app.data.readers.protocol import InputFile, TextReader
from chat_app.data.readers.turn_text import check_count, clean_text
from chat_app.data.readers.types import Kind, Located, Preview, Problem, RejectedError

SIDES = {"user": "user", "system": "assistant"}


@dataclass(frozen=True)
class MultiWozReader(TextReader):
    """Reads dialogues in which a user and a system take turns."""

    kind = "multiwoz"
    dialogues: tuple[Any, ...]
    found: Kind

    @classmethod
    def sniff(cls, file: InputFile) -> MultiWozReader | None:
        """A reader if the file is JSON with logs by name, or a list of dialogues with turns and their frames."""
        head = file.beginning
        if not looks_like_json(file) or not ('"log"' in head or '"frames"' in head):
            return None
        value = parse_document(file)
        if isinstance(value, dict) and value and all(is_logged(one) for one in list(value.values())[:5]):
            return cls(file.source, file.options, tuple(value.values()), "multiwoz")
        if isinstance(value, list) and value and all(has_frames(one) for one in value[:5]):
            return cls(file.source, file.options, tuple(value), "schema_guided")
        return None

    def preview(self) -> Preview:
        """Which of the two it is."""
        return self._preview(self.found)

    def read(self, *, need_reply: bool = True) -> Iterator[Located | Problem]:
        """The dialogues; their line is their number."""
        for number, dialogue in enumerate(self.dialogues, start=1):
            try:
                messages = list(_list_messages(dialogue))
                check_count(len(messages))
                if need_reply and not any(message.role == "assistant" for message in messages):
                    raise RejectedError("The system says nothing in this dialogue.", "Delete it.")
                if not messages:
                    raise RejectedError("This dialogue has no turns.", "Delete it.")
                yield Located(Conversation.from_messages(messages), number, self.source.name)
            except RejectedError as rejected:
                yield Problem(self.source.name, number, rejected.reason, rejected.advice)


def is_logged(value: Any) -> bool:
    """Whether a value is a dialogue of MultiWOZ 2.0 or 2.1."""
    return isinstance(value, dict) and isinstance(value.get("log"), list) and "goal" in value


def has_frames(value: Any) -> bool:
    """Whether a value is a dialogue of Schema-Guided Dialogue, or of MultiWOZ 2.2, which has taken that layout over."""
    turns = value.get("turns") if isinstance(value, dict) else None
    return isinstance(turns, list) and "services" in value and all(
        isinstance(turn, dict) and "utterance" in turn and "speaker" in turn for turn in turns
    )  # fmt: skip


def _list_messages(dialogue: Any) -> Iterator[Message]:
    if is_logged(dialogue):
        for number, turn in enumerate(dialogue["log"]):
            text = turn.get("text") if isinstance(turn, dict) else None
            yield Message("assistant" if number % 2 else "user", _clean(text, number + 1))
        return
    if not has_frames(dialogue):
        raise RejectedError("This is no dialogue with turns.", "Delete it.")
    for number, turn in enumerate(dialogue["turns"], start=1):
        side = SIDES.get(str(turn["speaker"]).lower())
        if side is None:
            raise RejectedError(f"Turn {number} is neither the user's nor the system's.", "Write USER or SYSTEM.")
        yield Message("user" if side == "user" else "assistant", _clean(turn["utterance"], number))


def _clean(text: Any, number: int) -> str:
    if not isinstance(text, str):
        raise RejectedError(f"Turn {number} has no text.", "Write it, or delete the dialogue.")
    return clean_text(text, f"turn {number}")
