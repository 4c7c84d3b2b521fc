"""Which conversations an evaluation uses: a sample of them, or what the person in them says first."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from chat_app.conversation import Conversation


def sample_evenly(conversations: Iterable[Conversation], total: int, most: int) -> list[Conversation]:
    """At most `most` of `total` conversations, evenly from beginning to end."""
    if total <= most:
        return list(islice(conversations, most))
    wanted = {number * total // most for number in range(most)}
    return [one for number, one in enumerate(conversations) if number in wanted]


def extract_prompts(conversations: Iterable[Conversation], most: int) -> list[Conversation]:
    """The first different openings: each conversation up to the first thing the user says."""
    prompts: dict[str, Conversation] = {}
    for conversation in conversations:
        first = conversation.turns[0]
        if first.role == "user" and first.text not in prompts:
            prompts[first.text] = conversation.slice_turns(0, 1)
        if len(prompts) == most:
            break
    return list(prompts.values())
