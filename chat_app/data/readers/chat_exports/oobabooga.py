"""A chat that text-generation-webui (oobabooga) keeps as JSON -> one conversation: pairs of what both sides said."""

from __future__ import annotations

from typing import Any

from chat_app.data.readers.chat_exports.assistant_chat import AssistantChatReader, Said
from chat_app.data.readers.json.items import looks_like_json, open_items
from chat_app.data.readers.protocol import InputFile
from chat_app.data.readers.types import RejectedError

# What the model was given; beside it stands the same as it was shown on the page.
KEYS = (("internal", "visible"), ("data", "data_visible"))
OPENING = "<|BEGIN-VISIBLE-CHAT|>"


class OobaboogaReader(AssistantChatReader):
    """Reads a chat of text-generation-webui."""

    kind = "oobabooga"

    @classmethod
    def sniff(cls, file: InputFile) -> OobaboogaReader | None:
        """A reader if the file is JSON with the pairs twice, as the model and as the person saw them."""
        if not looks_like_json(file) or not any(f'"{key}"' in file.beginning for key, _ in KEYS):
            return None
        items = open_items(file)
        if items is None or find_pairs(next(items(), (0, None))[1]) is None:
            return None
        return cls(file.name, file.source.encoding, items)

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
