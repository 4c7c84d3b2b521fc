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
from chat_app.data.readers.types import Part

CellKind = Literal["empty", "running", "number", "link", "date", "label", "list", "speaker", "split", "text"]

MAX_LIST_CHARACTERS = 1_000_000
WHOLE_FLOAT = 1e15
NUMBER = re.compile(r"[-+]?[0-9][0-9 .,']*(?:[eE][-+]?[0-9]+)?%?")
LINK = re.compile(r"(?:https?://|www\.)\S+")
DATE = re.compile(
    r"(?:\d{4}-\d{1,2}-\d{1,2}|\d{1,2}[./-]\d{1,2}[./-]\d{2,4})(?:[T ,]+\d{1,2}:\d\d\S*(?: ?[AaPp][Mm])?)?"
)
UUID = re.compile(r"(?=.*[0-9])(?:[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{16,64})", re.IGNORECASE)
# numpy prints lists without commas, and Python would concatenate adjacent strings.
WITHOUT_COMMA = re.compile(r"(?<=['\"])[ \t]*\n[ \t]*(?=['\"])")
LABEL_ROWS, MOST_LABELS, LONGEST_LABEL = 12, 4, 24
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
    for kind, pattern in (("number", NUMBER), ("link", LINK), ("date", DATE), ("number", UUID)):
        if all(len(text) <= 2_000 and pattern.fullmatch(text) for text in texts):
            return "running" if kind == "number" and _is_running(texts) else kind  # type: ignore[return-value]
    words = {text.casefold() for text in texts}
    if words <= PARTS.keys():
        return "split"
    if (
        len(texts) > len(words)
        and {header_words.find_role(word) for word in words} >= {"user", "assistant"}
        and all(header_words.find_role(word) for word in words)
    ):
        return "speaker"
    few = len(texts) >= LABEL_ROWS and len(words) <= MOST_LABELS
    return "label" if few and all(len(word) <= LONGEST_LABEL and " " not in word for word in words) else "text"


def _is_running(cells: Sequence[Any]) -> bool:
    """Whether the cells are consecutive integers: 0, 1, 2 or 17, 18, 19."""
    try:
        numbers = [int(cell) for cell in cells]
    except (ValueError, OverflowError):
        return False
    return len(numbers) > 2 and numbers == list(range(numbers[0], numbers[0] + len(numbers)))
