"""Prompt formats: how a conversation is laid out for a model, and what ends a reply.

A format turns a conversation into segments. A segment says which turn it belongs to and whether it is learned, so
that ids, token types and labels grow together, once, in `encoding`. This file knows no token ids and no tensors; a
tokenizer is only asked for the spellings of its special tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from chat_app.conversation import Conversation
from chat_app.errors import FormatError

Kind = Literal["text", "mark", "literal"]
SYSTEM_TURN = -1


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of tokens.

    Attributes:
        kind: "text" is what somebody said and never becomes a special token; "mark" is the name of one special token of
            the format; "literal" is text of a chat template, in which special tokens count.
        value: the text, or the mark's name.
        turn: the number of the turn, from 0; -1 for the system text and what frames the whole.
        learned: whether training imitates these tokens.
        type: the token type: a number, or the name of the mark whose id is the type; None where a format has none.
    """

    kind: Kind
    value: str
    turn: int
    learned: bool = False
    type: int | str | None = None


Render = Callable[[Conversation, Sequence[bool], bool], Iterator[Segment]]


@dataclass(frozen=True)
class ChatFormat:
    """One layout of conversations.

    Attributes:
        name: the name people and files use.
        about: one sentence for the page and the command line.
        marks: name -> spelling of each special token, in the order in which a tokenizer that lacks them gets them.
            "<eos>" and "<sep>" stand for the tokenizer's own token of that kind.
        reply_end: the marks that end a reply when a model writes them.
        render: (conversation, learned turns, open) -> segments; `open` ends where the assistant would go on.
        one_reply: every example teaches only its last reply: a conversation of three replies gives three examples.
        chat_template: the same layout in Jinja, where ids alone express it.
    """

    name: str
    about: str
    marks: Mapping[str, str]
    reply_end: tuple[str, ...]
    render: Render | None
    has_types: bool = False
    one_reply: bool = False
    chat_template: str | None = None


def _roles(conversation: Conversation, learned: Sequence[bool], is_open: bool) -> Iterator[Segment]:
    first = len(conversation.head)
    for index, message in enumerate(conversation.messages):
        turn = index - first
        learns = turn >= 0 and learned[turn]
        yield Segment("mark", message.role, turn)
        yield Segment("text", message.text, turn, learns)
        yield Segment("mark", "end", turn, learns)
    if is_open:
        yield Segment("mark", "assistant", SYSTEM_TURN)


def _roles_spaced(conversation: Conversation, learned: Sequence[bool], is_open: bool) -> Iterator[Segment]:
    if conversation.system is not None:
        yield Segment("mark", "system", SYSTEM_TURN)
        yield Segment("text", f" {conversation.system} ", SYSTEM_TURN)
    for turn, message in enumerate(conversation.turns):
        yield Segment("mark", message.role, turn)
        if message.role == "user":
            yield Segment("text", f" {message.text} ", turn, learned[turn])
        else:  # The space stands alone, as it does at the end of a prompt.
            yield Segment("text", " ", turn)
            yield Segment("text", message.text, turn, learned[turn])
            yield Segment("mark", "end", turn, learned[turn])
    if is_open:
        yield Segment("mark", "assistant", SYSTEM_TURN)
        yield Segment("text", " ", SYSTEM_TURN)


def _sep(conversation: Conversation, learned: Sequence[bool], is_open: bool) -> Iterator[Segment]:
    if conversation.system is not None:
        yield Segment("mark", "sep", SYSTEM_TURN, type=0)
        yield Segment("text", conversation.system, SYSTEM_TURN, type=0)
    yield Segment("mark", "sep", SYSTEM_TURN, learned[0], type=0)
    for turn, message in enumerate(conversation.turns):
        yield Segment("text", message.text, turn, learned[turn], type=turn % 2)
        yield Segment("mark", "sep", turn, learned[turn], type=(turn + 1) % 2)


def _speaker(conversation: Conversation, learned: Sequence[bool], is_open: bool) -> Iterator[Segment]:
    tags = ["sp2" if turn.role == "assistant" else "sp1" for turn in conversation.turns]
    yield Segment("mark", "bos", SYSTEM_TURN, type=tags[0])
    if conversation.system is not None:
        yield Segment("text", conversation.system, SYSTEM_TURN, type=tags[0])
    for turn, (tag, message) in enumerate(zip(tags, conversation.turns, strict=True)):
        yield Segment("mark", tag, turn, type=tag)
        yield Segment("text", message.text, turn, learned[turn], type=tag)
    if is_open:
        yield Segment("mark", "sp2", SYSTEM_TURN, type="sp2")
    else:
        yield Segment("mark", "eos", SYSTEM_TURN, learned[-1], type="sp2")


def _pair(conversation: Conversation, learned: Sequence[bool], is_open: bool) -> Iterator[Segment]:
    turns = conversation.turns
    context = len(turns) if is_open else len(turns) - 1
    if conversation.system is not None:
        yield Segment("text", conversation.system, SYSTEM_TURN, type=0)
    for turn in range(context):
        is_first = turn == 0 and conversation.system is None
        text = turns[turn].text if is_first else f" {turns[turn].text}"
        yield Segment("text", text, turn, learned[turn], type=0)
    yield Segment("mark", "sep", SYSTEM_TURN, any(learned[:context]), type=1)
    for turn in range(context, len(turns)):
        yield Segment("text", turns[turn].text, turn, learned[turn], type=1)
        yield Segment("mark", "end", turn, learned[turn], type=1)


def _eos(conversation: Conversation, learned: Sequence[bool], is_open: bool) -> Iterator[Segment]:
    if conversation.system is not None:
        yield Segment("text", conversation.system, SYSTEM_TURN)
        yield Segment("mark", "eos", SYSTEM_TURN)
    for turn, message in enumerate(conversation.turns):
        yield Segment("text", message.text, turn, learned[turn])
        yield Segment("mark", "eos", turn, learned[turn])


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


def learned_turns(conversation: Conversation, learn: str, new_from: int = 0) -> list[bool]:
    """Which turns are learned: replies or all, none before turn `new_from`, none that the data excludes."""
    return [
        turn >= new_from and message.learned and (learn == "all" or message.role == "assistant")
        for turn, message in enumerate(conversation.turns)
    ]
