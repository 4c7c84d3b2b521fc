"""A visitor's chat session: the turns as they were typed, and what retry, undo and edit do to them.

Knows no components and no model.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from chat_app.config.server import QuoteMode
from chat_app.conversation import Conversation, Message, Role
from chat_app.errors import UserError

MAX_MESSAGE_LENGTH = 20_000
MAX_TURNS = 1_000
EDITED_NOTE = "Changed by hand."


@dataclass
class ChatTurn:
    """A message of the user or a reply of the model.

    Attributes:
        note: the quiet line under a reply.
        model: which model wrote it, by its name; empty where a person did.
        original: what the model had said before a person put it right.
        kept: the name of the correction that was made of it; empty where there is none.
        is_quoted: whether it was quoted from the list that the model was taught.
        mark: the memorization mark (kind, label and why); None while it was not asked for.
    """

    role: Role
    text: str
    note: str = ""
    model: str = ""
    original: str | None = None
    kept: str = ""
    is_quoted: bool = False
    mark: dict[str, str] | None = None


@dataclass(frozen=True)
class ReturnedText:
    """A text that goes back into the box.

    Attributes:
        number: counts them, so that the page puts each one back once.
        text: what the person had said.
        was_refused: it was not answered. Then it must not be lost, whatever stands in the box by now.
    """

    number: int = 0
    text: str = ""
    was_refused: bool = False


@dataclass
class ChatSession:
    """The state of a chat.

    Attributes:
        cancel_event: set, it ends the reply under way; None while there is none. Every change by the person ends it,
            and puts the reply out of place: it is no longer the one under way.
        writing: the reply under way, and `live` the name of its stream; None and "" while there is none.
        heard: the page's name of the newest message that arrived. A page that gets no answer sends it once more.
        returned: what goes back into the box.
        version: how often it was shown: what reaches the page late must not cover what is newer.
        name: tells the page apart from which session a version comes. A page outlives the session where the server is
            restarted, and versions begin anew.
        model: the visitor's own model that answers, or None for the one in use.
        answers: whether replies are quoted from the list that the model was taught.
        visitor: who chose that; empty while it is as the server was started.
    """

    turns: list[ChatTurn] = field(default_factory=list)
    cancel_event: threading.Event | None = None
    writing: ChatTurn | None = None
    live: str = ""
    heard: str = ""
    returned: ReturnedText = ReturnedText()
    version: int = 0
    name: str = ""
    model: str | None = None
    answers: QuoteMode = "off"
    visitor: str = ""

    def next_version(self) -> int:
        """Count that the session is shown once more. The first time it gets its name: Gradio copies an empty session
        for each visitor, so a name that was given earlier would be the same for all of them."""
        self.name = self.name or secrets.token_urlsafe(9)
        self.version += 1
        return self.version

    def begin_reply(self, turn: ChatTurn | None = None, live: str = "") -> threading.Event:
        """Begin a reply and return its cancel event. An earlier reply that is still under way is cancelled.

        Args:
            turn: what grows while it is written.
            live: the name of its stream.
        """
        self._cancel_reply()
        self.cancel_event = threading.Event()
        self.writing, self.live = turn, live
        return self.cancel_event

    def end_reply(self, cancel_event: threading.Event, turn: ChatTurn) -> bool:
        """End a reply. It becomes a turn if it has any text and the person has not changed the session meanwhile.

        Returns:
            Whether it was still the reply under way.
        """
        if self.cancel_event is not cancel_event:
            return False
        self._forget_reply()
        if turn.text or turn.note:
            self.turns.append(turn)
        return True

    def refuse_reply(self, cancel_event: threading.Event, before: list[ChatTurn], said: str) -> None:
        """End a reply of which there is no text: the turns are again what they were, and `said` returns to the box.

        Nothing is done if the person has changed the session meanwhile.
        """
        if self.cancel_event is not cancel_event:
            return
        self._forget_reply()
        self.turns[:] = before
        self.return_text(said, was_refused=True)

    def return_text(self, text: str, was_refused: bool = False) -> None:
        """Put a text back into the box."""
        if text:
            self.returned = ReturnedText(self.returned.number + 1, text, was_refused)

    def stop(self) -> None:
        """Cancel the reply under way, and keep what was generated so far."""
        if self.cancel_event is not None:
            self.cancel_event.set()

    def _cancel_reply(self) -> None:
        self.stop()
        self._forget_reply()

    def _forget_reply(self) -> None:
        self.cancel_event, self.writing, self.live = None, None, ""

    def say(self, text: str) -> None:
        """Append a message of the person.

        Raises:
            UserError: it is too long, or the conversation is.
        """
        check_length(text)
        if len(self.turns) >= MAX_TURNS:
            raise UserError("This conversation is very long.", advice="Begin a new one.")
        self.turns.append(ChatTurn("user", text))
        self._cancel_reply()

    def again(self, index: object) -> None:
        """Delete the reply at `index`, or what follows the message there, so that it is answered again.

        Raises:
            UserError: there is nothing to answer.
        """
        at = self._check_index(index)
        keep = at if self.turns[at].role == "assistant" else at + 1
        if not keep:
            raise UserError("There is no message to answer.")
        del self.turns[keep:]
        self._cancel_reply()

    def take_back(self, index: object) -> str:
        """Remove the message at `index`, or the one that the reply there answers, and all after it.

        Returns:
            What the person had said, to be said otherwise.
        """
        at = self._check_index(index)
        if self.turns[at].role == "assistant" and at and self.turns[at - 1].role == "user":
            at -= 1
        text = self.turns[at].text if self.turns[at].role == "user" else ""
        del self.turns[at:]
        self._cancel_reply()
        return text

    def change(self, index: object, text: str) -> bool:
        """Replace the text of the turn at `index`. If it is a message, all later turns are deleted.

        Returns:
            Whether a reply is needed: a message was changed, not a reply.
        """
        at = self._check_index(index)
        turn = self.turns[at]
        check_length(text)
        if not text:
            raise UserError("An empty message cannot be sent.", advice="Undo it instead.")
        if turn.role == "user":
            self.turns[at] = ChatTurn("user", text)
        else:
            before = turn.text if turn.original is None else turn.original
            self.turns[at] = ChatTurn("assistant", text, EDITED_NOTE, original=before)
        del self.turns[at + 1 :]
        self._cancel_reply()
        return turn.role == "user"

    def clear(self) -> None:
        """Delete all turns, and cancel the reply under way."""
        self.turns.clear()
        self._cancel_reply()

    def build_conversation(self, system: str = "") -> Conversation:
        """Build the conversation that the model is prompted with.

        Raises:
            DataError: there is no turn yet.
        """
        head = [Message("system", system)] if system.strip() else []
        return Conversation.from_messages([*head, *(Message(turn.role, turn.text) for turn in self.turns)])

    def extract_correction(self, index: object, system: str = "") -> tuple[Conversation, ChatTurn]:
        """Return the conversation up to a reply that a person has edited, and that reply.

        Raises:
            UserError: there is no such reply, or it is still the model's own.
        """
        at = self._check_index(index)
        turn = self.turns[at]
        if turn.original is None or not at:
            raise UserError("This reply was not changed.", advice="Change it first, with the pencil under it.")
        return ChatSession(self.turns[:at]).build_conversation(system), turn

    def _check_index(self, index: object) -> int:
        """Check an index that the page sent, and return it."""
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(self.turns):
            raise UserError("That message is no longer there.")
        return index


def check_length(text: str) -> None:
    """Refuse a text that is too long for a message.

    Raises:
        UserError: with the limit.
    """
    if len(text) > MAX_MESSAGE_LENGTH:
        raise UserError(
            f"This text has {len(text):,} characters, and {MAX_MESSAGE_LENGTH:,} are allowed.", advice="Shorten it."
        )


def make_rows(turns: Iterable[ChatTurn], can_teach: bool = False) -> list[dict[str, Any]]:
    """Build the rows of a session's turns. With `can_teach`, a reply that a person has edited offers to be taught."""
    rows = []
    for turn in turns:
        row: dict[str, Any] = {"role": turn.role, "text": turn.text, "note": turn.note}
        if turn.mark is not None:
            row["mark"] = turn.mark
        if can_teach and turn.original is not None and not turn.kept:
            row["teach"] = True
        rows.append(row)
    return rows
