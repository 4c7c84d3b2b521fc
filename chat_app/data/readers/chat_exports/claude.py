"""Claude's export (conversations.json) -> its chats: the text of the person and of the assistant.

Thoughts, tools and their results are passed over. Where messages say which one they answer, the branch that ends last
is taken.
"""

from __future__ import annotations

from typing import Any

from chat_app.conversation import Role
from chat_app.data.readers.chat_exports.assistant_chat import AssistantChatReader, Said, follow_parents
from chat_app.data.readers.types import RejectedError

SENDERS: dict[str, Role] = {"human": "user", "user": "user", "assistant": "assistant"}
UNSHOWN = "This block is not supported on your current device yet."


class ClaudeReader(AssistantChatReader):
    """Reads Claude's export."""

    kind = "claude"
    marks = ('"chat_messages"',)

    @staticmethod
    def is_chat(value: Any) -> bool:
        """Whether a value is one chat."""
        return isinstance(value, dict) and isinstance(value.get("chat_messages"), list)

    def list_messages(self, item: Any) -> list[Said]:
        """The messages in their order, or those of the last branch."""
        if not self.is_chat(item):
            raise RejectedError("It is no chat of Claude.", "Export the chats again.")
        messages = [one for one in item["chat_messages"] if isinstance(one, dict)]
        nodes = {one["uuid"]: one for one in messages if isinstance(one.get("uuid"), str)}
        linked = [one for one in messages if one.get("parent_message_uuid") in nodes]
        if linked and len(nodes) == len(messages):
            messages = follow_parents(nodes, messages[-1]["uuid"], "parent_message_uuid")
        return [said for one in messages if (said := _read_message(one))]


def _read_message(message: dict[str, Any]) -> Said | None:
    role = SENDERS.get(str(message.get("sender")))
    if role is None:
        return None
    parts = message.get("content")
    texts = [
        part["text"]
        for part in (parts if isinstance(parts, list) else [])
        if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
    ]
    whole = message.get("text")
    text = "\n".join(texts) if any(map(str.strip, texts)) else whole if isinstance(whole, str) else ""
    text = "\n".join(line for line in text.split("\n") if line.strip(" `") != UNSHOWN)
    return Said(role, text, bool(message.get("files") or message.get("attachments")))
