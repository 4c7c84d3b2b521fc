"""Messages and conversations: who said what, in order. Knows nothing of tokens or files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from chat_app.errors import DataError

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Message:
    """One utterance. `in_loss=False` keeps a reply as context, outside the training loss."""

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

    Build one with `from_turns` or `from_messages`, which bring what people write into this shape.

    Raises:
        DataError: no turn at all, or roles that do not alternate.
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
        """What stands before the turns: the system text as a message, or nothing."""
        return self.messages[:1] if self.messages and self.messages[0].role == "system" else ()

    @property
    def turns(self) -> tuple[Message, ...]:
        """The messages without the system text."""
        messages = self.messages
        return messages[1:] if messages and messages[0].role == "system" else messages

    @property
    def replies(self) -> tuple[Message, ...]:
        """What the assistant said."""
        return tuple(turn for turn in self.turns if turn.role == "assistant")

    @property
    def texts(self) -> list[str]:
        """The texts of the turns, oldest first."""
        return [turn.text for turn in self.turns]

    def with_turn(self, text: str) -> Conversation:
        """The same conversation and one more turn, said by whoever is next."""
        role: Role = "assistant" if self.turns[-1].role == "user" else "user"
        return Conversation((*self.messages, Message(role, text)))

    def keep_latest(self, turns: int) -> Conversation:
        """The system text and the newest `turns` turns."""
        return Conversation((*self.head, *self.turns[-turns:]))

    def slice_turns(self, start: int, end: int) -> Conversation:
        """The system text and the turns from `start` up to `end`."""
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
        """Turns without names. The user begins, unless `last` says who spoke the last turn."""
        if last is not None:
            first = last if len(turns) % 2 else _other(last)
        second = _other(first)
        head = (Message("system", system),) if system is not None else ()
        body = (Message(first if index % 2 == 0 else second, text) for index, text in enumerate(turns))
        return cls((*head, *body))

    @classmethod
    def from_messages(cls, messages: Iterable[Message]) -> Conversation:
        """Messages in any order of roles.

        Consecutive messages of one speaker become one turn, a line each; so do several system texts, which then stand
        at the beginning.
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
