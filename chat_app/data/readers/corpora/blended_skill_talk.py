"""BlendedSkillTalk: two previous utterances, then the alternating messages of the free and the guided worker.

The guided worker, who was shown suggestions of trained models, is the assistant, as in the publishers' own task. So the
system text is the guided worker's persona: the second of two, or the only one, as in the rows on the Hub.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from chat_app.conversation import Conversation, Message, Role
from chat_app.data.readers.detokenize import tidy_text
from chat_app.data.readers.json.messages import describe_value, require_text
from chat_app.data.readers.options import ReadingOptions
from chat_app.data.readers.turn_text import check_count, clean_text
from chat_app.data.readers.types import RejectedError

Said = list[tuple[Role, str]]


def is_record(record: Mapping[str, Any]) -> bool:
    """Whether a record belongs to this corpus: a row on the Hub, or an item of the original file."""
    of_hub = "free_messages" in record and "guided_messages" in record
    return of_hub or ("free_turker_utterance" in record and "dialog" in record)


def convert_record(record: Mapping[str, Any], options: ReadingOptions, need_reply: bool = True) -> Conversation:
    """Convert a record to a conversation.

    Raises:
        RejectedError: the record cannot be used.
    """
    said = _parse_hub_row(record) if "free_messages" in record else _parse_original(record)
    check_count(len(said))
    persona = _join_persona(record.get("personas"))
    messages = [Message("system", persona)] if persona else []
    for number, (role, text) in enumerate(said, start=1):
        text = tidy_text(clean_text(text, f"turn {number}"), options.tidy, tokenised=False)
        messages.append(Message(role, text))
    roles = {role for role, _ in said}
    if not roles or (need_reply and "assistant" not in roles):
        raise RejectedError("Nobody answers in this conversation.", "Add a reply, or delete it.")
    return Conversation.from_messages(messages)


def _parse_hub_row(record: Mapping[str, Any]) -> Said:
    free = _read_texts(record, "free_messages")
    guided = _read_texts(record, "guided_messages")
    said = _assign_roles(_read_texts(record, "previous_utterance"))
    for one, other in zip_longest(free, guided, fillvalue=""):
        said += [("user", one)] if one else []
        said += [("assistant", other)] if other else []
    return said


def _parse_original(record: Mapping[str, Any]) -> Said:
    """The turns of an item of train.json: "dialog" has pairs of a speaker (0 free, 1 guided worker) and a text."""
    earlier = [record.get("free_turker_utterance"), record.get("guided_turker_utterance")]
    said = _assign_roles([require_text(text, "the earlier utterance") for text in earlier if text])
    dialog = record.get("dialog")
    if not isinstance(dialog, list):
        raise RejectedError(f'"dialog" is {describe_value(dialog)}, not a list of turns.', "Get the file again.")
    for number, item in enumerate(dialog, start=1):
        if not isinstance(item, list) or len(item) != 2 or item[0] not in (0, 1):
            raise RejectedError(f"Turn {number} is not a pair of a speaker, 0 or 1, and a text.", "Get the file again.")
        text = require_text(item[1], f"turn {number}")
        if text.strip():
            said.append(("assistant" if item[0] else "user", text))
    return said


def _assign_roles(texts: list[str]) -> Said:
    """Alternating roles for the previous utterances, of which the last is the guided worker's."""
    roles: tuple[Role, Role] = ("assistant", "user")
    last = len(texts) - 1
    return [(roles[(last - number) % 2], text) for number, text in enumerate(texts)]


def _read_texts(record: Mapping[str, Any], key: str) -> list[str]:
    items = record.get(key)
    if items is None:
        return []
    if not isinstance(items, list):
        raise RejectedError(f'"{key}" is {describe_value(items)}, not a list of texts.', "Get the file again.")
    texts = [require_text(item, f'item {number} of "{key}"') for number, item in enumerate(items, start=1)]
    return [text for text in texts if text.strip()]


def _join_persona(personas: Any) -> str | None:
    if personas is None:
        return None
    if not isinstance(personas, list):
        personas = [personas]
    if personas and all(isinstance(persona, list) for persona in personas):
        personas = personas[-1]
    lines = [line for sentence in personas if (line := require_text(sentence, "the persona").strip())]
    return clean_text("\n".join(lines), "the persona") if lines else None
