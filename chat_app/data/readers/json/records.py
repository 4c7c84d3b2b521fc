"""Parses a JSON value as a conversation, in any of the schemas that chat data sets commonly use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chat_app.conversation import Conversation, Message, Role
from chat_app.data.readers.json.messages import (
    ROLE_KEYS,
    SHAPES,
    SURE_ROLE_KEYS,
    build_conversation,  # fmt: skip
    describe_value,
    first_key,
    parse_messages,
    require_text,
)
from chat_app.data.readers.json.segments import is_segments, parse_segments
from chat_app.data.readers.notes import MarkedBadError
from chat_app.data.readers.text import role_markers
from chat_app.data.readers.turn_text import build_answered, build_unanswered, check_count, clean_text, split_context
from chat_app.data.readers.types import RejectedError, quote_text

LIST_KEYS = (
    "messages", "chosen_messages", "conversations", "conversation", "turns", "dialog", "dialogue", "items",
    "utterances", "data", "chat",
)  # fmt: skip
CONTEXT_KEYS = (
    "context", "prompt", "instruction", "question", "input", "questions", "query", "user", "human", "source",
)  # fmt: skip
# All of them that a record has are what is said to the bot, in this order.
PROMPT_KEYS = ("prompt", "instruction", "context", "input", "query", "question", "user", "human")
# A long text that stands inside another field too, as in a prompt made from the others, is said only once.
LONG_ENOUGH = 20
REPLY_KEYS = (
    "response", "reply", "completion", "output", "answer", "answers", "chosen", "assistant", "bot", "gpt", "target",
)  # fmt: skip
SYSTEM_KEYS = ("system", "system_prompt", "persona", "personas", "personality")
# Fields with a text of several turns with role markers ("### Human: ... ### Assistant: ...").
MARKED_KEYS = ("text", "chosen", "content", "sample")
# Fields with the answers in data sets of reading comprehension.
ANSWER_KEYS = ("text", "input_text")

# What KTO and others call the mark of a good or a bad answer.
BAD_KEYS = ("label", "kto_tag")

SHOWN_FIELDS = 10


def iterate_records(value: Any) -> Iterator[tuple[int | None, Any]]:
    """The records in a value: the items of a list of records, numbered from 1, or the value itself, numbered None."""
    if isinstance(value, list) and value and is_record(value[0]):
        yield from enumerate(value, start=1)
    else:
        yield None, value


def is_record(item: Any) -> bool:
    """Whether an item of a list is a conversation, not a turn of one."""
    if isinstance(item, dict):
        return not any(key in item for key in SURE_ROLE_KEYS)
    return isinstance(item, list)


def is_known(record: dict[str, Any], *, need_reply: bool = True) -> bool:
    """Whether a record has the fields of a known chat schema; if not, it may be a row of a table."""
    if any(isinstance(record.get(key), list) for key in LIST_KEYS) or is_segments(record.get("segments")):
        return True
    if any(
        isinstance(record.get(key), str) and role_markers.has_markers(record[key]) for key in (*LIST_KEYS, *MARKED_KEYS)
    ):
        return True
    context, reply = first_key(record, CONTEXT_KEYS), first_key(record, REPLY_KEYS)
    if context is not None and reply is not None:
        return True
    texts = sum(isinstance(value, str) for value in record.values())
    if context is None and reply is None:
        return False
    return not need_reply or texts <= 1


def parse_conversation(value: Any, *, need_reply: bool = True) -> Conversation:
    """Parse a JSON value as a conversation.

    Args:
        value: a list of turns or messages, or an object in a known chat schema.
        need_reply: False also accepts a prompt without a reply.

    Raises:
        RejectedError: the value has no conversation that can be used.
    """
    if isinstance(value, list):
        return _parse_list(value, None, need_reply)
    if not isinstance(value, dict):
        raise RejectedError(f"Here is {describe_value(value)} instead of a conversation.", SHAPES)
    if len(value) > 1 and (mark := find_bad_mark(value)):
        raise MarkedBadError(mark)
    key = first_key(value, LIST_KEYS)
    system = _read_system(value)
    if key is None and is_segments(value.get("segments")):
        return parse_segments(value["segments"], system, need_reply)
    if key is None:
        return _parse_fields(value, system, need_reply)
    if isinstance(value[key], list):
        listed = [*value[key], *_read_chosen(value)] if "chosen" in value else value[key]
        return _parse_list(listed, system, need_reply)
    if isinstance(value[key], str) and (found := role_markers.parse_conversation(value[key], system, need_reply)):
        return found
    raise RejectedError(f"{quote_text(key)} is {describe_value(value[key])}, not a list of turns.", SHAPES)


def find_bad_mark(record: dict[str, Any]) -> str:
    """The field by which a publisher marks a whole record as a bad example; empty if none does."""
    for key in BAD_KEYS:
        if record.get(key) is False:
            return f"{key}: false"
    weight = record.get("weight")
    if weight is None:
        return ""
    return "weight: 0" if isinstance(weight, int | float) and not isinstance(weight, bool) and weight == 0 else ""


def _read_chosen(record: dict[str, Any]) -> list[Any]:
    """The reply that was chosen of two, as messages, where it stands beside the turns before it."""
    chosen = record.get("chosen")
    if isinstance(chosen, dict):
        return [chosen]
    if isinstance(chosen, str) and chosen.strip():
        return [{"role": "assistant", "content": chosen}]
    return chosen if isinstance(chosen, list) and _has_messages(chosen) else []


def _parse_list(items: list[Any], system: str | None, need_reply: bool) -> Conversation:
    if not items:
        raise RejectedError("The conversation has no turns.", "Write at least two, or delete the line.")
    check_count(len(items))
    first = items[0]
    if isinstance(first, dict):
        if first_key(first, ROLE_KEYS) is None and _is_pair(first):
            return _parse_pairs(items, system, need_reply)
        return parse_messages(items, system, need_reply)
    turns = [
        clean_text(require_text(item, f"turn {number}"), f"turn {number}") for number, item in enumerate(items, start=1)
    ]
    if need_reply and len(turns) < 2:
        raise RejectedError("The conversation has 1 turn; it needs at least two turns.", "Add the reply.")
    return Conversation.from_turns(turns, system=system)


def _is_pair(item: dict[str, Any]) -> bool:
    return first_key(item, CONTEXT_KEYS) is not None and first_key(item, REPLY_KEYS) is not None


def _parse_pairs(items: list[Any], system: str | None, need_reply: bool) -> Conversation:
    """Parse pairs of turns: [{"human": "...", "assistant": "..."}, ...], of which the first may have a system text."""
    messages = [] if system is None else [Message("system", system)]
    roles: set[Role] = set()
    for number, item in enumerate(items, start=1):
        what = f"item {number} of the conversation"
        if not isinstance(item, dict):
            raise RejectedError(
                f"{what.capitalize()} is {describe_value(item)}, not a question with its answer.", SHAPES
            )
        own = _read_system(item)
        pair: list[tuple[Role, str | None]] = [("system", own)] if own is not None else []
        context, reply = first_key(item, CONTEXT_KEYS), first_key(item, REPLY_KEYS)
        if context is None and reply is None:
            raise RejectedError(f"{what.capitalize()} has neither a question nor an answer.", SHAPES)
        pair += [("user", require_text(item[context], what))] if context else []
        pair += [("assistant", require_text(item[reply], what))] if reply else []
        messages += [Message(role, clean_text(text, what)) for role, text in pair if text and text.strip()]
        roles.update(message.role for message in messages[-2:])
    return build_conversation(messages, roles, need_reply)


def _parse_fields(record: dict[str, Any], system: str | None, need_reply: bool) -> Conversation:
    context_key, reply_key = first_key(record, CONTEXT_KEYS), first_key(record, REPLY_KEYS)
    if reply_key == "chosen":
        return _parse_preference(record, context_key, system, need_reply)
    if (context_key is None or reply_key is None) and (found := _parse_marked(record, system, need_reply)):
        return found
    if context_key is None and reply_key is None:
        raise RejectedError(f"No field here is known to hold a conversation (found: {_list_fields(record)}).", SHAPES)
    if context_key is None:
        raise RejectedError(
            "The context is missing.", f'Write it under "context". The fields here: {_list_fields(record)}.'
        )
    if isinstance(record[context_key], list) and reply_key is not None:
        if _has_messages(record[context_key]):
            return _parse_list(_append_reply(record[context_key], record[reply_key]), system, need_reply)
        if context_key == "questions":
            return build_answered(*_interleave_answers(record["questions"], record[reply_key]), system)
    if reply_key is not None and (found := _parse_open_prompt(record[context_key], record[reply_key], system)):
        return found
    turns = _read_history(record) + _read_context(record, context_key)
    if reply_key is None:
        if need_reply:
            raise RejectedError(
                "The reply is missing.", f'Write it under "reply". The fields here: {_list_fields(record)}.'
            )
        return build_unanswered(turns, system)
    reply = record[reply_key]
    return build_answered(
        turns, _choose_answer(reply) if reply_key == "answers" else require_text(reply, "the reply"), system
    )


def _parse_marked(record: dict[str, Any], system: str | None, need_reply: bool) -> Conversation | None:
    for key in (*MARKED_KEYS, "prompt"):
        if isinstance(record.get(key), str) and (
            found := role_markers.parse_conversation(record[key], system, need_reply)
        ):
            return found
    return None


def _parse_open_prompt(prompt: Any, reply: Any, system: str | None) -> Conversation | None:
    """Parse a prompt with role markers that is open at its end ("Human: Hello\\n\\nAssistant:"), and its reply."""
    if not isinstance(prompt, str) or not isinstance(reply, str) or role_markers.detect_style(prompt) is None:
        return None
    return role_markers.parse_conversation(f"{prompt}{reply}", system, need_reply=True)


def _parse_preference(
    record: dict[str, Any], context_key: str | None, system: str | None, need_reply: bool
) -> Conversation:
    """Parse preference data. The field "chosen" is a reply or a whole conversation; "rejected" is not used."""
    chosen = record["chosen"]
    context = record[context_key] if context_key else None
    if isinstance(chosen, dict):
        chosen = [chosen]
    if isinstance(chosen, list):
        whole = _has_messages(chosen) and any(map(_is_of_user, chosen[:2]))
        before = context if isinstance(context, list) and not whole else []
        if isinstance(context, str) and not whole:
            before = [{"role": "user", "content": context}]
        return _parse_list([*before, *chosen], system, need_reply)
    text = require_text(chosen, "the chosen reply")
    if found := role_markers.parse_conversation(text, system, need_reply):
        return found
    if context_key is None:
        raise RejectedError("The context is missing.", 'Write it under "prompt".')
    if isinstance(context, list) and _has_messages(context):
        return _parse_list([*context, {"role": "assistant", "content": text}], system, need_reply)
    if found := _parse_open_prompt(context, text, system):
        return found
    return build_answered(_read_history(record) + _read_context(record, context_key), text, system)


def _has_messages(items: list[Any]) -> bool:
    return bool(items) and isinstance(items[0], dict) and first_key(items[0], SURE_ROLE_KEYS) is not None


def _is_of_user(item: Any) -> bool:
    return isinstance(item, dict) and item.get("role", item.get("from")) == "user"


def _append_reply(prompt: list[Any], reply: Any) -> list[Any]:
    """The messages of a prompt with its completion, which is a list of messages or a text."""
    return [*prompt, *reply] if isinstance(reply, list) else [*prompt, {"role": "assistant", "content": reply}]


def _interleave_answers(questions: list[Any], answers: Any) -> tuple[list[str], str]:
    """Interleave questions with their answers: (all turns but the last, the last answer)."""
    if isinstance(answers, dict) and (key := first_key(answers, ANSWER_KEYS)):
        answers = answers[key]
    if not isinstance(answers, list):
        raise RejectedError(
            f"There are several questions, but the answers are {describe_value(answers)}.", "Write a list of texts."
        )
    if not questions or len(questions) != len(answers):
        raise RejectedError(
            f"There are {len(questions):,} questions and {len(answers):,} answers.", "Give each question one answer."
        )
    turns = []
    for number, pair in enumerate(zip(questions, answers, strict=True), start=1):
        turns += [require_text(pair[0], f"question {number}"), require_text(pair[1], f"answer {number}")]
    return turns[:-1], turns[-1]


def _choose_answer(answers: Any) -> str:
    """The answer to a question; the first if there are several."""
    if isinstance(answers, dict) and (key := first_key(answers, ANSWER_KEYS)):
        answers = answers[key]
    if isinstance(answers, list):
        if not answers:
            raise RejectedError(
                "The list of answers is empty.", "Write the answer there, or delete the whole conversation."
            )
        answers = answers[0]
        if isinstance(answers, dict) and (key := first_key(answers, ANSWER_KEYS)):
            answers = answers[key]
    return require_text(answers, "the answer")


def _read_context(record: dict[str, Any], key: str) -> list[str]:
    """The turns before the reply: all fields with something said to the bot, whichever are there, as one turn.

    A list among them is turns that were said before. Where there are none of them, the field `key` is read.
    """
    turns: list[str] = []
    pieces: list[str] = []
    for name in [one for one in PROMPT_KEYS if record.get(one) is not None] or [key]:
        value = record[name]
        if isinstance(value, list):
            turns += [require_text(item, f"turn {number}") for number, item in enumerate(value, start=1)]
            continue
        text = require_text(value, "the context" if name == key else f"the {name}")
        if text.strip():
            pieces.append(text)
    pieces = _drop_repeated(pieces)
    if not pieces and not turns:
        raise RejectedError("The context is empty.", "Write something there, or delete the whole conversation.")
    if not pieces:
        return turns
    first, *rest = pieces
    said = split_context(first)
    if rest:
        said[-1] = "\n".join([said[-1], *(piece.strip() for piece in rest)]).lstrip("\n")
    return [*(turn for turn in turns if turn.strip()), *said]


def _drop_repeated(pieces: list[str]) -> list[str]:
    """The pieces without those that stand whole inside another one."""
    bare = [piece.strip() for piece in pieces]
    kept = []
    for place, piece in enumerate(pieces):
        inside = any(
            bare[place] == other if len(bare[place]) < LONG_ENOUGH else bare[place] in other
            for at, other in enumerate(bare)
            if at < place or (at > place and other != bare[place])
        )
        if not inside:
            kept.append(piece)
    return kept


def _read_history(record: dict[str, Any]) -> list[str]:
    """The turns before an instruction, from a list of turns or of pairs of a question and its answer."""
    history = record.get("history")
    if history is None:
        return []
    if not isinstance(history, list):
        raise RejectedError(
            f"The history is {describe_value(history)}, not a list of turns.", 'Write [["question", "answer"], ...].'
        )
    turns: list[str] = []
    for number, item in enumerate(history, start=1):
        said = item if isinstance(item, list) else [item]
        if isinstance(item, list) and len(item) != 2:
            raise RejectedError(
                f"Item {number} of the history has {len(item)} texts.", "Write a question and its answer in each."
            )
        turns += [require_text(text, f"item {number} of the history") for text in said]
    return turns


def _read_system(record: dict[str, Any]) -> str | None:
    """The system text: the texts in SYSTEM_KEYS, each of which may be a list of sentences, joined by line feeds."""
    texts: list[str] = []
    for key in SYSTEM_KEYS:
        value = record.get(key)
        if value is None:
            continue
        sentences = value if isinstance(value, list) else [value]
        if key == "personas" and sentences and all(isinstance(sentence, list) for sentence in sentences):
            sentences = sentences[-1]  # of two speakers, the second one replies
        texts += [text for sentence in sentences if (text := require_text(sentence, f"the {key} text").strip())]
    return clean_text("\n".join(texts), "the system text") if texts else None


def _list_fields(record: dict[str, Any]) -> str:
    """The names of the fields, for a sentence."""
    names = [quote_text(name) for name in list(record)[:SHOWN_FIELDS]]
    more = len(record) - len(names)
    return (", ".join(names) + (f" and {more} more" if more else "")) or "nothing"
