"""OpenAssistant's trees: a message a line with its parent, or a whole tree a line -> the best-ranked path of each.

At every message the answer of the lowest rank is followed; deleted messages and those that were found bad are none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from chat_app.conversation import Conversation, Message
from chat_app.data.readers.json.document import parse
from chat_app.data.readers.json.items import iterate_objects, looks_like_json
from chat_app.data.readers.protocol import InputFile, TextReader
from chat_app.data.readers.turn_text import MAX_TURNS, replace_unstorable
from chat_app.data.readers.types import Located, Problem
from chat_app.errors import DataError

MOST_MESSAGES = 3_000_000
UNRANKED = 1_000


@dataclass(slots=True)
class Node:
    """A message, and the numbers of those that answer it."""

    line: int
    role: str
    text: str
    rank: int
    parent: str | None
    answers: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class OasstReader(TextReader):
    """Reads OpenAssistant's messages or trees.

    Attributes:
        is_document: whether the file is one JSON value, and not a value a line.
    """

    kind = "oasst"
    is_document: bool

    @classmethod
    def sniff(cls, file: InputFile) -> OasstReader | None:
        """A reader if the first line is a message of a tree, or a tree."""
        head = file.beginning
        if not looks_like_json(file) or '"message_tree_id"' not in head or '"role"' not in head:
            return None
        if '"prompter"' not in head or file.layout == "text":
            return None
        return cls(file.source, file.options, file.layout == "json")

    def read(self, *, need_reply: bool = True) -> Iterator[Located | Problem]:
        """The best path of each tree, at the line of its first message."""
        nodes: dict[str, Node] = {}
        for found in self._iterate_values():
            if isinstance(found, Problem):
                yield found
                continue
            number, value = found
            if isinstance(value.get("prompt"), dict):
                _add_tree(value["prompt"], number, nodes)
            else:
                _add_message(value, number, nodes)
            if len(nodes) > MOST_MESSAGES:
                raise DataError(f"More than {MOST_MESSAGES:,} messages.", where=self.source.name, advice="Split it.")
        for key, node in nodes.items():
            if node.parent in nodes:
                nodes[node.parent or ""].answers.append(key)
        unanswered = 0
        for node in nodes.values():
            if node.parent is None:
                path = _follow(node, nodes)
                if len(path) > 1 or not need_reply:
                    yield Located(_build(path), node.line, self.source.name)
                else:
                    unanswered += 1
        if unanswered:
            trees = "1 tree has" if unanswered == 1 else f"{unanswered:,} trees have"
            yield Problem(self.source.name, None, f"{trees} no answer.", "Nothing has to be done.")

    def _iterate_values(self) -> Iterator[tuple[int, dict[str, Any]] | Problem]:
        """The messages or trees, each with its line, or with its number in a file that is one JSON value."""
        if not self.is_document:
            yield from iterate_objects(self.source, "Get the file again.")
            return
        value = parse(self.source)
        for number, item in enumerate(value if isinstance(value, list) else [value], start=1):
            if isinstance(item, dict):
                yield number, item


def _add_tree(root: dict[str, Any], line: int, nodes: dict[str, Node]) -> None:
    """All messages of a tree, whose answers stand inside each other."""
    waiting: list[tuple[dict[str, Any], str | None]] = [(root, None)]
    while waiting:
        message, parent = waiting.pop()
        key = _add_message({**message, "parent_id": parent}, line, nodes)
        replies = message.get("replies")
        if key and isinstance(replies, list):
            waiting += [(reply, key) for reply in reversed(replies) if isinstance(reply, dict)]


def _add_message(value: dict[str, Any], line: int, nodes: dict[str, Node]) -> str:
    """A message that can be used; its id, or nothing."""
    key, text, parent, rank = value.get("message_id"), value.get("text"), value.get("parent_id"), value.get("rank")
    if not isinstance(key, str) or not isinstance(text, str) or not text.strip() or key in nodes:
        return ""
    if value.get("deleted") is True or value.get("review_result") is False:
        return ""
    position = int(rank) if isinstance(rank, int | float) and not isinstance(rank, bool) and rank == rank else UNRANKED
    above = parent if isinstance(parent, str) and parent else None
    nodes[key] = Node(line, str(value.get("role")), replace_unstorable(text).strip(), position, above)
    return key


def _follow(node: Node, nodes: dict[str, Node]) -> list[Node]:
    """From a message always to its best answer. It ends with an answer of the assistant."""
    path = [node]
    seen = {id(node)}
    while path[-1].answers and len(path) < MAX_TURNS:
        answers = [nodes[key] for key in path[-1].answers if nodes[key].role != path[-1].role]
        # Of what people ask next, none is ranked: a question that was answered comes first.
        best = min(answers, key=lambda one: (one.rank, not one.answers), default=None)
        if best is None or id(best) in seen:
            break
        seen.add(id(best))
        path.append(best)
    while len(path) > 1 and path[-1].role == "prompter":
        path.pop()
    return path


def _build(path: list[Node]) -> Conversation:
    return Conversation.from_messages(
        Message("user" if node.role == "prompter" else "assistant", node.text) for node in path
    )
