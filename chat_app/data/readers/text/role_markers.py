"""Parses a text with role markers ("### Human:", <|im_start|>, [INST], "User:") as a conversation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from chat_app.conversation import Conversation, Message, Role
from chat_app.data.readers.json.messages import NO_TOOLS, TOOL_ROLES, build_conversation, find_role
from chat_app.data.readers.turn_text import check_count, clean_text
from chat_app.data.readers.types import RejectedError, quote_text

MARKER_ROLES: dict[str, Role] = {
    "instruction": "user", "input": "user", "question": "user", "prompt": "user", "q": "user", "context": "user",
    "response": "assistant", "output": "assistant", "answer": "assistant", "a": "assistant", "completion": "assistant",
}  # fmt: skip
BEGINNINGS = ("<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>")
ENDINGS = (
    "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "<|end|>", "<|End|>", "</s>",
    "<eos>", "<bot_end>", "<|eos|>",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class MarkerStyle:
    """A style of role markers.

    Attributes:
        name: the name of the style.
        mark: the pattern of a marker; its first group is the role's name.
        end: the token that ends a turn, if the style has one.
        lines: whether a text must begin with a marker.
    """

    name: str
    mark: re.Pattern[str]
    end: str = ""
    lines: bool = False


CHATML = MarkerStyle("ChatML", re.compile(r"<\|im_start\|>[ \t]*(\w{1,30})"), "<|im_end|>")
LLAMA = MarkerStyle("Llama", re.compile(r"\[(/?INST)\]"))
HASHES = MarkerStyle(
    "###",
    re.compile(
        r"#{2,4} ?(Human|User|Assistant|Bot|GPT|AI|System|Instruction|Input|Response|Output|Question|Answer|Prompt"
        r"|Completion|Context)[ \t]*(?::|(?=\r?\n)|$)",
        re.IGNORECASE,
    ),
)
LINES = MarkerStyle(
    "lines",
    re.compile(
        r"^[ \t]*(Human|User|Customer|Prompt|Question|Q|Assistant|Bot|Chatbot|GPT|ChatGPT|AI|Agent|Model|Answer|A"
        r"|System)[ \t]?:",
        re.IGNORECASE | re.MULTILINE,
    ),
    lines=True,
)
STYLES = (
    CHATML,
    MarkerStyle(
        "Llama 3", re.compile(r"<\|start_header_id\|>\s{0,2}(\w{1,30})\s{0,2}<\|end_header_id\|>"), "<|eot_id|>"
    ),
    MarkerStyle("Gemma", re.compile(r"<start_of_turn>[ \t]*(\w{1,30})"), "<end_of_turn>"),
    LLAMA,
    MarkerStyle("tags", re.compile(r"<\|(system|user|assistant|prompter|human|bot|model)\|>", re.IGNORECASE)),
    HASHES,
    LINES,
)
SYSTEM_TEXT = re.compile(r"<<SYS>>(.*?)<</SYS>>", re.DOTALL)


def detect_style(text: str, *, need_reply: bool = True) -> MarkerStyle | None:
    """Detect the style of the markers in a text, which must mark a user and an assistant; None if it has none.

    Args:
        text: the text.
        need_reply: False accepts markers of a user alone.
    """
    needed: set[Role | None] = {"user", "assistant"} if need_reply else {"user"}
    for style in STYLES:
        if style.lines and not style.mark.match(text.lstrip()):
            continue
        if needed <= {role for _, role in _find_markers(style, text)}:
            return style
    return None


def has_markers(text: str) -> bool:
    """Whether a text has role markers."""
    return detect_style(text, need_reply=False) is not None


def parse_conversation(text: str, system: str | None = None, need_reply: bool = True) -> Conversation | None:
    """Parse the conversation in a text; None if it has no role markers.

    Args:
        text: the text.
        system: a system text from elsewhere.
        need_reply: whether a message of the assistant is required.

    Raises:
        RejectedError: the text has markers, but cannot be used.
    """
    style = detect_style(text, need_reply=False)
    if style is None:
        return None
    messages = [] if system is None else [Message("system", system)]
    messages += _split_llama(text) if style is LLAMA else _split_messages(style, text)
    check_count(len(messages))
    return build_conversation(messages, {message.role for message in messages}, need_reply)


def find_roles(style: MarkerStyle, text: str) -> list[Role | None]:
    """The roles of the markers in a text, in order; None for an unknown role."""
    return [_find_role(match.group(1)) for match in style.mark.finditer(text)]


def _find_markers(style: MarkerStyle, text: str) -> Iterator[tuple[int, Role | None]]:
    for match in style.mark.finditer(text):
        yield match.start(), _find_role(match.group(1))


def _find_role(name: str) -> Role | None:
    if name == "INST":
        return "user"
    if name == "/INST":
        return "assistant"
    return find_role(name) or MARKER_ROLES.get(name.lower())


def _split_messages(style: MarkerStyle, text: str) -> list[Message]:
    """The messages after the markers. A text before the first marker is the system text."""
    found = list(style.mark.finditer(text))
    messages = []
    before = strip_delimiters(text[: found[0].start()])
    if before:
        messages.append(Message("system", clean_text(before, "the text before the first mark")))
    for number, match in enumerate(found, start=1):
        end = found[number].start() if number < len(found) else len(text)
        said = text[match.end() : end]
        if style.end:
            said = said.partition(style.end)[0]
        said = strip_delimiters(said)
        name = match.group(1)
        role = _find_role(name)
        if role is None:
            advice = NO_TOOLS if name.lower() in TOOL_ROLES else "Use system, user or assistant."
            raise RejectedError(f"Message {number} has the unknown role {quote_text(name)}.", advice)
        open_end = number == len(found) and role == "assistant"
        if not said and (open_end or role == "system" or name.lower() == "input"):
            continue
        messages.append(Message(role, clean_text(said, f"message {number}")))
    return messages


def _split_llama(text: str) -> list[Message]:
    """The messages of a Llama 2 prompt: [INST] question [/INST] answer </s>, repeated, with <<SYS>> in the first."""
    before, *pieces = text.split("[INST]")
    messages = []
    if before := strip_delimiters(before):
        messages.append(Message("system", clean_text(before, "the text before the first mark")))
    for number, piece in enumerate(pieces):
        question, _, reply = piece.partition("[/INST]")
        system = SYSTEM_TEXT.search(question)
        if system:
            question = question[: system.start()] + question[system.end() :]
            if told := system.group(1).strip():
                messages.append(Message("system", clean_text(told, "the system text")))
        messages.append(Message("user", clean_text(strip_delimiters(question), f"message {2 * number + 1}")))
        reply = strip_delimiters(reply)
        if reply or number < len(pieces) - 1:
            messages.append(Message("assistant", clean_text(reply, f"message {2 * number + 2}")))
    return messages


def strip_delimiters(text: str) -> str:
    """The text without white space and special tokens at its beginning and end."""
    start, end = 0, len(text)
    while start < end:
        sign = next((sign for sign in BEGINNINGS if text.startswith(sign, start, end)), None)
        if sign is None and not text[start].isspace():
            break
        start += len(sign) if sign else 1
    while start < end:
        sign = next((sign for sign in (*ENDINGS, *BEGINNINGS) if text.endswith(sign, start, end)), None)
        if sign is None and not text[end - 1].isspace():
            break
        end -= len(sign) if sign else 1
    return text[start:end]
