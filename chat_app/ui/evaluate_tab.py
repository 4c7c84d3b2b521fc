"""Proof: is a model better than before? Chooses what to judge; three panels judge it."""

from __future__ import annotations

from typing import Any

import gradio as gr

from chat_app.errors import ChatAppError
from chat_app.services import Services
from chat_app.sizes import bytes_in_words
from chat_app.ui.background import work_row
from chat_app.ui.bench import KEPT_ASIDE, NOTHING, OWN_FILE, START, Bench
from chat_app.ui.copies_panel import CopiesPanel
from chat_app.ui.duel_panel import DuelPanel
from chat_app.ui.events import QUICK, listen_for_choice, slow
from chat_app.ui.numbers_panel import NumbersPanel
from chat_app.ui.visitor import Visitors

SOURCES = [("What it kept aside when it learned", KEPT_ASIDE), ("A file of mine", OWN_FILE)]


class EvaluateTab:
    """The tab's components and what they do.

    Args:
        services: models and runs.
        visitors, token: tell who calls.
    """

    def __init__(self, services: Services, visitors: Visitors, token: Any):
        self.services, self.visitors, self.token = services, visitors, token
        self.bench = Bench(services, visitors)
        self.panels = [kind(self.bench) for kind in (NumbersPanel, DuelPanel, CopiesPanel)]

    def draw(self) -> None:
        """Put the components where the page is being built."""
        with gr.Row(elem_classes=["evaluate-row"]):
            with gr.Column(scale=4, min_width=300):
                self._draw_choice()
            with gr.Column(scale=7, min_width=320, elem_classes=["evaluate-side"]):
                self.busy, self.progress, self.stop = work_row("evaluate")
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
        limit = bytes_in_words(self.services.rules.upload_limit)
        self.files = gr.File(
            file_count="multiple",
            label=f"Conversations, up to {limit}",
            height=150,
            visible=False,
            elem_id="evaluate-files",
        )

    @property
    def choice(self) -> list[Any]:
        """What every panel is given first."""
        return [self.token, self.after, self.before, self.source, self.files]

    def _connect(self) -> None:
        listen_for_choice(
            self.after,
            self.choose,
            [self.after, self.shown_after, self.before, self.source, self.token],
            [self.shown_after, self.before, self.source, self.files],
            **QUICK,
        )
        self.source.input(lambda source: gr.File(visible=source == OWN_FILE), [self.source], [self.files], **QUICK)
        events = [
            event
            for panel in self.panels
            for event in panel.connect(self.choice, [self.busy, self.progress], slow("judging", 8))
        ]
        self.stop.click(self.stopped, None, [self.busy, self.progress], cancels=events, **QUICK)

    @staticmethod
    def stopped() -> tuple[Any, str]:
        """Somebody has stopped what was under way."""
        return gr.Row(visible=False), ""

    @property
    def chosen(self) -> list[Any]:
        """What `look` is given."""
        return [self.after, self.before, self.source, self.token]

    @property
    def outputs(self) -> list[Any]:
        """What `look` fills."""
        return [self.after, self.shown_after, self.before, self.source, self.files]

    def look(self, after: str, before: str, source: str, token: str, request: gr.Request) -> tuple[Any, ...]:
        """The models may have become more; what was chosen stays, where it can."""
        try:
            visitor = self.visitors.name(token, request)
            rows = self.bench.choices(visitor)
            names = [name for _, name in rows]
            chosen = after if after in names else (names[0] if names else None)
            picker = gr.Dropdown(choices=rows, value=chosen)
            rest = self._rest(rows, chosen, before, source, visitor, is_new=after not in names)
            return picker, chosen or "", *rest
        except ChatAppError:
            return (gr.skip(),) * 5

    def choose(
        self, after: str | None, shown_after: str, before: str, source: str, token: str, request: gr.Request
    ) -> tuple[Any, ...]:
        """Another model was chosen: what it can be compared with, and measured on.

        Args:
            shown_after: the model that these are shown for; if it is the same, nobody has chosen anything.
        """
        try:
            visitor = self.visitors.name(token, request)
        except ChatAppError:
            return (gr.skip(),) * 4
        if not after or after == shown_after:
            return (gr.skip(),) * 4
        return after, *self._rest(self.bench.choices(visitor), after, before, source, visitor, is_new=True)

    def _rest(
        self,
        rows: list[tuple[str, str]],
        chosen: str | None,
        before: str,
        source: str,
        visitor: str,
        is_new: bool,
    ) -> tuple[Any, Any, Any]:
        """What a model can be compared with and measured on; a model that is new here brings what suits it."""
        first = [("How it was before it learned", START)] if self.bench.is_run(chosen, visitor) else []
        others = [*first, ("Nothing", NOTHING), *rows]
        if is_new or before not in [name for _, name in others]:
            before = others[0][1]
        has_kept = self.bench.has_kept_aside(chosen, visitor)
        source = KEPT_ASIDE if has_kept and (is_new or source == KEPT_ASIDE) else OWN_FILE
        return (
            gr.Dropdown(choices=others, value=before),
            gr.Radio(choices=SOURCES if has_kept else SOURCES[1:], value=source),
            gr.File(visible=source == OWN_FILE),
        )
