"""The data model of a dialogue: messages with roles, and conversations of alternating turns. No tokens, no files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from chat_app.errors import DataError

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Message:
    """One utterance.

    Attributes:
        role: "system", "user" or "assistant".
        text: what was said.
        in_loss: False excludes the message from the training loss; it is then context only.

    Raises:
        DataError: the role is unknown, or the text is not a string.
    """

    role: Role
    text: str
    in_loss: bool = True

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise DataError(f"The role '{self.role}' is unknown.", advice="Use system, user or assistant.")
        if not isinstance(self.text, str):
            raise DataError(f"The text of a message must be text, not {type(self.text).__name__}.")


@dataclass(frozen=True, slots=True)
class Conversation:
    """An optional system text, then turns of the user and the assistant that alternate.

    `from_turns` and `from_messages` build one from a plain list of texts and from messages in any order of roles.

    Attributes:
        messages: the system text, if there is one, and the turns, oldest first.

    Raises:
        DataError: there is no turn, a system text stands after the beginning, or the roles do not alternate.
    """

    messages: tuple[Message, ...]

    def __post_init__(self) -> None:
        turns = self.turns
        if not turns:
            raise DataError("The conversation is empty.", advice="Give at least one turn.")
        for number, turn in enumerate(turns, start=1):
            if turn.role == "system":
                raise DataError("System text stands only at the beginning.", where=f"turn {number}")
            if number > 1 and turn.role == turns[number - 2].role:
                raise DataError(f"Two turns of the {turn.role} in a row.", where=f"turn {number}")

    @property
    def system(self) -> str | None:
        """The system text, or None."""
        return self.messages[0].text if self.messages and self.messages[0].role == "system" else None

    @property
    def head(self) -> tuple[Message, ...]:
        """The messages before the turns: a tuple of the system message, or an empty one."""
        return self.messages[:1] if self.messages and self.messages[0].role == "system" else ()

    @property
    def turns(self) -> tuple[Message, ...]:
        """The messages without the system text."""
        messages = self.messages
        return messages[1:] if messages and messages[0].role == "system" else messages

    @property
    def replies(self) -> tuple[Message, ...]:
        """The assistant's turns, oldest first."""
        return tuple(turn for turn in self.turns if turn.role == "assistant")

    @property
    def texts(self) -> list[str]:
        """The texts of the turns, oldest first."""
        return [turn.text for turn in self.turns]

    def with_turn(self, text: str) -> Conversation:
        """A copy of the conversation with one more turn, in the role whose turn it is."""
        role: Role = "assistant" if self.turns[-1].role == "user" else "user"
        return Conversation((*self.messages, Message(role, text)))

    def keep_latest(self, turns: int) -> Conversation:
        """A copy with the system text and only the newest `turns` turns."""
        return Conversation((*self.head, *self.turns[-turns:]))

    def slice_turns(self, start: int, end: int) -> Conversation:
        """A copy with the system text and the turns [start, end)."""
        return Conversation((*self.head, *self.turns[start:end]))

    @classmethod
    def from_turns(
        cls,
        turns: Sequence[str],
        *,
        system: str | None = None,
        first: Role = "user",
        last: Role | None = None,
    ) -> Conversation:
        """A conversation from texts in alternating roles.

        Args:
            turns: the texts, oldest first.
            system: the system text.
            first: the role of the first turn; ignored if `last` is given.
            last: the role of the last turn.

        Raises:
            DataError: there are no turns.
        """
        if last is not None:
            first = last if len(turns) % 2 else _other(last)
        roles = (first, _other(first))
        body = [Message(roles[index % 2], text) for index, text in enumerate(turns)]
        return cls((Message("system", system), *body) if system is not None else tuple(body))

    @classmethod
    def from_messages(cls, messages: Iterable[Message]) -> Conversation:
        """A conversation from messages in any order of roles.

        Consecutive messages of one role are joined by line feeds into one turn, which counts in the loss only if all
        of them do. Several system texts are joined likewise and stand at the beginning.

        Raises:
            DataError: there is no message of the user or the assistant.
        """
        system: list[str] = []
        turns: list[Message] = []
        for message in messages:
            if message.role == "system":
                system.append(message.text)
            elif turns and turns[-1].role == message.role:
                before = turns.pop()
                in_loss = before.in_loss and message.in_loss
                turns.append(Message(message.role, f"{before.text}\n{message.text}", in_loss))
            else:
                turns.append(message)
        head = (Message("system", "\n".join(system)),) if system else ()
        return cls((*head, *turns))


def _other(role: Role) -> Role:
    return "assistant" if role == "user" else "user"
