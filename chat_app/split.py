"""Which conversations are kept aside for validation: whole ones, the same every time, and never one that is also
learned."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from chat_app.conversation import Conversation

FEWEST = 5


def split_conversations(
    conversations: Sequence[Conversation], valid_share: float, seed: int
) -> tuple[list[Conversation], list[Conversation]]:
    """(training, validation), each in the given order.

    What a conversation says and the seed decide where it goes, so its place in the file does not matter, and copies
    of one conversation go the same way. With fewer than five different conversations all are learned.
    """
    marks = [_mark(conversation, seed) for conversation in conversations]
    different = sorted(set(marks))
    count = round(len(different) * valid_share)
    if valid_share <= 0 or len(different) < FEWEST:
        return list(conversations), []
    kept_aside = set(different[: max(count, 1)])
    train = [one for one, mark in zip(conversations, marks, strict=True) if mark not in kept_aside]
    valid = [one for one, mark in zip(conversations, marks, strict=True) if mark in kept_aside]
    return train, valid


def _mark(conversation: Conversation, seed: int) -> str:
    said = json.dumps([seed, *[[message.role, message.text] for message in conversation.messages]])
    return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()
