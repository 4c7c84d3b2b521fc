"""Applies repairs to a stream of conversations, in a fixed order. The module of each detector has its rules."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from chat_app.conversation import Conversation
from chat_app.data.quality.conversation_checks import is_one_sided, remove_messages
from chat_app.data.quality.duplicates import DuplicateIndex, Fingerprints, fingerprint, fingerprint_opening
from chat_app.data.quality.issue_types import REPAIRS
from chat_app.data.quality.markup import may_hold_markup, remove_html, remove_special_tokens, repeat_until_stable
from chat_app.data.quality.pii import PRIVATE_KINDS, mask_private, may_hold_private
from chat_app.data.quality.text_checks import is_readable, repair_encoding
from chat_app.data.readers.types import Located, Part
from chat_app.errors import SettingError

LEAKS = {"leakage": fingerprint, "leaked_openings": fingerprint_opening}


def apply_repairs(items: Iterable[Located], repairs: Collection[str]) -> Iterator[Located]:
    """Apply repairs to a stream of conversations, in bounded memory.

    The repairs "leakage" and "leaked_openings" need all validation and test conversations before the first training
    conversation, so they iterate over `items` twice. If `items` is an iterator, it is kept in memory for that.

    Raises:
        SettingError: there is no repair of that name.
    """
    unknown = sorted(set(repairs) - set(REPAIRS))
    if unknown:
        raise SettingError(
            "repairs", f"There is no repair '{unknown[0]}'.", advice=f"Choose from {', '.join(REPAIRS)}."
        )
    wanted = frozenset(repairs)
    return _apply(items, wanted) if wanted else iter(items)


def _apply(items: Iterable[Located], repairs: frozenset[str]) -> Iterator[Located]:
    leaks = {name: key for name, key in LEAKS.items() if name in repairs}
    kept_aside = {name: Fingerprints() for name in leaks}
    if leaks:
        items = list(items) if iter(items) is items else items
        for located in _repair_each(items, repairs):
            if located.part != "train":
                for name, key in leaks.items():
                    kept_aside[name].add(key(located.conversation.messages))
    for located in _drop_duplicates(_repair_each(items, repairs), repairs):
        is_train = located.part == "train"
        if not is_train or not any(
            key(located.conversation.messages) in kept_aside[name] for name, key in leaks.items()
        ):
            yield located


def _repair_each(items: Iterable[Located], repairs: frozenset[str]) -> Iterator[Located]:
    """Apply the repairs that need only one conversation at a time."""
    for located in items:
        conversation = _repair_texts(located.conversation, repairs)
        if conversation and "empty_turns" in repairs:
            conversation = remove_messages(conversation, lambda text: not is_readable(text))
        if conversation and not ("one_sided" in repairs and is_one_sided(conversation.messages)):
            yield located if conversation is located.conversation else replace(located, conversation=conversation)


def _repair_texts(conversation: Conversation, repairs: frozenset[str]) -> Conversation | None:
    """Repair the texts of a conversation. A message whose text becomes empty is removed; None if none is left."""
    texts = [_repair_text(message.text, repairs) for message in conversation.messages]
    if all(text == message.text for text, message in zip(texts, conversation.messages, strict=True)):
        return conversation
    pairs = zip(texts, conversation.messages, strict=True)
    changed = Conversation(tuple(replace(message, text=text) for text, message in pairs))
    return changed if all(texts) else remove_messages(changed, lambda text: not text)


def _repair_text(text: str, repairs: frozenset[str]) -> str:
    # The order matters: repaired mojibake may contain a tag, an HTML entity may spell a special token, and the rest may
    # be private.
    if "mojibake" in repairs:
        text = repair_encoding(text)
    if may_hold_markup(text):
        if "html" in repairs:
            text = remove_html(text)
        if "special_tokens" in repairs:
            text = remove_special_tokens(text)
    kinds = repairs & set(PRIVATE_KINDS)
    if kinds and may_hold_private(text):
        text = repeat_until_stable(text, lambda one: mask_private(one, kinds))
    return text


def _drop_duplicates(items: Iterable[Located], repairs: frozenset[str]) -> Iterator[Located]:
    """Drop duplicates within each part. A conversation in two parts is no duplicate but a leak."""
    if not repairs & {"duplicates", "near_duplicates"}:
        yield from items
        return
    seen: dict[Part, DuplicateIndex] = {}
    for located in items:
        messages = located.conversation.messages
        is_equal, is_near = seen.setdefault(located.part, DuplicateIndex()).judge(messages, fingerprint(messages))
        if not (is_equal and "duplicates" in repairs) and not (is_near and "near_duplicates" in repairs):
            yield located
