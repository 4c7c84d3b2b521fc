"""The roles of a table's columns: a guess from names and cells, and the user's options, which override it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from chat_app.data.readers.options import ColumnRole, ReadingOptions
from chat_app.data.readers.tables import header_words
from chat_app.data.readers.tables.cells import PARTS, CellKind, detect_kind, format_cell, parse_list
from chat_app.data.readers.tables.header_words import Meaning
from chat_app.data.readers.types import quote_text
from chat_app.errors import DataError

LISTED_COLUMNS = 30
NO_TURNS: tuple[CellKind, ...] = ("running", "link", "date", "number", "label", "list", "split", "empty")
BESIDE: tuple[ColumnRole, ...] = ("system", "split")
# Roles that go together. The user's options select one of these layouts, and the guess may only complete it.
LAYOUTS: tuple[tuple[ColumnRole, ...], ...] = (
    ("record",),
    ("turn",),
    ("text", "speaker", "conversation", "time"),
    ("context", "reply", "conversation", "time"),
)


def label_columns(names: Sequence[str]) -> list[str]:
    """The label of each column: its name, or its number from 1 if the name is empty or not unique."""
    clean = [" ".join(name.replace("\ufeff", "").split()) for name in names]
    counts = Counter(clean)
    return [name if name and counts[name] == 1 else str(number) for number, name in enumerate(clean, start=1)]


def list_labels(names: Sequence[str]) -> str:
    """The labels of the first columns, for a sentence."""
    return ", ".join(quote_text(label) for label in label_columns(names)[:LISTED_COLUMNS]) or "none"


def guess_roles(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[ColumnRole]:
    """Guess the role of each column from its name and the cells of the first rows."""
    columns = [[row[position] for row in rows if position < len(row)] for position in range(len(names))]
    return _Guess(
        [header_words.find_meaning(name) for name in names], columns, any(name.strip() for name in names)
    ).guess()


def apply_options(
    names: Sequence[str], guess: list[ColumnRole], options: ReadingOptions, file: str
) -> list[ColumnRole]:
    """Override the guessed roles by those in the options.

    Raises:
        DataError: the options name a column that the table does not have.
    """
    wishes = {_find_position(names, key, file): role for key, role in options.parse_roles().items()}
    if not wishes:
        return guess
    said = set(wishes.values()) - {"ignore", *BESIDE}
    layout = next((one for one in LAYOUTS if said and said <= set(one)), ())
    roles: list[ColumnRole] = []
    for position, role in enumerate(guess):
        if position in wishes:
            role = wishes[position]
        elif said and role not in BESIDE and (role not in layout or role in said or layout == ("turn",)):
            role = "ignore"
        roles.append(role)
    return roles


def _find_position(names: Sequence[str], key: str, file: str) -> int:
    wanted = " ".join(key.replace("\ufeff", "").split()).casefold()
    known = [" ".join(name.replace("\ufeff", "").split()).casefold() for name in names]
    if wanted in known:
        return known.index(wanted)
    if wanted.isascii() and wanted.isdecimal() and len(wanted) < 9 and 1 <= int(wanted) <= len(names):
        return int(wanted) - 1
    raise DataError(
        f"This table has no column {quote_text(key)}.",
        where=file or None,
        advice=f"Its columns are {list_labels(names)}.",
    )


class _Guess:
    """Assigns roles to the columns of a table."""

    def __init__(self, meanings: list[Meaning | None], columns: list[list[Any]], named: bool):
        self.meanings, self.columns, self.named = meanings, columns, named
        self.kinds = [detect_kind(cells) for cells in columns]
        self.found: list[ColumnRole] = ["ignore"] * len(columns)

    def guess(self) -> list[ColumnRole]:
        for position, (meaning, kind) in enumerate(zip(self.meanings, self.kinds, strict=True)):
            if meaning == "system" and kind not in ("list", "running", "number"):
                self.found[position] = "system"
            elif kind == "split" and (meaning == "split" or (not self.named and len(self.columns) > 2)):
                self.found[position] = "split"
        done = (
            self._find_record()
            or self._find_pairs()
            or self._find_numbered_turns()
            or self._find_messages()
            or self._complete_pair()
        )
        if not done:
            self._guess_by_cells()
        return self.found

    def _find_free(self, *meanings: Meaning) -> list[int]:
        return [
            position
            for position, meaning in enumerate(self.meanings)
            if meaning in meanings and self.found[position] == "ignore"
        ]

    def _assign(self, positions: list[int], role: ColumnRole) -> bool:
        for position in positions:
            self.found[position] = role
        return bool(positions)

    def _find_record(self) -> bool:
        lists = [position for position, kind in enumerate(self.kinds) if kind == "list"]
        named = [position for position in lists if self.meanings[position] == "dialog"]
        if not named:
            pair = self._find_free("context") and self._find_free("reply")
            named = [position for position in lists if self._holds_messages(position) or not (self.named or pair)]
        if not named and len(lists) == 1 and not (self._find_free("context") and self._find_free("reply")):
            named = lists
        return self._assign(named[:1], "record")

    def _holds_messages(self, position: int) -> bool:
        """Whether the lists in a column are messages with roles."""
        cells = (parse_list(cell) for cell in self.columns[position])
        first = next((cell for cell in cells if isinstance(cell, list) and cell), None)
        return first is not None and isinstance(first[0], dict) and any(key in first[0] for key in ("role", "from"))

    def _find_pairs(self) -> bool:
        contexts, replies = self._find_free("context"), self._find_free("reply")
        users, assistants = self._find_free("user"), self._find_free("assistant")
        if not (contexts and replies) and users and assistants:
            if len(users) + len(assistants) > 2:
                return self._assign(users + assistants, "turn")
            contexts, replies = users, assistants
        if not contexts or not replies:
            return False
        if len(contexts) > 1 and len(replies) > 1:  # question 1, answer 1, question 2, answer 2
            return self._assign(contexts + replies, "turn")
        self._assign(contexts, "context")
        self._assign(replies[:1], "reply")
        dialogs = [position for position in self._find_free("dialog") if self._repeats(position)]
        if dialogs and not any(self.kinds[position] == "list" for position in contexts):
            self._assign(dialogs[:1], "conversation")
            self._assign(self._find_free("time")[:1], "time")
        return True

    def _find_numbered_turns(self) -> bool:
        turns = [position for position in self._find_free("turn") if self.kinds[position] not in ("running", "number")]
        return len(turns) > 1 and self._assign(turns, "turn")

    def _find_messages(self) -> bool:
        speakers = self._find_free("speaker") or self._find_free("user", "assistant")
        telling = [position for position, kind in enumerate(self.kinds) if kind == "speaker"]
        speakers = [position for position in telling if position in speakers] or speakers or telling
        texts = [position for position in self._find_free("text", "turn") if self.kinds[position] == "text"]
        texts = texts or [position for position in self._find_free("text") if self.kinds[position] != "list"]
        texts = [position for position in texts if position not in speakers]
        if not texts and telling:
            texts = [position for position in self._find_texts() if position not in speakers]
        dialogs = self._find_free("dialog")
        if not dialogs:
            ids = self._find_free("id") if self.named else list(range(len(self.kinds)))
            ids = [position for position in ids if position not in (*speakers, *texts)]
            dialogs = [position for position in ids if self.kinds[position] != "empty" and self._repeats(position)]
        if not texts or not (speakers or (dialogs and self.named)):
            return False
        self._assign([max(texts, key=self._mean_length)], "text")
        self._assign(speakers[:1], "speaker")
        self._assign(dialogs[:1], "conversation")
        self._assign([*self._find_free("time"), *self._find_counting("turn")][:1], "time")
        return True

    def _find_counting(self, *meanings: Meaning) -> list[int]:
        return [position for position in self._find_free(*meanings) if self.kinds[position] in ("running", "number")]

    def _complete_pair(self) -> bool:
        """Complete a pair of which only the reply or only the context has a telling name, by a column of text."""
        contexts, replies = self._find_free("context", "user"), self._find_free("reply", "assistant")
        others = [position for position in self._find_texts() if position not in (*contexts, *replies)]
        if replies and not contexts and others:
            return self._assign(others[:1], "context") and self._assign(replies[:1], "reply")
        if contexts and not replies and others:
            return self._assign(contexts, "context") and self._assign(others[:1], "reply")
        return False

    def _guess_by_cells(self) -> None:
        free = [position for position, role in enumerate(self.found) if role == "ignore"]
        texts = [position for position in self._find_texts() if position in free]
        if len(texts) < 2:
            unlike: tuple[CellKind, ...] = ("running", "link", "date", "split", "list", "empty")
            against = ("id", "time", "split", "speaker")
            texts = [
                position
                for position in free
                if self.kinds[position] not in unlike and self.meanings[position] not in against
            ]
        if len(texts) < 2 and len(free) == 2:
            texts = free
        if len(texts) == 2:
            self._assign(texts[:1], "context")
            self._assign(texts[1:], "reply")
        elif len(texts) > 2:
            self._assign(texts, "turn")

    def _find_texts(self) -> list[int]:
        """The free columns of text whose names do not say otherwise."""
        against = ("id", "time", "split", "system", "speaker")
        return [
            position
            for position, kind in enumerate(self.kinds)
            if kind not in NO_TURNS and self.meanings[position] not in against and self.found[position] == "ignore"
        ]

    def _repeats(self, position: int) -> bool:
        texts = [format_cell(cell) for cell in self.columns[position]]
        return len(set(texts)) < len(texts) and not set(texts) <= PARTS.keys()

    def _mean_length(self, position: int) -> float:
        texts = [len(format_cell(cell)) for cell in self.columns[position]]
        return sum(texts) / len(texts) if texts else 0.0
