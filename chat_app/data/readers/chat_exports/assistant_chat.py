"""Chats with an assistant that were exported: who is who is known. A base for the readers of such exports.

A reply to a picture or a file that is not in the export is no example: it is kept, and not learned.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from chat_app.conversation import Message, Role
from chat_app.data.readers.json.items import Items, looks_like_json, open_items
from chat_app.data.readers.json.messages import build_conversation
from chat_app.data.readers.protocol import InputFile
from chat_app.data.readers.turn_text import check_count, replace_unstorable
from chat_app.data.readers.types import Kind, Located, Preview, Problem, RejectedError

MOST_NODES = 100_000
AnyAssistantChatReader = TypeVar("AnyAssistantChatReader", bound="AssistantChatReader")


@dataclass(frozen=True, slots=True)
class Said:
    """One message. `shows` means that it holds a picture or a file, which is not in the export."""

    role: Role
    text: str
    shows: bool = False
    learned: bool = True


@dataclass(frozen=True)
class AssistantChatReader:
    """Reads an export of chats with an assistant; a subclass says what a chat is, and which messages it holds.

    Attributes:
        marks: of which the beginning of such a file has at least one.
        name: what the person calls the file.
        encoding: of its text.
        items: begins a pass over the chats.
    """

    kind: ClassVar[Kind]
    marks: ClassVar[tuple[str, ...]]
    name: str
    encoding: str
    items: Items

    @classmethod
    def sniff(cls: type[AnyAssistantChatReader], file: InputFile) -> AnyAssistantChatReader | None:
        """A reader if the file is JSON whose first item is a chat."""
        if not looks_like_json(file) or not any(mark in file.beginning for mark in cls.marks):
            return None
        items = open_items(file)
        if items is None or not cls.is_chat(next(items(), (0, None))[1]):
            return None
        return cls(file.name, file.source.encoding, items)

    @staticmethod
    def is_chat(value: Any) -> bool:
        """Whether a value is one chat."""
        raise NotImplementedError

    def preview(self) -> Preview:
        """The kind. Nothing has to be asked: the assistant is known."""
        return Preview(self.name, self.kind, self.encoding)

    def read(self, *, need_reply: bool = True) -> Iterator[Located | Problem]:
        """The chats as conversations; those that are empty or only pictures are counted."""
        empty = unseen = 0
        for number, item in self.items():
            try:
                said = self.list_messages(item)
                check_count(len(said))
            except RejectedError as rejected:
                yield Problem(self.name, number, rejected.reason, rejected.advice)
                continue
            messages, hidden = _hide_answers(said)
            unseen += hidden
            roles = {message.role for message in messages}
            if "user" not in roles or (need_reply and "assistant" not in roles):
                empty += 1
                continue
            yield Located(build_conversation(messages, roles, need_reply), number, self.name)
        yield from _report(self.name, empty, unseen)

    def list_messages(self, item: Any) -> list[Said]:
        """The messages of a chat in their order.

        Raises:
            RejectedError: it is no chat.
        """
        raise NotImplementedError


def follow_parents(nodes: dict[str, Any], last: str, parent: str) -> list[Any]:
    """The nodes of a tree from its root to `last`, by the ids that stand under `parent`. A circle ends at once."""
    path: list[Any] = []
    seen: set[str] = set()
    at: Any = last
    while isinstance(at, str) and at in nodes and at not in seen and len(path) < MOST_NODES:
        seen.add(at)
        path.append(nodes[at])
        at = nodes[at].get(parent)
    return path[::-1]


def _hide_answers(said: list[Said]) -> tuple[list[Message], int]:
    """The messages, with what answers only a picture not learned; and how many those are."""
    messages: list[Message] = []
    hidden, answers_picture = 0, False
    for one in said:
        text = replace_unstorable(one.text).strip()
        if one.role == "user":
            answers_picture = one.shows and not text
        if not text:
            continue
        learned = one.learned and not (one.role == "assistant" and answers_picture)
        hidden += one.role == "assistant" and answers_picture
        messages.append(Message(one.role, text, learned))
    return messages, hidden


def _report(file: str, empty: int, unseen: int) -> Iterator[Problem]:
    if empty:
        chats = "1 chat has" if empty == 1 else f"{empty:,} chats have"
        yield Problem(file, None, f"{chats} no reply in words.", "Nothing has to be done.")
    if unseen:
        replies = "1 reply answers" if unseen == 1 else f"{unseen:,} replies answer"
        yield Problem(
            file, None, f"{replies} a picture or a file, which cannot be read here.", "They stay, but are not learned."
        )
