"""What was read from a file, written down so that a test can say what it expects."""

from __future__ import annotations

from collections.abc import Iterable

from chat_app.data.readers.types import Located, Problem

Items = Iterable[Located | Problem]


def spoken(items: Items) -> list[list[str]]:
    """The texts of each conversation."""
    return [item.conversation.texts for item in items if isinstance(item, Located)]


def shown(items: Items) -> list[str]:
    """A conversation as "line: u hi / a hello", a problem as "line! reason"."""
    return [
        f"{item.line}! {item.reason}"
        if isinstance(item, Problem)
        else f"{item.line}: " + " / ".join(f"{one.role[0]} {one.text}" for one in item.conversation.messages)
        for item in items
    ]
