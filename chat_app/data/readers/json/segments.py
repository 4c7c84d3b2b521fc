"""axolotl's input_output: a text in pieces, each of which says whether it is learned. Knows one conversation.

What is learned is the assistant's, what is not is the user's; where the pieces hold the marks of a chat template
("<|im_start|>user"), these say who speaks.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

from chat_app.conversation import Conversation, Message, Role
from chat_app.data.readers.json.messages import build_conversation, describe_value, require_text
from chat_app.data.readers.text import role_markers
from chat_app.data.readers.types import RejectedError

SHAPE = 'Use {"segments": [{"label": false, "text": "..."}, {"label": true, "text": "..."}]}.'


def is_segments(items: Any) -> bool:
    """Whether a list is one of pieces with labels."""
    return isinstance(items, list) and bool(items) and all(
        isinstance(item, dict) and isinstance(item.get("label"), bool) and "text" in item for item in items
    )  # fmt: skip


def parse_segments(items: list[Any], system: str | None, need_reply: bool) -> Conversation:
    """The conversation of the pieces.

    Raises:
        RejectedError: a piece has no text, or nothing is learned.
    """
    pieces: list[tuple[bool, str]] = []
    for number, item in enumerate(items, start=1):
        if not isinstance(item, dict) or not isinstance(item.get("label"), bool):
            raise RejectedError(f"Segment {number} is {describe_value(item)} without a label.", SHAPE)
        pieces.append((item["label"], require_text(item.get("text"), f"segment {number}")))
    whole = "".join(text for _, text in pieces)
    if marked := role_markers.parse_conversation(whole, system, need_reply):
        return marked
    messages = [] if system is None else [Message("system", system)]
    for learned, group in groupby(pieces, key=lambda piece: piece[0]):
        said = role_markers.strip_delimiters("".join(text for _, text in group))
        role: Role = "assistant" if learned else "user"
        if said:
            messages.append(Message(role, said))
    return build_conversation(messages, {message.role for message in messages}, need_reply)
