"""Fine-tuning on corrections: the replies that a visitor has edited, and the button that starts a run on them.

The set is the visitor's own and lies on the disk. What stands in it reaches the page escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gradio as gr

from chat_app.errors import ChatAppError, DataError, ModelError
from chat_app.runs.run import Run
from chat_app.services import Services
from chat_app.system.progress import ProgressCallback
from chat_app.training.corrections_run import open_corrections, prepare_corrections_run
from chat_app.training.corrections_store import Correction
from chat_app.ui.chat.session import EDITED_NOTE, ChatSession
from chat_app.ui.components import formatting
from chat_app.ui.components.background_task import count_conversations
from chat_app.ui.components.escape import clean_text, escape, warn
from chat_app.ui.components.events import QUICK, Updates, limit_concurrency, read_payload
from chat_app.ui.components.notices import render_progress
from chat_app.ui.training.start_run import require_jobs, start_run
from chat_app.ui.visitor import Visitors

MAX_SHOWN = 100
KEPT_NOTE = "Kept, to be taught."
ABOUT = """<p class="quiet">Put a reply right with the pencil under it, then press “Teach this”. What you collect is
taught in one go, among what the model knew before, so that it forgets little.</p>"""
BUTTONS_SCRIPT = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-id]');
  if (button?.dataset.act === 'rework') trigger('rework', { id: button.dataset.id });
  if (button?.dataset.act === 'forget') trigger('forget', { id: button.dataset.id });
});
"""


class CorrectionsPanel:
    """The list of corrections, its editor and the button that teaches them.

    Args:
        services, visitors, token: the home folder and the queue, and who calls.
    """

    def __init__(self, services: Services, visitors: Visitors, token: Any):
        self.services, self.visitors, self.token = services, visitors, token

    @property
    def can_teach(self) -> bool:
        """Whether this server trains."""
        return self.services.jobs is not None

    def draw(self) -> None:
        """Create the components in the current Gradio context."""
        self.chosen = gr.State("")
        with gr.Accordion(
            "Teach by correcting", open=False, visible=self.can_teach, elem_id="corrections-panel"
        ) as self.panel:
            gr.HTML(ABOUT, apply_default_css=False)
            self.list = gr.HTML("", js_on_load=BUTTONS_SCRIPT, elem_id="corrections", apply_default_css=False)
            with gr.Column(visible=False) as self.changing:
                self.good = gr.Textbox(
                    label="What it should have said", lines=2, max_lines=8, elem_id="correction-good"
                )
                with gr.Row():
                    self.save = gr.Button("Keep", size="sm", variant="primary", elem_id="correction-save")
                    self.cancel = gr.Button("Cancel", size="sm", elem_id="correction-cancel")
            self.teach = gr.Button("Teach", variant="primary", size="md", visible=False, elem_id="corrections-teach")
            self.progress = gr.HTML("", elem_id="corrections-progress", apply_default_css=False)

    @property
    def outputs(self) -> list[Any]:
        """What `refresh` updates."""
        return [self.panel, self.list, self.teach, self.changing]

    def connect(self, view: Any, session: Any, system: Any, show: Callable[[ChatSession], Any]) -> None:
        """Register the event handlers.

        Args:
            view, talk, system: the components of the conversation and of its system text.
            show: the value of the view.
        """
        self._view, self._show = view, show
        view.teach(self.keep, [session, system, self.token], [view, *self.outputs], **QUICK)
        self.list.forget(self.remove, [session, self.token], [view, *self.outputs], **QUICK)
        self.list.rework(self.choose, [self.token], [self.chosen, self.good, self.changing], **QUICK)
        for event in (self.save.click, self.good.submit):
            event(self.change, [self.chosen, self.good, self.token], self.outputs, **QUICK)
        self.cancel.click(lambda: gr.Column(visible=False), None, [self.changing], **QUICK)

    def connect_teaching(self, session: Any, leave: Callable[[Run, str], Updates], outputs: list[Any]) -> None:
        """Register the handler of the button that teaches.

        Args:
            leave: shows a run that has just been queued; takes it and the visitor.
            outputs: what it updates.
        """
        self._show_run = leave
        self.teach.click(
            self.begin,
            [session, self.token],
            [self.progress, self.teach, *outputs],
            **limit_concurrency("reading", 2),
        )

    def refresh(self, token: str, request: gr.Request) -> Updates:
        """Show the visitor's corrections as they are on the disk."""
        try:
            return self._show_corrections(self.visitors.identify(token, request))
        except ChatAppError:
            return {self.panel: gr.skip()}

    def keep(self, event: gr.EventData, session: ChatSession, system: str, token: str, request: gr.Request) -> Updates:
        """Keep a reply that the person has edited as a correction."""
        try:
            visitor = self.visitors.identify(token, request)
            require_jobs(self.services)
            conversation, turn = session.extract_correction(read_payload(event, "index"), clean_text(system))
            added = open_corrections(self.services.paths, visitor).add(conversation, turn.original or "", turn.text)
            turn.kept, turn.note = added.id, KEPT_NOTE
        except ChatAppError as error:
            warn(error)
            return {self.panel: gr.skip()}
        return self._show_session(session) | self._show_corrections(visitor, is_open=True)

    def remove(self, event: gr.EventData, session: ChatSession, token: str, request: gr.Request) -> Updates:
        """Remove a correction. If it came from this session, its reply can be kept again."""
        name = str(read_payload(event, "id"))
        panel = self._apply(lambda known: known.remove(name), token, request)
        for turn in session.turns:
            if turn.kept == name:
                turn.kept, turn.note = "", EDITED_NOTE
        return self._show_session(session) | panel

    def _show_session(self, session: ChatSession) -> Updates:
        """Show the conversation."""
        return {self._view: self._show(session)}

    def choose(self, event: gr.EventData, token: str, request: gr.Request) -> Updates:
        """Open a correction in the editor."""
        try:
            known = open_corrections(self.services.paths, self.visitors.identify(token, request)).list()
        except ChatAppError as error:
            warn(error)
            return {self.chosen: gr.skip()}
        correction = next((correction for correction in known if correction.id == read_payload(event, "id")), None)
        if correction is None:
            warn("This correction is no longer there.")
            return {self.chosen: gr.skip()}
        return {
            self.chosen: correction.id,
            self.good: gr.Textbox(value=correction.good, info=None),
            self.changing: gr.Column(visible=True),
        }

    def change(self, chosen: str, good: str, token: str, request: gr.Request) -> Updates:
        """Save the edited text of a correction."""
        return self._apply(lambda known: known.change(str(chosen), clean_text(good)), token, request)

    def _apply(self, act: Callable[[Any], Any], token: str, request: gr.Request) -> Updates:
        try:
            visitor = self.visitors.identify(token, request)
            act(open_corrections(self.services.paths, visitor))
            return self._show_corrections(visitor)
        except ChatAppError as error:
            warn(error)
            return {self.panel: gr.skip()}

    def _show_corrections(self, visitor: str, is_open: bool | None = None) -> Updates:
        known = open_corrections(self.services.paths, visitor).list()
        label = f"Teach by correcting ({len(known)})" if known else "Teach by correcting"
        panel = gr.update(label=label) if is_open is None else gr.update(label=label, open=is_open)
        button = gr.Button(f"Teach {'these ' if len(known) > 1 else 'this '}{_name_count(known)}", visible=bool(known))
        return {
            self.panel: panel,
            self.list: render_corrections(known),
            self.teach: button,
            self.changing: gr.Column(visible=False),
        }

    def begin(self, session: ChatSession, token: str, request: gr.Request) -> Iterator[Updates]:
        """Prepare a run on the corrections and submit it to the queue."""

        def prepare(progress: ProgressCallback) -> Run:
            visitor = self.visitors.identify(token, request)
            model, known = self._get_model(session, visitor), open_corrections(self.services.paths, visitor).list()
            if not known:
                raise DataError("There are no corrections to teach.", advice="Correct a reply first.")
            report = count_conversations(progress, "Preparing")
            return prepare_corrections_run(model, known, self.services.paths, about={"by": visitor}, progress=report)

        run = yield from start_run(
            self.services,
            prepare,
            lambda text: {self.progress: render_progress(text), self.teach: gr.Button(interactive=False)},
        )
        left = {} if run is None else self._show_run(run, self.visitors.identify(token, request))
        yield {**left, self.progress: "", self.teach: gr.Button(interactive=True)}

    def _get_model(self, session: ChatSession, visitor: str) -> str:
        """Return the model that answers in this session: the one to be corrected.

        Raises:
            ModelError, RunError: there is none, or it is not this visitor's.
        """
        if session.model is not None:
            return self.services.find_run(visitor, session.model).id
        loaded = self.services.models.current
        if loaded is None:
            raise ModelError("No model is loaded.", advice="Choose one first.")
        return str(loaded.name)


def render_corrections(corrections: Sequence[Correction]) -> str:
    """Render the newest corrections with their buttons."""
    rows = "".join(
        f'<li><p class="asked" dir="auto">{escape(_shorten(correction.prompt))}</p>'
        f'<p class="was" dir="auto"><s>{escape(_shorten(correction.bad)) or "(nothing)"}</s></p>'
        f'<p dir="auto">{escape(_shorten(correction.good))}</p><p class="acts">'
        f'<button type="button" data-act="rework" data-id="{escape(correction.id)}">Change</button>'
        f'<button type="button" data-act="forget" data-id="{escape(correction.id)}">Remove</button></p></li>'
        for correction in list(reversed(corrections))[:MAX_SHOWN]
    )
    more = f'<p class="quiet">and {len(corrections) - MAX_SHOWN} more</p>' if len(corrections) > MAX_SHOWN else ""
    return f'<ul class="corrections">{rows}</ul>{more}' if rows else ""


def _name_count(corrections: Sequence[Correction]) -> str:
    return formatting.format_count(len(corrections), "correction") if len(corrections) != 1 else "correction"


def _shorten(text: str) -> str:
    return text if len(text) <= 240 else text[:239] + "…"
