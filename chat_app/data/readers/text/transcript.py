"""The reader of transcripts: plain text with role markers ("User: Hello"), or prompts in the format of a chat model.

A conversation ends at a separator line (---, <|endoftext|>), at an empty line if there are none inside conversations,
at the next system text, or at the end of the line if each conversation is a single line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from chat_app.conversation import Role
from chat_app.data.readers.options import ReadingOptions
from chat_app.data.readers.protocol import InputFile, TextReader
from chat_app.data.readers.text import role_markers
from chat_app.data.readers.text.role_markers import HASHES, LINES, LLAMA, MarkerStyle
from chat_app.data.readers.text_source import MAX_LINE_BYTES, MAX_LINE_MEGABYTES, Source, number_lines, read_beginning
from chat_app.data.readers.turn_text import not_utf8_error
from chat_app.data.readers.types import Located, Problem, RejectedError

SEPARATORS = frozenset(
    ("---", "***", "===", "<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "EOS", "[END OF DIALOGUE]")
)
END_OF_DOCUMENT = ("<|endoftext|>", "<|end_of_text|>", "[END OF DIALOGUE]")
BEGINNINGS = ("<s>", "<|begin_of_text|>", "<bos>")
SINGLE_TURN = "### instruction"
TOO_LONG = f"This conversation is longer than {MAX_LINE_MEGABYTES} MB."
SPLIT = "Separate the conversations by a line with --- between them."


@dataclass(frozen=True, slots=True)
class _Layout:
    """The layout of a file.

    Attributes:
        style: the style of its role markers.
        blank_ends: whether an empty line ends a conversation.
        one_line: whether each conversation is a single line.
    """

    style: MarkerStyle
    blank_ends: bool
    one_line: bool


@dataclass(frozen=True)
class TranscriptReader(TextReader):
    """Reads text whose lines name the speakers."""

    kind = "marked"

    @classmethod
    def sniff(cls, file: InputFile) -> TranscriptReader | None:
        """A reader if the lines name a user and an assistant."""
        return cls(file.source, file.options) if is_transcript(file.source) else None

    def read(self, *, need_reply: bool = True) -> Iterator[Located | Problem]:
        """The conversations and the problems, line by line."""
        return read_conversations(self.source, self.options, need_reply)


def is_transcript(source: Source) -> bool:
    """Whether the lines of a text name a user and an assistant."""
    return _detect_layout(source) is not None


def read_conversations(
    source: Source, options: ReadingOptions | None = None, need_reply: bool = True
) -> Iterator[Located | Problem]:
    """Read the conversations. A conversation's line is its first one. `options` has no effect."""
    manner = _detect_layout(source)
    if manner is None:
        return
    problems: list[Problem] = []
    for number, text in _split_conversations(source, manner, problems):
        yield from problems
        problems.clear()
        try:
            if text is None:
                raise RejectedError(TOO_LONG, SPLIT)
            found = role_markers.parse_conversation(text, None, need_reply)
            if found is None:
                raise RejectedError(
                    "Nobody is named in these lines.",
                    "Write User: and Assistant: before what they say, or delete them.",
                )
            yield Located(found, number, source.name)
        except RejectedError as rejected:
            yield Problem(source.name, number, rejected.reason, rejected.advice)
    yield from problems


def _detect_layout(source: Source) -> _Layout | None:
    head, more = read_beginning(source)
    text = head.decode("utf-8", "replace")
    if text.lstrip().startswith(("{", '["', "[[", "[{", "[\n")):
        return None
    style = role_markers.detect_style(text)
    if style is None:
        return None
    lines = [line.decode("utf-8", "replace") for _, line in number_lines([head]) if line is not None]
    if more and len(lines) > 1:
        lines.pop()
    if not _is_mostly_marked(style, lines):
        return None
    return _Layout(style, _blank_line_ends(style, lines), _is_one_line(style, lines))


def _is_mostly_marked(style: MarkerStyle, lines: list[str]) -> bool:
    """Whether enough lines have markers: it is no table with names in its cells, nor prose with a few "Name:" in it."""
    marked = [line for line in lines if style.mark.search(line)]
    if 2 * sum("\t" in line for line in marked) > len(marked):
        return False
    said = sum(bool(line.strip()) for line in lines)
    return style is not LINES or 4 * len(marked) >= said


def _blank_line_ends(style: MarkerStyle, lines: list[str]) -> bool:
    """Whether empty lines separate conversations: none is between a question and its answer."""
    blank, before = False, None
    for line in lines:
        roles = role_markers.find_roles(style, line)
        if roles:
            if blank and roles[0] == "assistant" and before == "user":
                return False
            before = roles[-1]
        blank = not line.strip() or (blank and not roles)
    return True


def _is_one_line(style: MarkerStyle, lines: list[str]) -> bool:
    """Whether the first line that is not empty has markers of both a user and an assistant."""
    first = next((line for line in lines if line.strip()), "")
    return {"user", "assistant"} <= set(role_markers.find_roles(style, first))


def _split_conversations(source: Source, manner: _Layout, problems: list[Problem]) -> Iterator[tuple[int, str | None]]:
    """The text of each conversation, after the number of its first line; None for one that is too long."""
    lines: list[str] = []
    start, size, blank, answered = 0, 0, False, False
    for number, raw in source.read_lines():
        line = _decode(raw, number, source.name, problems)
        bare = line.strip()
        roles = role_markers.find_roles(manner.style, line)
        if lines and (bare in SEPARATORS or (answered and _begins_new(line, roles, manner, blank))):
            yield start, None if size > MAX_LINE_BYTES else "\n".join(lines)
            lines, size, answered = [], 0, False
        if bare in SEPARATORS or (not lines and not bare):
            continue
        start = start if lines else number
        size += len(line) + 1
        if size <= MAX_LINE_BYTES or not lines:
            lines.append(line)
        blank = not bare
        answered = answered or "assistant" in roles
        if answered and bare.endswith(END_OF_DOCUMENT) and (not roles or roles[-1] == "assistant"):
            yield start, None if size > MAX_LINE_BYTES else "\n".join(lines)
            lines, size, answered = [], 0, False
    if lines:
        yield start, None if size > MAX_LINE_BYTES else "\n".join(lines)


def _begins_new(line: str, roles: list[Role | None], manner: _Layout, blank: bool) -> bool:
    """Whether a line begins another conversation, after one that has an answer."""
    bare = line.lstrip()
    if manner.style is HASHES and bare.lower().startswith(SINGLE_TURN):
        return True
    if manner.one_line or (manner.style is LLAMA and bare.startswith(BEGINNINGS)):
        return bool(roles) and roles[0] != "assistant"
    if roles and roles[0] == "system":
        return True
    return manner.blank_ends and blank and bool(bare)


def _decode(raw: bytes | None, number: int, file: str, problems: list[Problem]) -> str:
    if raw is None:
        problems.append(Problem(file, number, f"This line is longer than {MAX_LINE_MEGABYTES} MB.", SPLIT))
        return ""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        rejected = not_utf8_error(error.start)
        problems.append(Problem(file, number, rejected.reason, rejected.advice))
        return ""
