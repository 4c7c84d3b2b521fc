"""The switch in the chat that quotes replies from the taught list, and what is said under such a reply."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from chat_app.config.server import QUOTE_MODES, QuoteMode
from chat_app.errors import ChatAppError
from chat_app.inference.backend import ReplyBackend, ReplyEnd
from chat_app.inference.quoting import QuotingBackend
from chat_app.services import Services
from chat_app.ui.chat.session import ChatSession, ChatTurn
from chat_app.ui.components.escape import warn
from chat_app.ui.components.events import QUICK
from chat_app.ui.components.formatting import format_count
from chat_app.ui.visitor import Visitors

CHOICES: tuple[tuple[str, QuoteMode], ...] = (
    ("The model writes", "off"),
    ("From my list where it is sure", "sure"),
    ("Only from my list", "only"),
)


class AnswerSwitch:
    """The control, and the model with the list before it.

    Args:
        services: the models and the runs that they come from.
        visitors, token: who calls.
    """

    def __init__(self, services: Services, visitors: Visitors, token: Any):
        self.services, self.visitors, self.token = services, visitors, token

    def draw(self) -> None:
        """Create the control in the current Gradio context."""
        self.control = gr.Radio(
            list(CHOICES),
            value=self.services.rules.answers,
            label="Who answers",
            info="For a shop or an FAQ: your own words, quoted where a question is nearly one that you taught.",
            visible=False,
            elem_id="answers",
        )

    def connect(self, session: Any) -> None:
        """Register the event handler."""
        self.control.input(self.choose, [self.control, session, self.token], None, **QUICK)

    def choose(self, mode: object, session: ChatSession, token: str, request: gr.Request) -> None:
        """Note who answers from the next message on."""
        try:
            session.visitor = self.visitors.identify(token, request)
        except ChatAppError as error:
            warn(error)
            return
        session.answers = next((known for known in QUOTE_MODES if known == mode), "off")

    def update(self, loaded: ReplyBackend | None, visitor: str) -> Any:
        """Show the control only for a model with a list that this visitor may have quoted."""
        return gr.Radio(visible=loaded is not None and self._may_quote(loaded.name, visitor))

    def put_before(self, loaded: ReplyBackend, session: ChatSession) -> ReplyBackend:
        """The model, with the list before it where the visitor has chosen that and may."""
        if session.answers == "off" or not self._may_quote(loaded.name, session.visitor):
            return loaded
        answers = self.services.answers.find(loaded.name)
        return loaded if answers is None else QuotingBackend(loaded, answers, session.answers)

    def _may_quote(self, model: str, visitor: str) -> bool:
        """Whether the model was taught a list of the visitor's own, or one that the server was started to quote."""
        if not self.services.answers.has(model):
            return False
        if not self.services.rules.is_shared or self.services.rules.answers != "off":
            return True
        try:
            self.services.find_model(visitor, model)
        except ChatAppError:
            return False
        return True


def describe_quote(end: ReplyEnd, turns: Sequence[ChatTurn]) -> str:
    """The quiet line under a reply that was quoted, or that says that the list has none.

    Args:
        end: of this reply.
        turns: those before it.
    """
    replies = [turn for turn in turns if turn.role == "assistant"]
    quoted = sum(turn.is_quoted for turn in replies) + (end.quoted is not None)
    share = f"Of {format_count(len(replies) + 1, 'reply', 'replies')} in this chat {quoted:,} came from it."
    if end.quoted is None:
        return f"Your list has no sure answer to this. {share}"
    return f"Quoted from your list, where it answers “{end.quoted}”. {share}"
