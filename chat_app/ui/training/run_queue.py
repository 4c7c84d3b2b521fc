"""The visitor's queued runs in their order, with buttons to move one or to remove it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from chat_app.errors import ChatAppError
from chat_app.runs.run import Run
from chat_app.services import Services
from chat_app.training.job_queue import Jobs
from chat_app.ui.components.escape import escape, warn
from chat_app.ui.components.events import QUICK, read_payload
from chat_app.ui.training.run_report import title_runs
from chat_app.ui.training.start_run import require_jobs
from chat_app.ui.visitor import Visitors

ACTS = {"up": "Move up", "down": "Move down", "out": "Take out"}
SIGNS = {"up": "↑", "down": "↓", "out": "✕"}
BUTTONS_SCRIPT = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-run]');
  if (button) trigger('pressed', { run: button.dataset.run, act: button.dataset.act });
});
"""


class RunQueue:
    """The component and its handlers.

    Args:
        services: the training queue.
        visitors, token: identify who calls.
    """

    def __init__(self, services: Services, visitors: Visitors, token: Any):
        self.services, self.visitors, self.token = services, visitors, token

    def draw(self) -> None:
        """Create the component in the current Gradio context."""
        self.view = gr.HTML("", js_on_load=BUTTONS_SCRIPT, elem_id="run-queue", apply_default_css=False, visible=False)

    def connect(self, refresh: Any, inputs: list[Any], outputs: list[Any]) -> None:
        """Register the handlers; `refresh` shows everything again afterwards."""
        self.view.pressed(self.handle_press, [self.token], None, **QUICK).then(refresh, inputs, outputs, **QUICK)

    def list_waiting(self, own: Sequence[Run]) -> list[tuple[int, str, str]]:
        """List (position in the whole queue, id, title) of a visitor's own queued runs."""
        if self.services.jobs is None:
            return []
        called = title_runs(own)
        waiting = enumerate(self.services.jobs.waiting(), start=1)
        return [(place, run.id, called[run.id]) for place, run in waiting if run.id in called]

    def handle_press(self, event: gr.EventData, token: str, request: gr.Request) -> None:
        """Move or remove a run. What the page sends is checked again."""
        try:
            jobs, visitor = require_jobs(self.services), self.visitors.identify(token, request)
            run = self.services.find_run(visitor, str(read_payload(event, "run")))
            _apply(jobs, run, read_payload(event, "act"), self.services.list_runs(visitor))
        except ChatAppError as error:
            warn(error)


def _apply(jobs: Jobs, run: Run, act: object, own: Sequence[Run]) -> None:
    if act == "out":
        jobs.stop(run)
    elif act in ("up", "down"):
        jobs.move(run, -1 if act == "up" else 1, own)


def render_queue(rows: Sequence[tuple[int, str, str]]) -> str:
    """Render the list of queued runs."""
    items = "".join(
        f'<li><span class="place">{place}</span><span class="name" dir="auto">{escape(title)}</span>'
        f"{_render_buttons(run, title, at == 0, at == len(rows) - 1)}</li>"
        for at, (place, run, title) in enumerate(rows)
    )
    return f'<h3 class="part">Waiting for their turn</h3><ol class="queue">{items}</ol>'


def _render_buttons(run: str, title: str, is_first: bool, is_last: bool) -> str:
    blocked = {"up": is_first, "down": is_last, "out": False}
    return "".join(
        f'<button type="button" data-run="{escape(run)}" data-act="{act}" title="{words}" '
        f'aria-label="{words}: {escape(title)}"{" disabled" if blocked[act] else ""}>{SIGNS[act]}</button>'
        for act, words in ACTS.items()
    )
