"""A chat that text-generation-webui (oobabooga) keeps as JSON -> one conversation: pairs of what both sides said."""

from __future__ import annotations

from typing import Any

from chat_app.data.readers.chat_exports.assistant_chat import AssistantChatReader, Said
from chat_app.data.readers.types import RejectedError

# What the model was given; beside it stands the same as it was shown on the page.
KEYS = (("internal", "visible"), ("data", "data_visible"))
OPENING = "<|BEGIN-VISIBLE-CHAT|>"


class OobaboogaReader(AssistantChatReader):
    """Reads a chat of text-generation-webui."""

    kind = "oobabooga"
    marks = tuple(f'"{key}"' for key, _ in KEYS)

    @staticmethod
    def is_chat(value: Any) -> bool:
        """Whether a value has the pairs twice, as the model and as the person saw them."""
        return find_pairs(value) is not None

    def list_messages(self, item: Any) -> list[Said]:
        """What both sides said; the assistant may open."""
        said: list[Said] = []
        for pair in find_pairs(item) or []:
            if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
                raise RejectedError("A pair of this chat is not two texts.", "Save the chat again.")
            if pair[0].strip() and pair[0] != OPENING:
                said.append(Said("user", pair[0]))
            said.append(Said("assistant", pair[1]))
        return said


def find_pairs(value: Any) -> list[Any] | None:
    """The pairs as the model was given them; None if a value is no such chat."""
    for key, shown in KEYS:
        if isinstance(value, dict) and isinstance(value.get(key), list) and isinstance(value.get(shown), list):
            return list(value[key])
    return None
