"""The Evaluate tab: the choice of models and conversations, and a panel for each way to evaluate them."""

from __future__ import annotations

from typing import Any

import gradio as gr

from chat_app.errors import ChatAppError
from chat_app.formatting import format_bytes
from chat_app.services import Services
from chat_app.ui.components.background_task import TaskRow
from chat_app.ui.components.events import NEWEST, QUICK, Updates, limit_concurrency, listen_for_choice
from chat_app.ui.evaluation.blind_test_panel import BlindTestPanel
from chat_app.ui.evaluation.memorization_panel import MemorizationPanel
from chat_app.ui.evaluation.metrics_panel import MetricsPanel
from chat_app.ui.evaluation.panel import EvaluationPanel
from chat_app.ui.evaluation.subjects import KEPT_ASIDE, NOTHING, OWN_FILE, START, EvaluationSubjects
from chat_app.ui.visitor import Visitors

SOURCES = [("What it kept aside when it learned", KEPT_ASIDE), ("A file of mine", OWN_FILE)]


class EvaluateTab:
    """The components of the tab and their handlers.

    Args:
        services: models and runs.
        visitors, token: identify who calls.
    """

    def __init__(self, services: Services, visitors: Visitors, token: Any):
        self.services, self.visitors, self.token = services, visitors, token
        self.subjects = EvaluationSubjects(services, visitors)
        self.task_row = TaskRow()
        panels: tuple[type[EvaluationPanel], ...] = (MetricsPanel, BlindTestPanel, MemorizationPanel)
        self.panels = [panel(self.subjects, self.task_row) for panel in panels]

    def draw(self) -> None:
        """Create the components in the current Gradio context."""
        with gr.Row(elem_classes=["evaluate-row"]):
            with gr.Column(scale=4, min_width=300):
                self._draw_choice()
            with gr.Column(scale=7, min_width=320, elem_classes=["evaluate-side"]):
                self.task_row.draw("evaluate")
                with gr.Tabs(elem_id="evaluate-tabs"):
                    for panel in self.panels:
                        with gr.Tab(panel.title, id=panel.title, render_children=True):
                            panel.draw()
        self._connect()

    def _draw_choice(self) -> None:
        gr.HTML('<h2 class="part">What to judge</h2>', apply_default_css=False)
        self.after = gr.Dropdown(
            [], label="Model", info="The one that you want to know about.", elem_id="evaluate-after", filterable=False
        )
        self.shown_after = gr.Textbox(
            visible="hidden", elem_id="evaluate-after-shown"
        )  # What the list was filled with.
        self.before = gr.Dropdown(
            [("Nothing", NOTHING)],
            value=NOTHING,
            label="Compared with",
            info="How it was before, or any other.",
            elem_id="evaluate-before",
            filterable=False,
        )
        self.source = gr.Radio(SOURCES, value=KEPT_ASIDE, label="On which conversations", elem_id="evaluate-source")
        limit = format_bytes(self.services.rules.upload_limit)
        self.files = gr.File(
            file_count="multiple",
            label=f"Conversations, up to {limit}",
            height=150,
            visible=False,
            elem_id="evaluate-files",
        )

    @property
    def choice(self) -> list[Any]:
        """The components whose values every panel gets first."""
        return [self.token, self.after, self.before, self.source, self.files]

    def _connect(self) -> None:
        listen_for_choice(
            self.after,
            self.choose,
            [self.after, self.shown_after, self.before, self.source, self.token],
            [self.shown_after, self.before, self.source, self.files],
            **QUICK,
        )
        self.source.input(lambda source: gr.File(visible=source == OWN_FILE), [self.source], [self.files], **NEWEST)
        tests = [panel.connect(self.choice, limit_concurrency("judging", 8)) for panel in self.panels]
        self.task_row.stop.click(self.task_row.hide, None, self.task_row.outputs, cancels=tests, **QUICK)

    @property
    def chosen(self) -> list[Any]:
        """The inputs of `refresh`."""
        return [self.after, self.before, self.source, self.token]

    @property
    def outputs(self) -> list[Any]:
        """The outputs of `refresh`."""
        return [self.after, self.shown_after, self.before, self.source, self.files]

    def refresh(self, after: str, before: str, source: str, token: str, request: gr.Request) -> Updates:
        """Refresh the list of models, and keep what was chosen where it is still offered."""
        try:
            visitor = self.visitors.identify(token, request)
            rows = self.subjects.list_models(visitor)
            names = [name for _, name in rows]
            chosen = after if after in names else (names[0] if names else None)
            rest = self._show_comparison(rows, chosen, before, source, visitor, is_new=after not in names)
            return {self.after: gr.Dropdown(choices=rows, value=chosen), **rest}
        except ChatAppError:
            return {self.after: gr.skip()}

    def choose(
        self, after: str | None, shown_after: str, before: str, source: str, token: str, request: gr.Request
    ) -> Updates:
        """Show what the chosen model can be compared with and evaluated on.

        Args:
            after: the model that the picker holds.
            shown_after: the model that the page shows the choices for; if it is the same, the picker did not change.
        """
        try:
            visitor = self.visitors.identify(token, request)
        except ChatAppError:
            return {self.shown_after: gr.skip()}
        if not after or after == shown_after:
            return {self.shown_after: gr.skip()}
        return self._show_comparison(self.subjects.list_models(visitor), after, before, source, visitor, is_new=True)

    def _show_comparison(
        self,
        rows: list[tuple[str, str]],
        chosen: str | None,
        before: str,
        source: str,
        visitor: str,
        is_new: bool,
    ) -> Updates:
        """Offer what a model can be compared with and evaluated on. A new model resets both to its defaults."""
        first = [("How it was before it learned", START)] if self.subjects.is_run(chosen, visitor) else []
        others = [*first, ("Nothing", NOTHING), *rows]
        if is_new or before not in [name for _, name in others]:
            before = others[0][1]
        has_kept = self.subjects.has_kept_aside(chosen, visitor)
        source = KEPT_ASIDE if has_kept and (is_new or source == KEPT_ASIDE) else OWN_FILE
        return {
            self.shown_after: chosen or "",
            self.before: gr.Dropdown(choices=others, value=before),
            self.source: gr.Radio(choices=SOURCES if has_kept else SOURCES[1:], value=source),
            self.files: gr.File(visible=source == OWN_FILE),
        }
