"""A message of a chat in lines of text, while its lines are still being collected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from chat_app.data.readers.chat_exports.threading import ChatMessage
from chat_app.data.readers.types import Problem

# WhatsApp allows 65,536 characters. Without a limit a file with one author would be one message.
MAX_MESSAGE = 200_000


@dataclass(slots=True)
class MessageDraft:
    """A message whose end is not known yet; the attributes are those of `ChatMessage`."""

    time: float | None
    author: str
    line: int
    chat: str = ""
    by_bot: bool = False
    texts: list[str] = field(default_factory=list)
    size: int = 0

    def add(self, text: str) -> None:
        """Append a line."""
        self.size += len(text) + 1
        if self.size <= MAX_MESSAGE:
            self.texts.append(text)

    def finish(self, file: str, clean: Callable[[str], str]) -> ChatMessage | Problem | None:
        """The whole message; a problem if it is too long, None if nothing of it is left.

        Args:
            file: the name to show.
            clean: takes out of the text what the program wrote.
        """
        if self.size > MAX_MESSAGE:
            reason = f"This message has more than {MAX_MESSAGE:,} characters."
            return Problem(file, self.line, reason, "Check whether the lines after it belong to it.")
        text = clean("\n".join(self.texts))
        if not text:
            return None
        return ChatMessage(self.time, self.author, text, self.line, self.chat, self.by_bot)
