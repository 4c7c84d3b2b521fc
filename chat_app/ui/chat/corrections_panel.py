"""Teaching by correcting: the replies that a visitor has put right, and the press that teaches them.

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
from chat_app.training.corrections_run import corrections_of, prepare_corrections_run
from chat_app.training.corrections_store import Correction
from chat_app.ui.chat.session import CHANGED, Talk
from chat_app.ui.components import formatting as words
from chat_app.ui.components.background_task import count_conversations
from chat_app.ui.components.escape import clean, shown, warn
from chat_app.ui.components.events import QUICK, Updates, given, slow
from chat_app.ui.components.notices import working
from chat_app.ui.training.start_run import begun, jobs_of
from chat_app.ui.visitor import Visitors

SHOWN = 100
KEPT = "Kept, to be taught."
HOW = """<p class="quiet">Put a reply right with the pencil under it, then press “Teach this”. What you collect is
taught in one go, among what the model knew before, so that it forgets little.</p>"""
PICK = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-id]');
  if (button?.dataset.act === 'rework') trigger('rework', { id: button.dataset.id });
  if (button?.dataset.act === 'forget') trigger('forget', { id: button.dataset.id });
});
"""


class CorrectionsPanel:
    """The components and what they do.

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
        """Put the components where the page is being built."""
        self.chosen = gr.State("")
        with gr.Accordion(
            "Teach by correcting", open=False, visible=self.can_teach, elem_id="corrections-panel"
        ) as self.panel:
            gr.HTML(HOW, apply_default_css=False)
            self.list = gr.HTML("", js_on_load=PICK, elem_id="corrections", apply_default_css=False)
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
        """What `look` updates."""
        return [self.panel, self.list, self.teach, self.changing]

    def connect(self, view: Any, talk: Any, system: Any, show: Callable[[Talk], Any]) -> None:
        """Join the events.

        Args:
            view, talk, system: the components of the conversation and of its system text.
            show: the value of the view.
        """
        self._talk_view, self._show = view, show
        view.teach(self.keep, [talk, system, self.token], [view, *self.outputs], **QUICK)
        self.list.forget(self.remove, [talk, self.token], [view, *self.outputs], **QUICK)
        self.list.rework(self.choose, [self.token], [self.chosen, self.good, self.changing], **QUICK)
        for event in (self.save.click, self.good.submit):
            event(self.change, [self.chosen, self.good, self.token], self.outputs, **QUICK)
        self.cancel.click(lambda: gr.Column(visible=False), None, [self.changing], **QUICK)

    def connect_teaching(self, talk: Any, leave: Callable[[Run, str], Updates], outputs: list[Any]) -> None:
        """Join the press that teaches.

        Args:
            leave: shows a run that has just been queued; takes it and the visitor.
            outputs: what it updates.
        """
        self._leave = leave
        self.teach.click(
            self.begin,
            [talk, self.token],
            [self.progress, self.teach, *outputs],
            **slow("reading", 2),
        )

    def look(self, token: str, request: gr.Request) -> Updates:
        """The visitor's corrections, as they are on the disk."""
        try:
            return self._view(self.visitors.name(token, request))
        except ChatAppError:
            return {self.panel: gr.skip()}

    def keep(self, event: gr.EventData, talk: Talk, system: str, token: str, request: gr.Request) -> Updates:
        """The person wants a reply that they have put right to be taught."""
        try:
            visitor = self.visitors.name(token, request)
            jobs_of(self.services)
            conversation, turn = talk.corrected(given(event, "index"), clean(system))
            added = corrections_of(self.services.paths, visitor).add(conversation, turn.original or "", turn.text)
            turn.kept, turn.note = added.id, KEPT
        except ChatAppError as error:
            warn(error)
            return {self.panel: gr.skip()}
        return self._show_talk(talk) | self._view(visitor, is_open=True)

    def remove(self, event: gr.EventData, talk: Talk, token: str, request: gr.Request) -> Updates:
        """The person takes one out; where it came from this conversation, it can be kept again."""
        name = str(given(event, "id"))
        panel = self._changed(lambda known: known.remove(name), token, request)
        for turn in talk.turns:
            if turn.kept == name:
                turn.kept, turn.note = "", CHANGED
        return self._show_talk(talk) | panel

    def _show_talk(self, talk: Talk) -> Updates:
        """Show the conversation, unless a reply is being written: then that keeps the page up to date."""
        return {} if talk.writing is not None else {self._talk_view: self._show(talk)}

    def choose(self, event: gr.EventData, token: str, request: gr.Request) -> Updates:
        """The person wants to change one."""
        try:
            known = corrections_of(self.services.paths, self.visitors.name(token, request)).list()
        except ChatAppError as error:
            warn(error)
            return {self.chosen: gr.skip()}
        one = next((one for one in known if one.id == given(event, "id")), None)
        if one is None:
            warn("This correction is no longer there.")
            return {self.chosen: gr.skip()}
        return {
            self.chosen: one.id,
            self.good: gr.Textbox(value=one.good, info=None),
            self.changing: gr.Column(visible=True),
        }

    def change(self, chosen: str, good: str, token: str, request: gr.Request) -> Updates:
        """What one should have been is another text now."""
        return self._changed(lambda known: known.change(str(chosen), clean(good)), token, request)

    def _changed(self, act: Callable[[Any], Any], token: str, request: gr.Request) -> Updates:
        try:
            visitor = self.visitors.name(token, request)
            act(corrections_of(self.services.paths, visitor))
            return self._view(visitor)
        except ChatAppError as error:
            warn(error)
            return {self.panel: gr.skip()}

    def _view(self, visitor: str, is_open: bool | None = None) -> Updates:
        known = corrections_of(self.services.paths, visitor).list()
        label = f"Teach by correcting ({len(known)})" if known else "Teach by correcting"
        panel = gr.update(label=label) if is_open is None else gr.update(label=label, open=is_open)
        button = gr.Button(f"Teach {'these ' if len(known) > 1 else 'this '}{_counted(known)}", visible=bool(known))
        return {
            self.panel: panel,
            self.list: listed(known),
            self.teach: button,
            self.changing: gr.Column(visible=False),
        }

    def begin(self, talk: Talk, token: str, request: gr.Request) -> Iterator[Updates]:
        """Make a run of the corrections and put it into the queue."""

        def prepare(progress: ProgressCallback) -> Run:
            visitor = self.visitors.name(token, request)
            model, known = self._model(talk, visitor), corrections_of(self.services.paths, visitor).list()
            if not known:
                raise DataError("There are no corrections to teach.", advice="Correct a reply first.")
            report = count_conversations(progress, "Preparing")
            return prepare_corrections_run(model, known, self.services.paths, about={"by": visitor}, progress=report)

        run = yield from begun(
            self.services,
            prepare,
            lambda text: {self.progress: working(text), self.teach: gr.Button(interactive=False)},
        )
        left = {} if run is None else self._leave(run, self.visitors.name(token, request))
        yield {**left, self.progress: "", self.teach: gr.Button(interactive=True)}

    def _model(self, talk: Talk, visitor: str) -> str:
        """The model that is talked with: it is the one to be put right.

        Raises:
            ModelError, RunError: there is none, or it is not this visitor's.
        """
        if talk.model is not None:
            return self.services.run_of(visitor, talk.model).id
        loaded = self.services.models.current
        if loaded is None:
            raise ModelError("No model is loaded.", advice="Choose one first.")
        return str(loaded.name)


def listed(corrections: Sequence[Correction]) -> str:
    """The newest corrections, with buttons."""
    rows = "".join(
        f'<li><p class="asked" dir="auto">{shown(_short(one.prompt))}</p>'
        f'<p class="was" dir="auto"><s>{shown(_short(one.bad)) or "(nothing)"}</s></p>'
        f'<p dir="auto">{shown(_short(one.good))}</p><p class="acts">'
        f'<button type="button" data-act="rework" data-id="{shown(one.id)}">Change</button>'
        f'<button type="button" data-act="forget" data-id="{shown(one.id)}">Remove</button></p></li>'
        for one in list(reversed(corrections))[:SHOWN]
    )
    more = f'<p class="quiet">and {len(corrections) - SHOWN} more</p>' if len(corrections) > SHOWN else ""
    return f'<ul class="corrections">{rows}</ul>{more}' if rows else ""


def _counted(corrections: Sequence[Correction]) -> str:
    return words.count(len(corrections), "correction") if len(corrections) != 1 else "correction"


def _short(text: str) -> str:
    return text if len(text) <= 240 else text[:239] + "…"
