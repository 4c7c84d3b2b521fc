"""The roles of a table's columns: a guess from names and cells, and the user's options, which override it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from chat_app.data.readers.options import ColumnRole, ReadingOptions
from chat_app.data.readers.tables import header_words, talk, thread_columns
from chat_app.data.readers.tables.cells import PARTS, CellKind, detect_kind, format_cell, parse_list, parse_verdict
from chat_app.data.readers.tables.header_words import Meaning
from chat_app.data.readers.types import quote_text
from chat_app.errors import DataError

LISTED_COLUMNS = 30
# What nobody says, whatever the column is called, if all of its rows are like that.
NEVER_SAID: tuple[CellKind, ...] = ("link", "date", "address", "file", "id")
NO_TURNS: tuple[CellKind, ...] = (*NEVER_SAID, "running", "number", "label", "list", "split", "empty", "verdict")
FEWEST_ROWS = 3
BESIDE: tuple[ColumnRole, ...] = ("system", "split", "label")
# Which roles go together: what a person says decides for one of these, and the guess may only complete it.
LAYOUTS: tuple[tuple[ColumnRole, ...], ...] = (
    ("record",),
    ("turn",),
    ("text", "speaker", "conversation", "time", "message", "parent", "rank"),
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


def guess_roles(names: Sequence[str], rows: Sequence[Sequence[Any]], layout: str = "automatic") -> list[ColumnRole]:
    """The role of every column, from its name and the cells of the first rows, and the layout if a person says it."""
    if layout in ("pairs", "turns", "messages"):
        return force_layout(layout, names, rows)
    columns = _turn_rows(names, rows)
    return _Guess(names, columns).guess()


def force_layout(layout: str, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[ColumnRole]:
    """The roles where the person says only how a table is laid out: pairs, turns or messages in the order of columns.

    Columns that hold no text are passed over, as long as enough others are left.
    """
    columns = _turn_rows(names, rows)
    texts = [position for position, cells in enumerate(columns) if detect_kind(cells) not in NO_TURNS]
    texts = texts if len(texts) > 1 else list(range(len(names)))
    roles: list[ColumnRole] = ["ignore"] * len(names)
    if layout == "turns":
        for position in texts:
            roles[position] = "turn"
        return roles
    pair: tuple[ColumnRole, ColumnRole] = ("context", "reply") if layout == "pairs" else ("speaker", "text")
    for position, role in zip(texts[-2:] if layout == "messages" else texts, pair, strict=False):
        roles[position] = role
    return roles


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


def _turn_rows(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """The cells of each column."""
    return [[row[position] for row in rows if position < len(row)] for position in range(len(names))]


class _Guess:
    """Assigns roles to the columns of a table."""

    def __init__(self, names: Sequence[str], columns: list[list[Any]]):
        self.names, self.columns = names, columns
        self.meanings: list[Meaning | None] = [header_words.find_meaning(name) for name in names]
        self.named = any(name.strip() for name in names)
        self.kinds = [detect_kind(cells) for cells in columns]
        self.found: list[ColumnRole] = ["ignore"] * len(columns)

    def guess(self) -> list[ColumnRole]:
        for position, (meaning, kind) in enumerate(zip(self.meanings, self.kinds, strict=True)):
            if meaning == "system" and kind not in ("list", "running", "number"):
                self.found[position] = "system"
            elif kind == "split" and (meaning == "split" or (not self.named and len(self.columns) > 2)):
                self.found[position] = "split"
            elif meaning == "label" and (kind == "verdict" or self._holds_verdicts(position)):
                self.found[position] = "label"
        done = (
            self._find_record()
            or self._find_pairs()
            or self._find_numbered_turns()
            or self._find_threads()
            or self._find_messages()
            or self._complete_pair()
        )
        if not done:
            self._guess_by_cells()
        return self.found

    def _holds_verdicts(self, position: int) -> bool:
        """Whether numbers are verdicts, too: every one is 0 or 1."""
        texts = [text for text in self._get_texts(position) if text.strip()]
        return bool(texts) and all(parse_verdict(text) is not None for text in texts)

    def _find_free(self, *meanings: Meaning) -> list[int]:
        return [
            position
            for position, meaning in enumerate(self.meanings)
            if meaning in meanings and self.found[position] == "ignore"
        ]

    def _find_said(self, *meanings: Meaning) -> list[int]:
        """Columns of those meanings, without those that hold only what nobody says: addresses, dates, files."""
        return [
            position
            for position in self._find_free(*meanings)
            if self.kinds[position] not in NEVER_SAID or len(self.columns[position]) < FEWEST_ROWS
        ]

    def _assign(self, positions: list[int], role: ColumnRole) -> bool:
        for position in positions:
            self.found[position] = role
        return bool(positions)

    def _find_record(self) -> bool:
        lists = [position for position in self._find_whole() if self.meanings[position] != "rejected"]
        named = [position for position in lists if self.meanings[position] == "dialog"]
        if not named:
            pair = self._find_free("context") and self._find_free("reply")
            named = [position for position in lists if self._holds_messages(position) or not (self.named or pair)]
        if not named and len(lists) == 1 and not (self._find_free("context") and self._find_free("reply")):
            named = lists
        return self._assign(named[:1], "record")

    def _find_whole(self) -> list[int]:
        """Columns whose cells hold several turns: lists, or texts with the marks of speakers."""
        return [position for position, kind in enumerate(self.kinds) if kind in ("list", "marked")]

    def _holds_messages(self, position: int) -> bool:
        """Whether the cells of a column are messages with a role, or texts with marks of both sides."""
        if self.kinds[position] == "marked":
            return True
        cells = (parse_list(cell) for cell in self.columns[position])
        first = next((cell for cell in cells if isinstance(cell, list) and cell), None)
        return first is not None and isinstance(first[0], dict) and any(key in first[0] for key in ("role", "from"))

    def _find_pairs(self) -> bool:
        contexts, replies = self._find_said("context"), self._find_said("reply")
        users, assistants = self._find_said("user"), self._find_said("assistant")
        if not (contexts and replies) and users and assistants:
            if len(users) + len(assistants) > 2:
                return self._assign(users + assistants, "turn")
            contexts, replies = users, assistants
        if not contexts or not replies:
            return False
        if len(contexts) > 1 and len(replies) > 1 and self._is_numbered(contexts + replies):
            return self._assign(contexts + replies, "turn")  # question 1, answer 1, question 2, answer 2
        strong = [position for position in contexts if not header_words.is_weak_context(self.names[position])]
        self._assign([one for one in strong if self.kinds[one] != "running"] or strong or contexts, "context")
        self._assign(replies[:1], "reply")
        dialogs = [position for position in self._find_free("dialog") if self._repeats(position)]
        if dialogs and not any(self.kinds[position] == "list" for position in contexts):
            self._assign(dialogs[:1], "conversation")
            self._assign(self._find_free("time")[:1], "time")
        return True

    def _is_numbered(self, positions: list[int]) -> bool:
        """Whether the names of columns come again and again: with numbers behind them, or as they are."""
        names = [header_words.normalize_name(self.names[position]) for position in positions]
        return len(set(names)) < len(names) or all(header_words.split_number(name)[1] is not None for name in names[1:])

    def _find_numbered_turns(self) -> bool:
        turns = [position for position in self._find_said("turn") if self.kinds[position] not in ("running", "number")]
        return len(turns) > 1 and self._assign(turns, "turn")

    def _find_threads(self) -> bool:
        """Messages that say which message they answer."""
        texts = [
            position for position in self._find_said("text", "context") if self.kinds[position] in ("text", "label")
        ]
        found = thread_columns.find_ids(self.names, self.meanings, self.columns) if texts else None
        if found is None:
            return False
        message, parent = found
        speakers = [one for one, kind in enumerate(self.kinds) if kind == "verdict" and self._tells_side(one)]
        speakers += [one for one in self._find_free("speaker", "user", "assistant") if one not in found]
        speakers.sort(key=lambda one: not (self._tells_side(one) or self.kinds[one] == "speaker"))
        self._assign([max((one for one in texts if one not in (*found, *speakers[:1])), key=self._mean_length)], "text")
        self._assign([message], "message")
        self._assign([parent], "parent")
        self._assign(speakers[:1], "speaker")
        self._assign([one for one in self._find_free("time") if one not in found][:1], "time")
        self._assign([one for one in self._find_free("rank") if self.kinds[one] in ("number", "running")][:1], "rank")
        return True

    def _tells_side(self, position: int) -> bool:
        return header_words.tells_side(self.names[position])

    def _find_messages(self) -> bool:
        speakers = self._find_free("speaker") or self._find_free("user", "assistant")
        telling = [position for position, kind in enumerate(self.kinds) if kind == "speaker"]
        speakers = [position for position in telling if position in speakers] or speakers or telling
        texts = [position for position in self._find_free("text", "turn") if self.kinds[position] == "text"]
        texts = texts or [
            position
            for position in self._find_said("text")
            if self.kinds[position] not in ("list", "running", "number")
        ]
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
        """A reply without a context by name, or the other way round, beside the one column of text that can be it."""
        contexts, replies = self._find_said("context", "user"), self._find_said("reply", "assistant")
        if contexts and replies:
            return self._assign(contexts, "context") and self._assign(replies[:1], "reply")
        others = [position for position in self._find_texts() if position not in (*contexts, *replies)]
        named = [position for position in others if self.meanings[position] in ("text", "context", "reply")]
        others = named[:1] or [position for position in others if self._is_other_side(position)]
        if replies and len(others) > 1:
            others = [position for position in others if self._share_asked(position) >= talk.SAID_SHARE]
        if contexts:
            others = [position for position in others if position > contexts[0]]
        if len(others) != 1:
            return False
        if replies:
            return self._assign(others, "context") and self._assign(replies[:1], "reply")
        return bool(contexts) and self._assign(contexts, "context") and self._assign(others, "reply")

    def _is_other_side(self, position: int) -> bool:
        texts = self._get_texts(position)
        return not talk.is_constant(texts) and talk.share_said(texts) >= talk.SAID_SHARE

    def _guess_by_cells(self) -> None:
        """Without a word that helps, columns are turns only if what stands in them looks like something said."""
        texts = [position for position in self._find_texts() if not talk.is_constant(self._get_texts(position))]
        said = [position for position in texts if talk.share_said(self._get_texts(position)) >= talk.SAID_SHARE]
        if self.named:
            # Titles, summaries and reviews are sentences too: only questions say which column is which.
            if len(said) == 2 and self._share_asked(said[0]) >= talk.SAID_SHARE:
                self._assign_pair(said)
        elif len(texts) == 2:
            together = [" ".join(map(format_cell, cells)) for cells in zip(*map(self._get_texts, texts), strict=False)]
            if said or talk.share_said(together) >= talk.PAIR_SHARE:
                self._assign_pair(texts)
        elif len(said) == 2:
            self._assign_pair(said)
        elif len(texts) > 2 and 2 * len(said) >= len(texts):
            self._assign(texts, "turn")

    def _assign_pair(self, positions: list[int]) -> None:
        self._assign(positions[:1], "context")
        self._assign(positions[1:2], "reply")

    def _find_texts(self) -> list[int]:
        """Columns with something that was said, whose name says nothing against it."""
        against = ("id", "time", "split", "system", "speaker", "parent", "rank", "label", "rejected")
        return [
            position
            for position, kind in enumerate(self.kinds)
            if kind not in NO_TURNS and self.meanings[position] not in against and self.found[position] == "ignore"
        ]

    def _get_texts(self, position: int) -> list[str]:
        return [format_cell(cell) for cell in self.columns[position]]

    def _share_asked(self, position: int) -> float:
        return talk.share_asked(self._get_texts(position))

    def _repeats(self, position: int) -> bool:
        texts = self._get_texts(position)
        return len(set(texts)) < len(texts) and not set(texts) <= PARTS.keys()

    def _mean_length(self, position: int) -> float:
        texts = [len(format_cell(cell)) for cell in self.columns[position]]
        return sum(texts) / len(texts) if texts else 0.0
