"""Conversations inside one text, told apart by marks ("### Human:", <|im_start|>, [INST], "User:"). Knows no files."""

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
    """A way to mark speakers. `end` closes a turn; `lines` means that the text has to begin with a mark."""

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
    """The style whose marks the text has, of a user and an assistant both; None if it has none.

    Args:
        need_reply: without it, marks of a user alone are enough.
    """
    needed: set[Role | None] = {"user", "assistant"} if need_reply else {"user"}
    for style in STYLES:
        if style.lines and not style.mark.match(text.lstrip()):
            continue
        if needed <= {role for _, role in _find_markers(style, text)}:
            return style
    return None


def has_markers(text: str) -> bool:
    """Whether a text holds marks of speakers."""
    return detect_style(text, need_reply=False) is not None


def parse_conversation(text: str, system: str | None = None, need_reply: bool = True) -> Conversation | None:
    """The conversation in a marked text; None if it has no marks.

    Raises:
        RejectedError: it has marks, but cannot be used.
    """
    style = detect_style(text, need_reply=False)
    if style is None:
        return None
    messages = [] if system is None else [Message("system", system)]
    messages += _split_llama(text) if style is LLAMA else _split_messages(style, text)
    check_count(len(messages))
    return build_conversation(messages, {message.role for message in messages}, need_reply)


def find_roles(style: MarkerStyle, text: str) -> list[Role | None]:
    """The roles whose marks stand in a piece of text, in order; None for an unknown one."""
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
    """The messages after each mark. What stands before the first one says what the assistant is."""
    found = list(style.mark.finditer(text))
    messages = []
    before = _strip_delimiters(text[: found[0].start()])
    if before:
        messages.append(Message("system", clean_text(before, "the text before the first mark")))
    for number, match in enumerate(found, start=1):
        end = found[number].start() if number < len(found) else len(text)
        said = text[match.end() : end]
        if style.end:
            said = said.partition(style.end)[0]
        said = _strip_delimiters(said)
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
    """[INST] a question [/INST] its answer </s>, again and again; <<SYS>> inside the first question."""
    before, *pieces = text.split("[INST]")
    messages = []
    if before := _strip_delimiters(before):
        messages.append(Message("system", clean_text(before, "the text before the first mark")))
    for number, piece in enumerate(pieces):
        question, _, reply = piece.partition("[/INST]")
        system = SYSTEM_TEXT.search(question)
        if system:
            question = question[: system.start()] + question[system.end() :]
            if told := system.group(1).strip():
                messages.append(Message("system", clean_text(told, "the system text")))
        messages.append(Message("user", clean_text(_strip_delimiters(question), f"message {2 * number + 1}")))
        reply = _strip_delimiters(reply)
        if reply or number < len(pieces) - 1:
            messages.append(Message("assistant", clean_text(reply, f"message {2 * number + 2}")))
    return messages


def _strip_delimiters(text: str) -> str:
    """The text without the spaces and the signs that begin and end a turn, however many there are."""
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
