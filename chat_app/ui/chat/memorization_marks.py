"""Memorization marks in the chat: each reply of a trained model is marked as copied or new while the switch is on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from chat_app.errors import ChatAppError
from chat_app.evaluation.memorization import RunMemorizationIndex
from chat_app.runs.run import Run
from chat_app.services import Services
from chat_app.system.progress import ProgressCallback
from chat_app.ui.chat.session import ChatSession, ChatTurn
from chat_app.ui.components.background_task import BackgroundTask
from chat_app.ui.components.escape import warn
from chat_app.ui.components.events import limit_concurrency
from chat_app.ui.visitor import Visitors


class MemorizationMarks:
    """The switch, and the search behind the marks.

    Args:
        services, visitors, token: whose runs, and who calls.
    """

    def __init__(self, services: Services, visitors: Visitors, token: Any):
        self.services, self.visitors, self.token = services, visitors, token

    def draw(self) -> None:
        """Create the switch in the current Gradio context."""
        self.switch = gr.Checkbox(
            False,
            label="Copied?",
            info="Shows under each reply whether it stands in what this model learned.",
            visible=False,
            elem_id="copied",
        )

    def update_switch(self, loaded: Any | None, visitor: str) -> Any:
        """Show the switch only for a model that was trained here."""
        return gr.Checkbox(visible=loaded is not None and self._run(loaded.name, visitor) is not None)

    def connect(self, replies: list[Any], session: Any, view: Any, show: Callable[[ChatSession], Any]) -> None:
        """Register the event handlers.

        Args:
            replies: the events after which there is a new reply.
            talk, view: the components of the conversation.
            show: the value of the view.
        """
        self._show = show
        long: dict[str, Any] = {
            "inputs": [self.switch, session, self.token],
            "outputs": [view],
            **limit_concurrency("copied", 4),
        }
        self.switch.input(self.mark, trigger_mode="always_last", **long)
        for reply in replies:
            reply.then(self.mark, **long)

    def mark(self, is_on: bool, session: ChatSession, token: str, request: gr.Request) -> Iterator[Any]:
        """Mark the replies that have no mark yet, or take all marks away."""
        if not is_on:
            is_marked = any(turn.mark for turn in session.turns)
            for turn in session.turns:
                turn.mark = None
            # A generator that ends without a yield would empty the view.
            yield self._show(session) if is_marked else gr.skip()
            return
        try:
            visitor = self.visitors.identify(token, request)
            waiting = [turn for turn in session.turns if turn.model and turn.mark is None and turn.role == "assistant"]
            for name in dict.fromkeys(turn.model for turn in waiting):
                run = self._run(name, visitor)
                if run is not None:
                    yield from self._find_copies(run, [turn for turn in waiting if turn.model == name])
        except ChatAppError as error:
            warn(error)
        yield self._show(session)

    def _find_copies(self, run: Run, turns: list[ChatTurn]) -> Iterator[Any]:
        """Search the training data of a run for these replies. Building the index may take a while."""

        def look(progress: ProgressCallback) -> list[dict[str, str]]:
            index = RunMemorizationIndex.open(run, self.services.paths, progress)
            copies = [index.classify_reply(turn.text) for turn in turns]
            return [{"kind": finding.kind, "label": finding.label, "why": finding.sentence} for finding in copies]

        task = BackgroundTask(look)
        for _ in task:
            yield gr.skip()
        for turn, mark in zip(turns, task.result(), strict=True):
            turn.mark = mark

    def _run(self, name: str, visitor: str) -> Run | None:
        try:
            run = self.services.find_run(visitor, name)
        except ChatAppError:
            return None
        return run if (run.data / "train.jsonl").is_file() else None
