"""EmpatheticDialogues: one utterance a row, grouped by conv_id, with `_comma_` for a comma.

The first speaker, who tells of a situation, is the user, and the listener is the assistant. Consecutive rows of a
speaker are one turn. `context` (an emotion) and `prompt` (the situation) are not used.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from chat_app.conversation import Conversation, Message, Role
from chat_app.data.readers.detokenize import tidy_text
from chat_app.data.readers.json.messages import describe_value, require_text
from chat_app.data.readers.options import ReadingOptions
from chat_app.data.readers.protocol import InputFile, TextReader
from chat_app.data.readers.split_names import part_from_filename
from chat_app.data.readers.text_source import Source, read_first_lines
from chat_app.data.readers.turn_text import check_count, clean_text, decode_line
from chat_app.data.readers.types import Located, Part, Problem, RejectedError, make_printable

NEEDED = ("conv_id", "speaker_idx", "utterance")
COMMA = "_comma_"
# Rows of a conversation are adjacent; for shuffled tables, so many rows are buffered until the rest has come.
HELD_ROWS = 100_000

Row = tuple[int, Mapping[str, Any]]


@dataclass(frozen=True)
class EmpatheticDialoguesReader(TextReader):
    """Reads EmpatheticDialogues' original files."""

    kind = "empathetic"

    @classmethod
    def sniff(cls, file: InputFile) -> EmpatheticDialoguesReader | None:
        """A reader if the first line names this corpus's columns; not if the options name columns."""
        return (
            cls(file.source, file.options)
            if not file.options.columns and is_empathetic_dialogues(file.source)
            else None
        )

    def read(self, *, need_reply: bool = True) -> Iterator[Located | Problem]:
        """The conversations and the problems, line by line."""
        return read_conversations(self.source, self.options, need_reply)


def is_empathetic_dialogues(source: Source) -> bool:
    """Whether the first line is the header of this corpus, separated by commas, tabs or semicolons."""
    lines = read_first_lines(source, 1)
    return bool(lines) and _find_separator(lines[0]) is not None


def is_row(record: Mapping[str, Any]) -> bool:
    """Whether a record is a row of this corpus."""
    return all(key in record for key in NEEDED)


def read_conversations(source: Source, options: ReadingOptions, need_reply: bool = True) -> Iterator[Located | Problem]:
    """Read train.csv, valid.csv or test.csv. A conversation's line is that of its first row."""
    problems: list[Problem] = []
    rows = _parse_rows(source, problems)
    for item in convert_rows(rows, source.name, options, need_reply, part_from_filename(source.name)):
        yield from problems
        problems.clear()
        yield item
    yield from problems


def convert_rows(
    rows: Iterable[Row], file: str, options: ReadingOptions, need_reply: bool = True, part: Part = "train"
) -> Iterator[Located | Problem]:
    """Group numbered rows into conversations, in the order of their first rows."""
    for group in _group_rows(rows):
        try:
            yield Located(_build_conversation(group, options, need_reply), group[0][0], file, part)
        except RejectedError as rejected:
            yield Problem(file, group[0][0], rejected.reason, rejected.advice)


def _group_rows(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """The rows of each conversation in the order of their utterances, in bounded memory."""
    groups: dict[str, list[Row]] = {}
    held = 0
    for number, row in rows:
        groups.setdefault(str(row.get("conv_id")), []).append((number, row))
        held += 1
        while held > HELD_ROWS:
            oldest = groups.pop(next(iter(groups)))
            held -= len(oldest)
            yield _sort_group(oldest)
    yield from map(_sort_group, groups.values())


def _sort_group(group: list[Row]) -> list[Row]:
    def index(row: Row) -> int:
        value = str(row[1].get("utterance_idx", ""))
        return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else 0

    return sorted(group, key=index)


def _build_conversation(group: list[Row], options: ReadingOptions, need_reply: bool) -> Conversation:
    first = group[0][1].get("speaker_idx")
    turns: list[tuple[Role, list[str]]] = []
    for number, row in group:
        role: Role = "user" if row.get("speaker_idx") == first else "assistant"
        said = row.get("utterance")
        if not isinstance(said, str):
            raise RejectedError(
                f"The utterance in line {number} is {describe_value(said)}, not text.", "Write what was said there."
            )
        said = clean_text(require_text(said, "the utterance").replace(COMMA, ","), f"the utterance in line {number}")
        if turns and turns[-1][0] == role:
            turns[-1][1].append(said)
        else:
            turns.append((role, [said]))
    check_count(len(turns))
    if need_reply and len(turns) < 2:
        raise RejectedError(
            f"Nobody answers in the conversation {make_printable(str(group[0][1].get('conv_id'))[:40])}.",
            "Add a reply, or delete it.",
        )
    return Conversation(
        tuple(Message(role, tidy_text(" ".join(said), options.tidy, tokenised=False)) for role, said in turns)
    )


def _parse_rows(source: Source, problems: list[Problem]) -> Iterator[Row]:
    columns: list[str] = []
    separator = ","
    for number, raw in source.read_lines():
        if raw is not None and not raw.strip():
            continue
        try:
            if not columns:
                separator = _find_separator(raw or b"") or ","
                columns = [name.strip().strip('"') for name in (raw or b"").decode("utf-8", "replace").split(separator)]
            else:
                yield number, dict(zip(columns, _split_cells(raw, separator, columns), strict=False))
        except RejectedError as rejected:
            problems.append(Problem(source.name, number, rejected.reason, rejected.advice))


def _split_cells(raw: bytes | None, separator: str, columns: list[str]) -> list[str]:
    """Split a line into cells. The original has no quoting, so a quotation mark is an ordinary character.

    A copy that a spreadsheet saved quotes cells with commas or quotation marks, and is parsed as CSV.
    """
    line = decode_line(raw, "Split it into several lines.")
    cells = line.split(separator)
    needed = columns.index("utterance") + 1
    if len(cells) > len(columns) and '"' in line:
        try:
            cells = next(csv.reader([line], delimiter=separator, strict=True))
        except csv.Error:
            cells = line.split(separator)
    else:
        cells = [_unquote(cell) for cell in cells]
    if not needed <= len(cells) <= len(columns):
        raise RejectedError(
            f"This row has {len(cells)} columns; {len(columns)} are named in the first line.",
            f"Write {COMMA} for a comma inside a text.",
        )
    return cells


def _unquote(cell: str) -> str:
    """A cell without the quotes around it, if those inside are all doubled."""
    inner = cell[1:-1]
    if len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    return cell


def _find_separator(header: bytes) -> str | None:
    for separator in (",", "\t", ";"):
        names = {name.strip().strip('"') for name in header.decode("utf-8", "replace").split(separator)}
        if set(NEEDED) <= names:
            return separator
    return None
