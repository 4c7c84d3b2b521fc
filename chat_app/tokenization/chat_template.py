"""The format `template`: segments from a tokenizer's own chat template.

The template is run on placeholders and its output is split at them, so that what people say never passes through the
template's text, nor becomes a special token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from chat_app.conversation import Conversation
from chat_app.errors import FormatError
from chat_app.tokenization.chat_formats import SYSTEM_TURN, Segment

# Characters of the private-use area: no template writes them, and texts are not looked at.
_PLACEHOLDER = "\ue000{}\ue001"
_FIND_PLACEHOLDER = re.compile("\ue000(\\d+)\ue001")
_MOST_CHARACTERS = 100_000


def template_segments(
    tokenizer: Any, conversation: Conversation, learned: Sequence[bool], is_open: bool, specials: Mapping[str, int]
) -> list[Segment]:
    """Segments of the conversation as the tokenizer's chat template lays it out.

    Raises:
        FormatError: there is no template, or it fails, or it leaves out what people said.
    """
    first = len(conversation.head)
    messages = [
        {"role": message.role, "content": _PLACEHOLDER.format(index)}
        for index, message in enumerate(conversation.messages)
    ]
    pieces = _FIND_PLACEHOLDER.split(_rendered(tokenizer, messages, is_open))
    segments: list[Segment] = []
    turn, learns = SYSTEM_TURN, False
    for position, piece in enumerate(pieces):
        if position % 2:
            turn = int(piece) - first
            learns = turn >= 0 and learned[turn]
            segments.append(Segment("text", conversation.messages[int(piece)].text, max(turn, SYSTEM_TURN), learns))
            continue
        end, rest = _after_end(piece, specials) if learns else ("", piece)
        if end:
            segments.append(Segment("literal", end, turn, True))
        if rest:
            segments.append(Segment("literal", rest, turn if position < len(pieces) - 1 else SYSTEM_TURN))
    missing = len(messages) - len(pieces) // 2
    if missing:
        raise FormatError(
            f"The model's chat template leaves out {missing} of {len(messages)} messages.",
            advice="Choose another format for this model, or remove the system text.",
        )
    return segments


def _rendered(tokenizer: Any, messages: list[dict[str, str]], is_open: bool) -> str:
    if not getattr(tokenizer, "chat_template", None):
        raise FormatError("This tokenizer has no chat template.", advice="Choose another format, such as 'roles'.")
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=is_open)
    except Exception as error:  # A template is somebody's program: it may raise anything.
        raise FormatError(
            f"The model's chat template refuses this conversation ({error}).",
            advice="Remove the system text, or choose another format.",
        ) from error
    if len(text) > _MOST_CHARACTERS + 100 * len(messages):
        raise FormatError("The model's chat template writes far too much.", advice="Choose another format.")
    return str(text)


def _after_end(piece: str, specials: Mapping[str, int]) -> tuple[str, str]:
    """Split what follows a reply behind its first special token: the end mark, which is learned, and the rest."""
    found = [(piece.find(spelling), spelling) for spelling in specials if spelling in piece]
    if not found:
        return "", piece
    start, spelling = min(found, key=lambda hit: (hit[0], -len(hit[1])))
    end = start + len(spelling)
    return piece[:end], piece[end:]
