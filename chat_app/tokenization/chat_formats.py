"""Chat formats: the layout of a conversation in a prompt, and the special tokens that end a reply.

A format turns a conversation into segments. A segment carries its turn and whether it counts in the loss, so that
`encoder` builds ids, token types and labels together, in one place. Knows no token ids and no tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from chat_app.conversation import Conversation
from chat_app.errors import FormatError

Kind = Literal["text", "special", "literal"]
SYSTEM_TURN = -1


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of tokens.

    Attributes:
        kind: "text" is a message's text, which never becomes a special token; "special" is one special token of the
            format; "literal" is text of a chat template, which may spell special tokens.
        value: the text, or the special token's name in the format.
        turn: the index of the turn, from 0; -1 for the system text and the tokens around the conversation.
        in_loss: whether these tokens count in the training loss.
        type: the token type id, or the name of the special token whose id it is; None in a format without types.
    """

    kind: Kind
    value: str
    turn: int
    in_loss: bool = False
    type: int | str | None = None


Render = Callable[[Conversation, Sequence[bool], bool], Iterator[Segment]]


@dataclass(frozen=True)
class ChatFormat:
    """One layout of conversations.

    Attributes:
        name: the name on the page, on the command line and in `chat_format.json`.
        about: one sentence for the page and the command line.
        special_tokens: name -> spelling. Tokens that a tokenizer lacks are added to it in this order. "<eos>" and
            "<sep>" stand for the tokenizer's own token of that kind.
        reply_end: the names of the special tokens that end a reply.
        render: (conversation, loss mask of the turns, is_open) -> segments. An open prompt ends where the assistant's
            reply begins. None for the format that uses the tokenizer's chat template.
        has_types: whether the model gets token type ids.
        one_reply: whether only the last reply of an example counts in the loss, so that a conversation of three replies
            gives three examples.
        chat_template: the same layout in Jinja, if ids without token types express it.
    """

    name: str
    about: str
    special_tokens: Mapping[str, str]
    reply_end: tuple[str, ...]
    render: Render | None
    has_types: bool = False
    one_reply: bool = False
    chat_template: str | None = None


def _roles(conversation: Conversation, loss_mask: Sequence[bool], is_open: bool) -> Iterator[Segment]:
    first = len(conversation.head)
    for index, message in enumerate(conversation.messages):
        turn = index - first
        in_loss = turn >= 0 and loss_mask[turn]
        yield Segment("special", message.role, turn)
        yield Segment("text", message.text, turn, in_loss)
        yield Segment("special", "end", turn, in_loss)
    if is_open:
        yield Segment("special", "assistant", SYSTEM_TURN)


def _roles_spaced(conversation: Conversation, loss_mask: Sequence[bool], is_open: bool) -> Iterator[Segment]:
    if conversation.system is not None:
        yield Segment("special", "system", SYSTEM_TURN)
        yield Segment("text", f" {conversation.system} ", SYSTEM_TURN)
    for turn, message in enumerate(conversation.turns):
        yield Segment("special", message.role, turn)
        if message.role == "user":
            yield Segment("text", f" {message.text} ", turn, loss_mask[turn])
        else:  # The space stands alone, as it does at the end of a prompt.
            yield Segment("text", " ", turn)
            yield Segment("text", message.text, turn, loss_mask[turn])
            yield Segment("special", "end", turn, loss_mask[turn])
    if is_open:
        yield Segment("special", "assistant", SYSTEM_TURN)
        yield Segment("text", " ", SYSTEM_TURN)


def _sep(conversation: Conversation, loss_mask: Sequence[bool], is_open: bool) -> Iterator[Segment]:
    if conversation.system is not None:
        yield Segment("special", "sep", SYSTEM_TURN, type=0)
        yield Segment("text", conversation.system, SYSTEM_TURN, type=0)
    yield Segment("special", "sep", SYSTEM_TURN, loss_mask[0], type=0)
    for turn, message in enumerate(conversation.turns):
        yield Segment("text", message.text, turn, loss_mask[turn], type=turn % 2)
        yield Segment("special", "sep", turn, loss_mask[turn], type=(turn + 1) % 2)


def _speaker(conversation: Conversation, loss_mask: Sequence[bool], is_open: bool) -> Iterator[Segment]:
    tags = ["sp2" if turn.role == "assistant" else "sp1" for turn in conversation.turns]
    yield Segment("special", "bos", SYSTEM_TURN, type=tags[0])
    if conversation.system is not None:
        yield Segment("text", conversation.system, SYSTEM_TURN, type=tags[0])
    for turn, (tag, message) in enumerate(zip(tags, conversation.turns, strict=True)):
        yield Segment("special", tag, turn, type=tag)
        yield Segment("text", message.text, turn, loss_mask[turn], type=tag)
    if is_open:
        yield Segment("special", "sp2", SYSTEM_TURN, type="sp2")
    else:
        yield Segment("special", "eos", SYSTEM_TURN, loss_mask[-1], type="sp2")


def _pair(conversation: Conversation, loss_mask: Sequence[bool], is_open: bool) -> Iterator[Segment]:
    turns = conversation.turns
    context = len(turns) if is_open else len(turns) - 1
    if conversation.system is not None:
        yield Segment("text", conversation.system, SYSTEM_TURN, type=0)
    for turn in range(context):
        is_first = turn == 0 and conversation.system is None
        text = turns[turn].text if is_first else f" {turns[turn].text}"
        yield Segment("text", text, turn, loss_mask[turn], type=0)
    yield Segment("special", "sep", SYSTEM_TURN, any(loss_mask[:context]), type=1)
    for turn in range(context, len(turns)):
        yield Segment("text", turns[turn].text, turn, loss_mask[turn], type=1)
        yield Segment("special", "end", turn, loss_mask[turn], type=1)


def _eos(conversation: Conversation, loss_mask: Sequence[bool], is_open: bool) -> Iterator[Segment]:
    if conversation.system is not None:
        yield Segment("text", conversation.system, SYSTEM_TURN)
        yield Segment("special", "eos", SYSTEM_TURN)
    for turn, message in enumerate(conversation.turns):
        yield Segment("text", message.text, turn, loss_mask[turn])
        yield Segment("special", "eos", turn, loss_mask[turn])


_ROLES_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'system' -%}{{ '<|SYSTEM|>' }}"
    "{%- elif message['role'] == 'user' -%}{{ '<|USER|>' }}"
    "{%- else -%}{{ '<|ASSISTANT|>' }}{%- endif -%}"
    "{{ message['content'] }}{{ '<|End|>' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|ASSISTANT|>' }}{%- endif -%}"
)
_EOS_TEMPLATE = "{%- for message in messages -%}{{ message['content'] }}{{ eos_token }}{%- endfor -%}"

FORMATS: Mapping[str, ChatFormat] = {
    one.name: one
    for one in (
        ChatFormat(
            "roles",
            "A tag for each speaker and a mark after each turn; for new models, and for system texts.",
            {"system": "<|SYSTEM|>", "user": "<|USER|>", "assistant": "<|ASSISTANT|>", "end": "<|End|>"},
            ("end", "user", "assistant", "system"),
            _roles,
            chat_template=_ROLES_TEMPLATE,
        ),
        ChatFormat(
            "roles-spaced",
            "The layout of Locutusque/gpt2-conversational-or-qa.",
            {
                "pad": "[PAD]",
                "end": "<|End|>",
                "user": "<|USER|>",
                "system": "<|SYSTEM|>",
                "assistant": "<|ASSISTANT|>",
            },
            ("end", "user", "assistant", "system"),
            _roles_spaced,
        ),
        ChatFormat(
            "sep",
            "One separator around every turn and alternating token types; the layout of convmodel.",
            {"sep": "<sep>"},
            ("sep",),
            _sep,
            has_types=True,
        ),
        ChatFormat(
            "speaker",
            "A tag and a token type for each speaker; the layout of devjwsong/gpt2-open-domain-dialogue.",
            {"bos": "<bos>", "sp1": "<sp1>", "sp2": "<sp2>", "eos": "<eos>"},
            ("eos", "sp1", "sp2", "bos"),
            _speaker,
            has_types=True,
            one_reply=True,
        ),
        ChatFormat(
            "pair",
            "Context, [SEP], reply, [CLS]; the layout of GPTChat.",
            {"sep": "[SEP]", "end": "[CLS]"},
            ("end", "sep"),
            _pair,
            has_types=True,
            one_reply=True,
        ),
        ChatFormat(
            "eos",
            "The end-of-text token after every turn; the layout of DialoGPT.",
            {"eos": "<eos>"},
            ("eos",),
            _eos,
            chat_template=_EOS_TEMPLATE,
        ),
        ChatFormat(
            "template",
            "The model's own chat template, for any other chat model.",
            {},
            (),
            None,
        ),
    )
}
DEFAULT_FORMAT = "roles"
FORMAT_NAMES: tuple[str, ...] = tuple(FORMATS)


def get_format(name: str) -> ChatFormat:
    """The format of that name.

    Raises:
        FormatError: there is none.
    """
    if name not in FORMATS:
        raise FormatError(f"There is no format '{name}'.", advice=f"Choose one of {', '.join(FORMATS)}.")
    return FORMATS[name]


def turn_loss_mask(conversation: Conversation, learn: str, new_from: int = 0) -> list[bool]:
    """Whether each turn counts in the loss: replies or all turns, from turn `new_from`, unless the data excludes it."""
    return [
        turn >= new_from and message.in_loss and (learn == "all" or message.role == "assistant")
        for turn, message in enumerate(conversation.turns)
    ]
