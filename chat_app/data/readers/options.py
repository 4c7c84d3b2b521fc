"""Options of reading, for what cannot be detected in a file. Each has a default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from chat_app.config.fields import check, setting
from chat_app.data.readers.encodings import check_encoding
from chat_app.errors import SettingError

ColumnRole = Literal[
    "context", "reply", "turn", "system", "conversation", "speaker", "text", "time", "message", "parent", "rank",
    "label", "split", "record", "ignore",
]  # fmt: skip
COLUMN_ROLES: tuple[ColumnRole, ...] = get_args(ColumnRole)
DelimiterName = Literal["comma", "semicolon", "tab", "pipe"]
DELIMITERS: dict[DelimiterName, str] = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
LAYOUTS = ("automatic", "table", "pairs", "turns", "messages", "lines", "json", "jsonl", "marked")
TABLE_LAYOUTS = ("table", "pairs", "turns", "messages")


@dataclass(frozen=True)
class ReadingOptions:
    """Options of reading files.

    Raises:
        SettingError: a value is not allowed.
    """

    columns: tuple[str, ...] = setting(
        (),
        "What a column of a table holds, as name=role (question=context, answer=reply); a column without a name is "
        "called by its number. Without this it is guessed.",
        label="Columns",
    )
    header: str = setting(
        "automatic",
        "Whether the first row of a table names its columns.",
        choices=("automatic", "yes", "no"),
        label="First row names the columns",
    )
    encoding: str = setting(
        "",
        "How a text is stored, such as utf-8, cp1250 or iso-8859-2; empty finds it out.",
        label="Encoding",
    )
    delimiter: str = setting(
        "",
        "What separates the cells of a table of text: comma, semicolon, tab, pipe, or any one sign; empty finds it "
        "out.",
        label="Delimiter",
    )
    layout: str = setting(
        "automatic",
        "How a file is laid out: a table, and in it pairs (a question and its answer a row), turns (a turn a column) "
        "or messages (one a row); lines with tabs; json; jsonl; or text with speaker marks (marked).",
        choices=LAYOUTS,
        label="Layout",
    )
    bot: str = setting(
        "", "Whose messages of a chat export the model learns to write; empty takes who answers most.", label="The bot"
    )
    pause: float = setting(
        240.0,
        "Minutes of silence after which a chat export begins a new conversation.",
        low=1,
        high=10**6,
        label="Pause in minutes",
    )
    names: str = setting(
        "keep",
        "Replace the names of the people in a chat export by Person 1, Person 2 and so on, or keep them.",
        choices=("keep", "replace"),
        label="Names",
    )
    tidy: str = setting(
        "automatic",
        "Mend the spaces and capitals of texts that were cut into words (well-known corpora): automatic, exactly as "
        "gpt2-dialogue-generation does it (legacy), or off.",
        choices=("automatic", "legacy", "off"),
        label="Text repair",
    )

    def __post_init__(self) -> None:
        check(self)
        object.__setattr__(self, "columns", tuple(self.columns))
        object.__setattr__(self, "encoding", check_encoding(self.encoding))
        self.parse_roles()
        self.parse_delimiter()

    def parse_delimiter(self) -> str:
        """The sign that separates cells; empty where it is to be found out.

        Raises:
            SettingError: neither a name nor one sign.
        """
        written = self.delimiter if self.delimiter in ("\t", " ") else self.delimiter.strip()
        sign = next((sign for name, sign in DELIMITERS.items() if name == written.lower()), written)
        sign = "\t" if sign == "\\t" else sign
        if len(sign) > 1 or sign in ('"', "'", "\n", "\r", "\0"):
            advice = f"Write one of {', '.join(DELIMITERS)}, or one sign."
            raise SettingError("delimiter", f"'{self.delimiter[:40]}' does not separate cells.", advice=advice)
        return sign

    @property
    def is_table(self) -> bool:
        """Whether the person says that the file is a table of text."""
        return self.layout in TABLE_LAYOUTS or (self.layout == "automatic" and bool(self.delimiter))

    def parse_roles(self) -> dict[str, ColumnRole]:
        """Parse `columns`.

        Returns:
            The name of a column, or its number from 1, -> its role.

        Raises:
            SettingError: an item is no pair of a name and a known role.
        """
        roles: dict[str, ColumnRole] = {}
        for pair in self.columns:
            name, _, role = pair.rpartition("=")
            if not name or role not in COLUMN_ROLES:
                advice = f"Write name=role with one of {', '.join(COLUMN_ROLES)}."
                raise SettingError("columns", f"'{pair}' is no column with a role.", advice=advice)
            roles[name.strip()] = role
        return roles
