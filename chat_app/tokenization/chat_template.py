"""The format `template`: segments from a tokenizer's own chat template.

The template is rendered with placeholders in place of the messages, and its output is split at them. So a message's
text is never mixed with the template's text and never becomes a special token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from chat_app.conversation import Conversation
from chat_app.errors import FormatError
from chat_app.tokenization.chat_formats import SYSTEM_TURN, Segment
from chat_app.tokenization.chat_tokenizer import ChatTokenizer
from chat_app.tokenization.template_renderer import render_template

# Characters of the private-use area, which no template writes. Messages may hold them, since they are not rendered.
_PLACEHOLDER = "\ue000{}\ue001"
_FIND_PLACEHOLDER = re.compile("\ue000(\\d+)\ue001")


def template_segments(
    tokenizer: ChatTokenizer,
    conversation: Conversation,
    loss_mask: Sequence[bool],
    is_open: bool,
    specials: Mapping[str, int],
) -> list[Segment]:
    """The segments of a conversation in the layout of the tokenizer's chat template.

    Args:
        tokenizer: a tokenizer of transformers.
        conversation: the conversation.
        loss_mask: whether each turn counts in the loss.
        is_open: whether the prompt ends where the assistant's reply begins.
        specials: spelling -> id of the tokenizer's special tokens.

    Raises:
        FormatError: there is no template, it fails, or it leaves out a message.
    """
    first = len(conversation.head)
    messages = [
        {"role": message.role, "content": _PLACEHOLDER.format(index)}
        for index, message in enumerate(conversation.messages)
    ]
    pieces = _FIND_PLACEHOLDER.split(render_template(tokenizer, messages, is_open))
    segments: list[Segment] = []
    turn, in_loss = SYSTEM_TURN, False
    for position, piece in enumerate(pieces):
        if position % 2:
            turn = int(piece) - first
            in_loss = turn >= 0 and loss_mask[turn]
            segments.append(Segment("text", conversation.messages[int(piece)].text, max(turn, SYSTEM_TURN), in_loss))
            continue
        end, rest = _split_after_end(piece, specials) if in_loss else ("", piece)
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


def _split_after_end(piece: str, specials: Mapping[str, int]) -> tuple[str, str]:
    """Split the text after a reply behind its first special token: (the end of the reply, in the loss; the rest)."""
    found = [(piece.find(spelling), spelling) for spelling in specials if spelling in piece]
    if not found:
        return "", piece
    start, spelling = min(found, key=lambda hit: (hit[0], -len(hit[1])))
    end = start + len(spelling)
    return piece[:end], piece[end:]
