"""One JSON value -> one conversation, in any of the shapes in which people keep them. Knows no lines, no files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chat_app.conversation import Conversation, Message, Role
from chat_app.reading.report import Rejected, quoted
from chat_app.reading.texts import answered, check_count, cleaned, split_context

LIST_KEYS = ("messages", "conversations", "conversation", "turns", "dialog", "dialogue")
CONTEXT_KEYS = ("context", "prompt", "instruction", "question", "input")
REPLY_KEYS = ("response", "reply", "completion", "output", "answer")
SYSTEM_KEYS = ("system", "persona")
ROLE_KEYS = ("role", "from")
TEXT_KEYS = ("content", "value")

ROLE_NAMES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}

SHAPES = (
    'Use a list of texts, or {"messages": [{"role": "user", "content": "..."}, '
    '{"role": "assistant", "content": "..."}]}.'
)
AS_TEXT = "Write it as text, in double quotes."


def parts(value: Any) -> Iterator[tuple[int | None, Any]]:
    """The records in a value: itself, without a number, or the items of a list of records, numbered from 1."""
    if isinstance(value, list) and value and _is_record(value[0]):
        yield from enumerate(value, start=1)
    else:
        yield None, value


def conversation(value: Any, *, need_reply: bool = True) -> Conversation:
    """The conversation that a JSON value holds. Without `need_reply` it may be a prompt that nobody has answered yet.

    Raises:
        Rejected: it holds none that can be used.
    """
    if isinstance(value, list):
        return _from_list(value, None, need_reply)
    if not isinstance(value, dict):
        raise Rejected(f"Here is {_named(value)} instead of a conversation.", SHAPES)
    key = _first_key(value, LIST_KEYS)
    system = _system(value)
    if key is None:
        return _from_pair(value, system, need_reply)
    if not isinstance(value[key], list):
        raise Rejected(f"{quoted(key)} is {_named(value[key])}, not a list of turns.", SHAPES)
    return _from_list(value[key], system, need_reply)


def _from_list(items: list[Any], system: str | None, need_reply: bool) -> Conversation:
    if not items:
        raise Rejected("The conversation has no turns.", "Write at least two, or delete the line.")
    check_count(len(items))
    if isinstance(items[0], dict):
        return _from_messages(items, system, need_reply)
    turns = [cleaned(_text(item, f"turn {number}"), f"turn {number}") for number, item in enumerate(items, start=1)]
    if need_reply and len(turns) < 2:
        raise Rejected("The conversation has 1 turn; it needs at least two turns.", "Add the reply.")
    return Conversation.from_turns(turns, system=system)


def _from_messages(items: list[Any], system: str | None, need_reply: bool) -> Conversation:
    messages = [] if system is None else [Message("system", system)]
    roles: set[Role] = set()
    for number, item in enumerate(items, start=1):
        message = _message(item, number)
        if message is not None:
            messages.append(message)
            roles.add(message.role)
    if need_reply and "assistant" not in roles:
        raise Rejected(
            "No message is the assistant's: there is nothing to learn in it.",
            'Add a reply with the role "assistant", or delete the line.',
        )
    if not roles - {"system"}:
        raise Rejected("The conversation has no turns.", 'Add a message with the role "user".')
    return Conversation.from_messages(messages)


def _message(item: Any, number: int) -> Message | None:
    """One message; None for an empty system text, which many data sets have and which says nothing."""
    what = f"message {number}"
    if not isinstance(item, dict):
        raise Rejected(f"Message {number} is {_named(item)}, but the first one has a role.", SHAPES)
    role = _role(item, number)
    key = "content" if "content" in item else _first_key(item, TEXT_KEYS)
    if key is None:
        raise Rejected(f"Message {number} has no text.", 'Write the text under "content".')
    text = item[key]
    if type(text) is not str:
        text = _joined_parts(text, what) if isinstance(text, list) else _text(text, what)
    if role == "system" and not text.strip():
        return None
    weight = item.get("weight")
    if weight is not None and weight not in (0, 1):
        raise Rejected(
            f"Message {number} has a weight that is neither 0 nor 1.",
            "Use 0 for a reply that is not to be learned, or 1.",
        )
    return Message(role, cleaned(text, what), weight is None or weight == 1)


def _role(item: dict[str, Any], number: int) -> Role:
    key = _first_key(item, ROLE_KEYS)
    if key is None:
        raise Rejected(f"Message {number} does not say whose it is.", 'Add "role": "user" or "role": "assistant".')
    name = item[key]
    if not isinstance(name, str):
        raise Rejected(f"The role of message {number} is {_named(name)}.", "Use system, user or assistant.")
    role = ROLE_NAMES.get(name) or ROLE_NAMES.get(name.strip().lower())
    if role is None:
        raise Rejected(f"Message {number} has the unknown role {quoted(name)}.", "Use system, user or assistant.")
    return role


def _joined_parts(content: list[Any], what: str) -> str:
    """A content that comes in parts; only parts of text can be learned from. Each part begins a line."""
    texts = []
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text":
            raise Rejected(
                f"{what.capitalize()} has a part that is not text.",
                'Leave only parts like {"type": "text", "text": "..."}.',
            )
        texts.append(_text(part.get("text"), what))
    return "\n".join(texts)


def _from_pair(record: dict[str, Any], system: str | None, need_reply: bool) -> Conversation:
    context_key, reply_key = _first_key(record, CONTEXT_KEYS), _first_key(record, REPLY_KEYS)
    if context_key is None and reply_key is None:
        names = ", ".join(quoted(name) for name in list(record)[:3]) or "nothing"
        raise Rejected(f"No field here is known to hold a conversation (found: {names}).", SHAPES)
    if context_key is None:
        raise Rejected("The context is missing.", 'Write it under "context".')
    turns = _context(record, context_key)
    if reply_key is None:
        if need_reply:
            raise Rejected("The reply is missing.", 'Write it under "reply".')
        check_count(len(turns))
        turns = [cleaned(turn, f"turn {number}") for number, turn in enumerate(turns, start=1)]
        return Conversation.from_turns(turns, system=system, last="user")
    return answered(turns, _text(record[reply_key], "the reply"), system)


def _context(record: dict[str, Any], key: str) -> list[str]:
    """The turns before the reply. The text that an instruction is about may stand in a field of its own, "input"."""
    context = record[key]
    if isinstance(context, list):
        turns = [_text(item, f"turn {number}") for number, item in enumerate(context, start=1)]
        if not turns:
            raise Rejected("The context is empty.", "Write something there, or delete the whole conversation.")
    else:
        turns = split_context(_text(context, "the context"))
    more = record.get("input")
    if key != "input" and more is not None:
        more = _text(more, "the input").strip()
        if more:
            turns[-1] = f"{turns[-1]}\n{more}"
    return turns


def _system(record: dict[str, Any]) -> str | None:
    """What stands beside the turns about the assistant: a text, or a list of sentences, a line each."""
    texts: list[str] = []
    for key in SYSTEM_KEYS:
        value = record.get(key)
        if value is None:
            continue
        sentences = value if isinstance(value, list) else [value]
        texts += [text for sentence in sentences if (text := _text(sentence, f"the {key} text").strip())]
    return cleaned("\n".join(texts), "the system text") if texts else None


def _text(value: Any, what: str) -> str:
    if isinstance(value, str):
        return value
    raise Rejected(f"{what[0].upper()}{what[1:]} is {_named(value)}, not text.", AS_TEXT)


def _first_key(record: dict[str, Any], keys: tuple[str, ...]) -> str | None:
    """The first of the keys that has a value. A key with null counts as left out."""
    for key in keys:
        if record.get(key) is not None:
            return key
    return None


def _is_record(item: Any) -> bool:
    """Whether an item of a list is a conversation by itself, and not one of the turns of a conversation."""
    if isinstance(item, dict):
        return not any(key in item for key in ROLE_KEYS)
    return isinstance(item, list)


def _named(value: Any) -> str:
    """What a JSON value is, in words."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a text"
    return "a list" if isinstance(value, list) else "an object in braces"
