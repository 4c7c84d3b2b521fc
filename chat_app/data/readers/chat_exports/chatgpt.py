"""ChatGPT's export (conversations.json) -> its chats. Each is a tree: what was asked or answered anew is a branch.

Taken is the branch that the person saw last; of it, what the person and the assistant wrote to each other. Tools, code
that was run, hidden messages and thoughts are passed over.
"""

from __future__ import annotations

import re
from typing import Any

from chat_app.conversation import Role
from chat_app.data.readers.chat_exports.assistant_chat import AssistantChatReader, Said, follow_parents
from chat_app.data.readers.types import RejectedError

SHOWN_TYPES = ("text", "multimodal_text")
ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system"}
# Where the page shows a link to a source: 【12†source】, or what stands between two private characters.
SOURCES = re.compile("\\s?【[^【】\n]{1,200}】|\ue200[^\ue200\ue201]{0,2000}\ue201|[\ue000-\uf8ff]")


class ChatGPTReader(AssistantChatReader):
    """Reads ChatGPT's export."""

    kind = "chatgpt"
    marks = ('"mapping"',)

    @staticmethod
    def is_chat(value: Any) -> bool:
        """Whether a value is one chat: an object with messages by their ids."""
        mapping = value.get("mapping") if isinstance(value, dict) else None
        return isinstance(mapping, dict) and any(
            isinstance(node, dict) and "message" in node and ("parent" in node or "children" in node)
            for node in mapping.values()
        )

    def list_messages(self, item: Any) -> list[Said]:
        """The messages from the first to the one that is shown last."""
        if not self.is_chat(item):
            raise RejectedError("It is no chat of ChatGPT.", "Export the chats again.")
        nodes = {key: node for key, node in item["mapping"].items() if isinstance(node, dict)}
        last = item.get("current_node")
        path = follow_parents(nodes, last if isinstance(last, str) and last in nodes else _find_leaf(nodes), "parent")
        return [said for node in path if (said := _read_message(node.get("message")))]


def _find_leaf(nodes: dict[str, Any]) -> str:
    """The end of the newest branch: from a root always the last child."""
    at = next((key for key, node in nodes.items() if node.get("parent") not in nodes), next(iter(nodes)))
    seen: set[str] = set()
    while at not in seen:
        seen.add(at)
        children = nodes[at].get("children")
        known = [one for one in children if isinstance(one, str) and one in nodes] if isinstance(children, list) else []
        at = known[-1] if known else at
    return at


def _read_message(message: Any) -> Said | None:
    if not isinstance(message, dict):
        return None
    author, content, metadata = message.get("author"), message.get("content"), message.get("metadata")
    role = ROLES.get(str(author.get("role"))) if isinstance(author, dict) else None
    if role is None or not isinstance(content, dict) or content.get("content_type", "text") not in SHOWN_TYPES:
        return None
    hidden = isinstance(metadata, dict) and metadata.get("is_visually_hidden_from_conversation") is True
    if hidden or message.get("recipient", "all") not in ("all", None):
        return None
    raw = content.get("parts")
    parts = raw if isinstance(raw, list) else []
    text = "\n".join(part for part in parts if isinstance(part, str))
    shows = any(isinstance(part, dict) for part in parts) or (
        isinstance(metadata, dict) and bool(metadata.get("attachments"))
    )
    return Said(role, SOURCES.sub("", text), shows, message.get("weight") != 0)
