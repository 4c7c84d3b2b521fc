"""Options of reading, for what cannot be detected in a file. Each has a default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from chat_app.config.fields import check, setting
from chat_app.errors import SettingError

ColumnRole = Literal[
    "context", "reply", "turn", "system", "conversation", "speaker", "text", "time", "split", "record", "ignore"
]
COLUMN_ROLES: tuple[ColumnRole, ...] = get_args(ColumnRole)


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
        self.parse_roles()

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
