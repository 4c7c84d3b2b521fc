"""Cells of tables: formatting as text, parsing of lists, and the kind of data in a column."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal

import orjson

from chat_app.data.readers.tables import header_words
from chat_app.data.readers.text import role_markers
from chat_app.data.readers.types import Part

CellKind = Literal[
    "empty", "running", "number", "link", "date", "label", "list", "speaker", "split", "text", "address", "file", "id",
    "marked", "verdict",
]  # fmt: skip

MAX_LIST_CHARACTERS = 1_000_000
WHOLE_FLOAT = 1e15
NUMBER = re.compile(r"[-+]?[0-9][0-9 .,']*(?:[eE][-+]?[0-9]+)?%?")
LINK = re.compile(r"(?:https?://|www\.)\S+")
# A date, a time or both, with the name of a zone behind them.
DATE = re.compile(
    r"(?:\d{4}[./-]\d{1,2}[./-]\d{1,2}|\d{1,2}[./-]\d{1,2}[./-]\d{2,4})"
    r"(?:[T ,]+\d{1,2}:\d\d\S*(?: ?[AaPp]\.?[Mm]\.?)?(?: (?:[A-Z]{2,5})?(?:[+-]\d{1,4}(?::\d\d)?)?)?)?"
    r"|\d{1,2}:\d\d(?::\d\d)?(?:\.\d+)?(?: ?[AaPp]\.?[Mm]\.?)?"
    r"|[A-Z][a-z]{2},? [A-Z][a-z]{2} \d{1,2} \d\d:\d\d:\d\d (?:[+-]\d{4} )?\d{4}"
)
ADDRESS = re.compile(r"(?:mailto:)?[^\s@]{1,64}@[^\s@]{1,255}\.[^\s@.]{2,63}")
PHONE = re.compile(r"\+?[0-9][0-9 ()/.-]{4,24}[0-9]")
FILE = re.compile(r"[^\n<>|?*\"]{1,200}\.[A-Za-z][A-Za-z0-9]{0,4}")
FILE_ENDINGS = frozenset((
    "txt", "tsv", "csv", "json", "jsonl", "xml", "yml", "yaml", "md", "pdf", "doc", "docx", "xls", "xlsx", "ppt",
    "pptx", "odt", "ods", "htm", "html", "jpg", "jpeg", "png", "gif", "webp", "svg", "bmp", "mp3", "mp4", "wav",
    "ogg", "opus", "avi", "mov", "webm", "zip", "gz", "tar", "parquet", "py", "js", "log", "ini", "cfg", "rtf", "srt",
    "vtt", "db", "sql",
))  # fmt: skip
VERDICTS = {"true": True, "1": True, "1.0": True, "yes": True, "false": False, "0": False, "0.0": False, "no": False}
UUID = re.compile(r"(?=.*[0-9])(?:[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{16,64})", re.IGNORECASE)
# A name of one word with a number that others share the beginning of: "user-17", "t1_c0ffee".
NUMBERED_ID = re.compile(r"[A-Za-z]{1,16}[_-]?[0-9][A-Za-z0-9_-]{0,40}")
# A list as numpy prints it has no commas; without them Python would put its texts together into one.
WITHOUT_COMMA = re.compile(r"(?<=['\"])[ \t]*\n[ \t]*(?=['\"])")
LABEL_ROWS, MOST_LABELS, LONGEST_LABEL = 12, 4, 24
MARKED_SHARE = 0.5
LONGEST_CODE = 400
PATTERNS: tuple[tuple[CellKind, re.Pattern[str]], ...] = (
    ("number", NUMBER), ("link", LINK), ("date", DATE), ("id", UUID), ("address", ADDRESS), ("number", PHONE),
)  # fmt: skip
PARTS: dict[str, Part] = {
    "train": "train", "training": "train", "valid": "valid", "validation": "valid", "val": "valid", "dev": "valid",
    "eval": "valid", "evaluation": "valid", "development": "valid", "test": "test", "testing": "test",
}  # fmt: skip


def format_cell(cell: Any) -> str:
    """Format a cell as text; empty for None and NaN."""
    if isinstance(cell, str):
        return cell
    if cell is None or cell != cell:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() and abs(cell) < WHOLE_FLOAT else repr(cell)
    if isinstance(cell, datetime):
        if not (cell.hour or cell.minute or cell.second):
            return cell.date().isoformat()
        return cell.isoformat(" ", "seconds" if cell.second else "minutes")
    if isinstance(cell, time):
        return cell.isoformat("seconds" if cell.second else "minutes")
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "replace")
    if isinstance(cell, int | date | timedelta | Decimal):
        return str(cell)
    return orjson.dumps(cell, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def parse_list(cell: Any) -> Any:
    """The list or the object in a cell, also if it is a text in JSON or Python syntax; else None."""
    if isinstance(cell, list | tuple):
        return list(cell)
    if isinstance(cell, dict):
        return cell
    if not isinstance(cell, str):
        return None
    text = cell.strip()
    if text[:1] not in ("[", "{") or text[-1:] not in ("]", "}"):
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return _parse_python_list(text)


def _parse_python_list(text: str) -> Any:
    if len(text) > MAX_LIST_CHARACTERS or text[1:].lstrip()[:1] not in ("'", '"', "[", "{"):
        return None
    try:
        value = ast.literal_eval(WITHOUT_COMMA.sub(",", text))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None
    return value if isinstance(value, list | dict) else None


def detect_kind(cells: Sequence[Any]) -> CellKind:
    """Detect the kind of data in a column from the cells of its first rows."""
    full = [cell for cell in cells if not (cell is None or cell != cell or cell == "")]
    if not full:
        return "empty"
    if all(parse_list(cell) is not None for cell in full):
        return "list"
    if all(isinstance(cell, int | float | Decimal) for cell in full):
        return "running" if _is_running(full) else "number"
    if all(isinstance(cell, date | datetime | time) for cell in full):
        return "date"
    texts = [format_cell(cell).strip() for cell in full]
    if max(map(len, texts)) <= LONGEST_CODE:
        for kind, pattern in PATTERNS:
            if all(map(pattern.fullmatch, texts)):
                return "running" if kind == "number" and _is_running(texts) else kind
        if all(FILE.fullmatch(text) and text.rpartition(".")[2].lower() in FILE_ENDINGS for text in texts):
            return "file"
    words = {text.casefold() for text in texts}
    if words <= VERDICTS.keys():
        return "verdict"
    if words <= PARTS.keys():
        return "split"
    if (
        len(texts) > len(words)
        and {header_words.find_role(word) for word in words} >= {"user", "assistant"}
        and all(header_words.find_role(word) for word in words)
    ):
        return "speaker"
    if len(texts) > 2 and len(words) > 1 and all(map(NUMBERED_ID.fullmatch, texts)):
        return "label"
    if any(map(may_hold_marks, texts)) and sum(map(holds_marks, texts)) >= MARKED_SHARE * len(texts):
        return "marked"
    few = len(texts) >= LABEL_ROWS and len(words) <= MOST_LABELS
    return "label" if few and all(len(word) <= LONGEST_LABEL and " " not in word for word in words) else "text"


def parse_verdict(cell: Any) -> bool | None:
    """Whether a cell says yes or no: true, 1.0, "no"; None if it says neither."""
    return VERDICTS.get(format_cell(cell).strip().casefold())


def may_hold_marks(text: str) -> bool:
    """False only if there are no marks of speakers in a text. Cheap: most texts end here."""
    return "#" in text or "<" in text or "[" in text or ":" in text


def holds_marks(text: str) -> bool:
    """Whether a text has marks of a user and of an assistant: it is a whole conversation."""
    return may_hold_marks(text) and role_markers.detect_style(text) is not None


def _is_running(cells: Sequence[Any]) -> bool:
    """Whether the cells are consecutive integers: 0, 1, 2 or 17, 18, 19."""
    try:
        numbers = [int(cell) for cell in cells]
    except (ValueError, OverflowError):
        return False
    return len(numbers) > 2 and numbers == list(range(numbers[0], numbers[0] + len(numbers)))
