"""What one bad input is: how it is made, what is still read of it, and which of its lines must be accounted for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Accounts = Literal["lines", "below header", "nothing"] | int


@dataclass(frozen=True)
class Bad:
    """A bad input.

    Attributes:
        name: of the file, with its ending; no two have the same.
        content: the bytes, or what makes the file (or folder) at a path.
        conversations: how many are read of it all the same; with 0 the whole file is refused with an error.
        accounts: which numbers stand in a conversation or in a problem, if it is not refused: those of all lines with
            something in them, those below the first, 1 to so many, or none (where several lines make a conversation).
        heavy: whether its memory is measured.
    """

    name: str
    content: bytes | Callable[[Path], object]
    conversations: int = 0
    accounts: Accounts = "nothing"
    heavy: bool = False

    def write(self, folder: Path) -> Path:
        """Make the file."""
        path = folder / self.name
        if isinstance(self.content, bytes):
            path.write_bytes(self.content)
        else:
            self.content(path)
        return path

    def numbers(self) -> set[int]:
        """The lines, rows or items that may not be lost."""
        if isinstance(self.accounts, int):
            return set(range(1, self.accounts + 1))
        if self.accounts == "nothing" or not isinstance(self.content, bytes):
            return set()
        lines = re.split(rb"\r\n|\r|\n", self.content)
        found = {number for number, line in enumerate(lines, start=1) if line.strip(b" \t\xef\xbb\xbf")}
        return found - {min(found, default=0)} if self.accounts == "below header" else found


def lines(*texts: str | bytes) -> bytes:
    """Texts as lines of a file."""
    return b"".join((text.encode() if isinstance(text, str) else text) + b"\n" for text in texts)


def jsonl(*values: Any) -> bytes:
    """Values as lines of JSON."""
    return b"".join(json.dumps(value, ensure_ascii=False).encode() + b"\n" for value in values)


TSV = lines("Hello\tHi!", "When do you open?\tAt nine.", "Is it far?\tTwo streets.", "Bye\tSee you.")
CSV = lines("question,answer", "Hello,Hi!", '"When, exactly?",At nine.', "Bye,See you.")
RECORDS = [{"prompt": "Hello", "completion": "Hi!"}, {"prompt": "When?", "completion": "At nine."},
           {"prompt": "Bye", "completion": "See you."}]  # fmt: skip
JSONL = jsonl(*RECORDS)
JSON = json.dumps(RECORDS, indent=1).encode()
