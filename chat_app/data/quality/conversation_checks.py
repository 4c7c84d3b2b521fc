"""Checks of a conversation's structure: whether it is one-sided, and whether it survives the removal of messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from chat_app.conversation import Conversation, Message

SAME_TURNS = 3


def is_one_sided(messages: Sequence[Message]) -> bool:
    """Whether only one side speaks, or the user says the same at least three times and nothing else."""
    turns = len(messages) - (messages[0].role == "system")
    if turns < 2:
        return True
    if turns < 2 * SAME_TURNS - 1:
        return False
    said = [message.text.casefold().strip() for message in messages if message.role == "user"]
    return len(said) >= SAME_TURNS and len(set(said)) == 1


def remove_messages(conversation: Conversation, is_unwanted: Callable[[str], bool]) -> Conversation | None:
    """The conversation without the messages whose text is unwanted.

    None if the roles would no longer alternate from the same first one, or one side would have no turn left.
    """
    kept = [message for message in conversation.messages if not is_unwanted(message.text)]
    if len(kept) == len(conversation.messages):
        return conversation
    roles = [message.role for message in kept if message.role != "system"]
    takes_turns = all(one != other for one, other in pairwise(roles))
    same_sides = set(roles) == {turn.role for turn in conversation.turns}
    if not roles or not takes_turns or not same_sides or roles[0] != conversation.turns[0].role:
        return None
    return Conversation(tuple(kept))
