"""Parses lists of messages with roles, under the field names and role names that chat data sets use."""

from __future__ import annotations

from typing import Any

from chat_app.conversation import Conversation, Message, Role
from chat_app.data.readers.turn_text import clean_text
from chat_app.data.readers.types import RejectedError, quote_text

ROLE_KEYS = ("role", "from", "speaker", "author", "sender")
TEXT_KEYS = ("content", "value", "text", "utterance", "message")
# Objects with one of these are messages of a conversation; "speaker" may also be a column of a table.
SURE_ROLE_KEYS = ("role", "from")

ROLE_NAMES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "customer": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
    "chatbot": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "claude": "assistant",
    "ai": "assistant",
    "agent": "assistant",
}
TOOL_ROLES = frozenset(
    ("tool", "function", "function_call", "function_response", "observation", "tool_call", "ipython")
)
TOOL_CALLS = ("tool_calls", "function_call")

SHAPES = (
    'Use a list of texts, or {"messages": [{"role": "user", "content": "..."}, '
    '{"role": "assistant", "content": "..."}]}.'
)
AS_TEXT = "Write it as text, in double quotes."
NO_TOOLS = "Tools cannot be learned here: delete these messages, or the whole conversation."


def parse_messages(items: list[Any], system: str | None, need_reply: bool) -> Conversation:
    """Parse a conversation from a list of objects with a role and a text.

    Args:
        items: the messages as JSON values.
        system: a system text from another field.
        need_reply: whether a message of the assistant is required.

    Raises:
        RejectedError: a message cannot be used, or the assistant has none.
    """
    messages = [] if system is None else [Message("system", system)]
    names = _map_speakers(items)
    roles: set[Role] = set()
    for number, item in enumerate(items, start=1):
        message = _parse_message(item, number, names)
        if message is not None:
            messages.append(message)
            roles.add(message.role)
    return build_conversation(messages, roles, need_reply)


def build_conversation(messages: list[Message], roles: set[Role], need_reply: bool) -> Conversation:
    """Build a conversation from messages.

    Args:
        messages: in any order of roles.
        roles: the roles that occur.
        need_reply: whether a message of the assistant is required.

    Raises:
        RejectedError: the assistant has no message, or there are only system texts.
    """
    if need_reply and "assistant" not in roles:
        raise RejectedError(
            "No message is the assistant's: there is nothing to learn in it.",
            'Add a reply with the role "assistant", or delete the line.',
        )
    if not roles - {"system"}:
        raise RejectedError("The conversation has no turns.", 'Add a message with the role "user".')
    return Conversation.from_messages(messages)


def find_role(name: str) -> Role | None:
    """The role of a name in a data set, in any case (human, GPT, chatbot); None if it is unknown."""
    return ROLE_NAMES.get(name) or ROLE_NAMES.get(name.strip().lower())


def first_key(record: dict[str, Any], keys: tuple[str, ...]) -> str | None:
    """The first of the keys whose value is present and not null; else None."""
    for key in keys:
        if record.get(key) is not None:
            return key
    return None


def require_text(value: Any, what: str) -> str:
    """The value, if it is text.

    Args:
        value: a JSON value.
        what: the name of the value in an error, such as "turn 2".

    Raises:
        RejectedError: it is not text.
    """
    if isinstance(value, str):
        return value
    raise RejectedError(f"{what[0].upper()}{what[1:]} is {describe_value(value)}, not text.", AS_TEXT)


def describe_value(value: Any) -> str:
    """The type of a JSON value in words, such as "a number"."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a text"
    return "a list" if isinstance(value, list) else "an object in braces"


def _parse_message(item: Any, number: int, names: dict[str, Role]) -> Message | None:
    """Parse a message; None for an empty system text, which many data sets have."""
    if not isinstance(item, dict):
        raise RejectedError(f"Message {number} is {describe_value(item)}, but the first one has a role.", SHAPES)
    role = _find_role(item, number, names)
    what = f"message {number}"
    key = "content" if "content" in item else first_key(item, TEXT_KEYS)
    if key is None:
        raise RejectedError(f"Message {number} has no text.", 'Write the text under "content".')
    text = item[key]
    if type(text) is not str:
        if text is None and first_key(item, TOOL_CALLS) is not None:
            raise RejectedError(f"Message {number} calls a tool instead of saying something.", NO_TOOLS)
        text = _join_parts(text, what) if isinstance(text, list) else require_text(text, what)
    if role == "system" and not text.strip():
        return None
    if len(item) == 2:  # A role and a text, so nothing says whether the text is learned.
        return Message(role, clean_text(text, what), True)
    weight = _read_loss_weight(item) if role == "assistant" and "loss_weight" in item else item.get("weight")
    learned = item.get("train") is not False and item.get("loss") is not False  # written by axolotl and ms-swift
    if weight is not None and weight not in (0, 1):
        raise RejectedError(
            f"Message {number} has a weight that is neither 0 nor 1.",
            "Use 0 for a reply that is not to be learned, or 1.",
        )
    return Message(role, clean_text(text, what), learned and (weight is None or weight == 1))


def _read_loss_weight(item: dict[str, Any]) -> Any:
    """LLaMA-Factory's weight of a message as 0 or 1: what counts a little is learned."""
    weight = item["loss_weight"]
    is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
    return int(weight > 0) if is_number else weight


def _find_role(item: dict[str, Any], number: int, names: dict[str, Role]) -> Role:
    key = "role" if item.get("role") is not None else first_key(item, ROLE_KEYS)
    if key is None:
        raise RejectedError(f"Message {number} does not say whose it is.", 'Add "role": "user" or "role": "assistant".')
    name = item[key]
    if not isinstance(name, str):
        raise RejectedError(
            f"The role of message {number} is {describe_value(name)}.", "Use system, user or assistant."
        )
    role = names.get(name) or find_role(name)
    if role is not None:
        return role
    if name.strip().lower() in TOOL_ROLES:
        raise RejectedError(f"Message {number} has the unknown role {quote_text(name)}.", NO_TOOLS)
    raise RejectedError(f"Message {number} has the unknown role {quote_text(name)}.", "Use system, user or assistant.")


def _map_speakers(items: list[Any]) -> dict[str, Role]:
    """Assign roles to two speakers by name: the first is the user and the second the assistant.

    Where a user talks with a "SYSTEM", as in task-oriented data, that is the assistant. Empty if the messages have
    roles.
    """
    first = items[0]
    if "role" in first or "from" in first:
        return {}
    names: dict[str, None] = {}
    for item in items:
        if isinstance(item, dict) and (key := first_key(item, ROLE_KEYS)) is not None:
            names.setdefault(str(item[key]), None)
            if len(names) > 2:
                return {}
    known = {name: find_role(name) for name in names}
    if set(known.values()) == {"user", "system"}:
        return {name: "assistant" for name, role in known.items() if role == "system"}
    if None not in known.values() or len(known) != 2 or any(name.lower() in TOOL_ROLES for name in names):
        return {}
    first_name, second_name = known
    if known[first_name] == "assistant" or known[second_name] == "user":
        return {first_name: "assistant", second_name: "user"}
    return {first_name: "user", second_name: "assistant"}


def _join_parts(content: list[Any], what: str) -> str:
    """Join a content that is a list of text parts with line feeds; other parts are rejected."""
    texts = []
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text":
            raise RejectedError(
                f"{what.capitalize()} has a part that is not text.",
                'Leave only parts like {"type": "text", "text": "..."}.',
            )
        # LLaMA-Factory's version 1 writes {"type": "text", "value": "..."}.
        texts.append(require_text(part["value"] if "value" in part and "text" not in part else part.get("text"), what))
    return "\n".join(texts)
