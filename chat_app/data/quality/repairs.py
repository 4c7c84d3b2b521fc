"""Applies repairs to conversations as they stream by. Knows the order of repairs; each one's rules stand beside."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from chat_app.conversation import Conversation
from chat_app.data.quality.conversation_checks import is_one_sided, without
from chat_app.data.quality.duplicates import Fingerprints, Seen, fingerprint, opening
from chat_app.data.quality.issue_types import REPAIRS
from chat_app.data.quality.markup import may_hold_markup, until_stable, without_html, without_special_tokens
from chat_app.data.quality.pii import PRIVATE_KINDS, masked, may_hold_private
from chat_app.data.quality.text_checks import is_readable, mended
from chat_app.data.readers.types import Located, Part
from chat_app.errors import SettingError

LEAKS = {"leakage": fingerprint, "leaked_openings": opening}


def repaired(items: Iterable[Located], repairs: Collection[str]) -> Iterator[Located]:
    """The conversations with these repairs, in their order, in bounded memory.

    The repairs "leakage" and "leaked_openings" have to know what is kept aside before they let the first conversation
    pass. They go through `items` twice, so give something that can be gone through again; what an iterator yields is
    kept in memory.

    Raises:
        SettingError: a repair that does not exist.
    """
    unknown = sorted(set(repairs) - set(REPAIRS))
    if unknown:
        raise SettingError(
            "repairs", f"There is no repair '{unknown[0]}'.", advice=f"Choose from {', '.join(REPAIRS)}."
        )
    wanted = frozenset(repairs)
    return _repaired(items, wanted) if wanted else iter(items)


def _repaired(items: Iterable[Located], repairs: frozenset[str]) -> Iterator[Located]:
    leaks = {name: key for name, key in LEAKS.items() if name in repairs}
    kept_aside = {name: Fingerprints() for name in leaks}
    if leaks:
        items = list(items) if iter(items) is items else items
        for located in _each_repaired(items, repairs):
            if located.part != "train":
                for name, key in leaks.items():
                    kept_aside[name].add(key(located.conversation.messages))
    for located in _without_copies(_each_repaired(items, repairs), repairs):
        is_learned = located.part == "train"
        if not is_learned or not any(
            key(located.conversation.messages) in kept_aside[name] for name, key in leaks.items()
        ):
            yield located


def _each_repaired(items: Iterable[Located], repairs: frozenset[str]) -> Iterator[Located]:
    """Repairs that need to see one conversation only."""
    for located in items:
        conversation = _with_mended_texts(located.conversation, repairs)
        if conversation and "empty_turns" in repairs:
            conversation = without(conversation, lambda text: not is_readable(text))
        if conversation and not ("one_sided" in repairs and is_one_sided(conversation.messages)):
            yield located if conversation is located.conversation else replace(located, conversation=conversation)


def _with_mended_texts(conversation: Conversation, repairs: frozenset[str]) -> Conversation | None:
    """The conversation with better texts; a message of which nothing is left is left out as one with nothing to
    read."""
    texts = [_mended_text(message.text, repairs) for message in conversation.messages]
    if all(text == message.text for text, message in zip(texts, conversation.messages, strict=True)):
        return conversation
    pairs = zip(texts, conversation.messages, strict=True)
    mended_one = Conversation(tuple(replace(message, text=text) for text, message in pairs))
    return mended_one if all(texts) else without(mended_one, lambda text: not text)


def _mended_text(text: str, repairs: frozenset[str]) -> str:
    # In this order: a mended text may show a tag, an entity may spell a mark, and what is left may be private.
    if "mojibake" in repairs:
        text = mended(text)
    if may_hold_markup(text):
        if "html" in repairs:
            text = without_html(text)
        if "special_tokens" in repairs:
            text = without_special_tokens(text)
    kinds = repairs & set(PRIVATE_KINDS)
    if kinds and may_hold_private(text):
        text = until_stable(text, lambda one: masked(one, kinds))
    return text


def _without_copies(items: Iterable[Located], repairs: frozenset[str]) -> Iterator[Located]:
    """Each part by itself: what stands in two of them is no copy but a leak."""
    if not repairs & {"duplicates", "near_duplicates"}:
        yield from items
        return
    seen: dict[Part, Seen] = {}
    for located in items:
        messages = located.conversation.messages
        is_equal, is_near = seen.setdefault(located.part, Seen()).judge(messages, fingerprint(messages))
        if not (is_equal and "duplicates" in repairs) and not (is_near and "near_duplicates" in repairs):
            yield located
