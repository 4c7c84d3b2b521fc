"""Watching a run: the list of runs, the state of the chosen one, and what has changed since the last refresh.

Its parts stand beside it: run_actions, run_curves, run_queue, command_panel, export_panel, all_runs_panel.

Everything shown is read from the run's folder, so a reload, a second browser or a restart of the server shows the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from chat_app.errors import ChatAppError
from chat_app.runs.run import ACTIVE, Run
from chat_app.services import Services
from chat_app.system.progress import ProgressCallback
from chat_app.ui.components.events import QUICK, Updates, listen_for_choice
from chat_app.ui.components.notices import render_progress
from chat_app.ui.training import run_report, start_run
from chat_app.ui.training.all_runs_panel import AllRunsPanel
from chat_app.ui.training.command_panel import RunCommandPanel
from chat_app.ui.training.export_panel import ExportPanel
from chat_app.ui.training.run_actions import RunActions
from chat_app.ui.training.run_curves import RunCurves
from chat_app.ui.training.run_queue import RunQueue, render_queue
from chat_app.ui.visitor import Visitors

SECONDS_BETWEEN_REFRESHES = 2.0
NO_RUN = '<p class="quiet">Nothing has been taught yet. Your first run will show here, and stay here.</p>'


class RunView:
    """The right side of the Teach tab.

    Args:
        services: the runs and the training queue.
        visitors, token: identify who calls.
    """

    def __init__(self, services: Services, visitors: Visitors, token: Any):
        self.services, self.visitors, self.token = services, visitors, token
        self.actions = RunActions(services, visitors, token)
        self.queue = RunQueue(services, visitors, token)
        self.curves = RunCurves(services, visitors, token)
        self.command = RunCommandPanel(services)
        self.export = ExportPanel(services, visitors, token)
        self.panel = AllRunsPanel(services, visitors, token)

    def draw(self) -> None:
        """Create the components in the current Gradio context."""
        self.picker = gr.Dropdown([], label="Run", elem_id="run")
        self.status = gr.HTML(NO_RUN, elem_id="run-status", apply_default_css=False)
        self.actions.draw()
        self.queue.draw()
        self.curves.draw()
        self.command.draw()
        self.export.draw()
        self.panel.draw()
        self.seen = gr.State({})
        self.timer = gr.Timer(SECONDS_BETWEEN_REFRESHES)

    @property
    def outputs(self) -> list[Any]:
        """What `refresh` updates."""
        return [
            *(self.picker, self.status, self.queue.view, self.seen),
            *(*self.actions.outputs, *self.curves.outputs, *self.command.outputs, *self.export.outputs),
        ]

    def connect(self, chat_with: Callable[..., Any], chat_outputs: list[Any], session: Any) -> None:
        """Register the event handlers.

        Args:
            chat_with: loads the model of a run and shows the chat; takes a run's id, the token, the conversation and
                the request.
            chat_outputs: what it fills.
            talk: the component that keeps the conversation.
        """
        inputs = [self.picker, self.curves.at, self.seen, self.token]
        self.timer.tick(self.refresh, inputs, self.outputs, **QUICK)
        listen_for_choice(self.picker, self.choose, inputs, self.outputs, **QUICK)
        for done in self.actions.connect(self.picker, self.seen):
            done.then(self.refresh, inputs, self.outputs, **QUICK)
        self.queue.connect(self.refresh, inputs, self.outputs)
        self.curves.connect(self.picker)
        self.export.connect(self.picker)
        self.panel.connect(self.picker, self.refresh, inputs, self.outputs)
        self.actions.chat.click(
            chat_with,
            [self.actions.which, self.token, session],
            chat_outputs,
            show_progress_on=[self.status],
            api_visibility="private",
            concurrency_limit=1,
            concurrency_id="model",
        )

    def open(self, visitor: str) -> Updates:
        """Show on a page that was just opened the newest active run, else the first in the queue, else the newest."""
        runs = self.services.list_runs(visitor)
        active = [run for run in runs if run.state().status in ACTIVE]
        waiting = [run for run in runs if run.state().status == "queued"]
        return self.show(next(iter([*active, *waiting, *runs]), None), runs)

    def start_run(
        self, preparing: Any, prepare: Callable[[ProgressCallback], Run], token: str, request: gr.Request
    ) -> Iterator[Updates]:
        """Start a run and show it.

        Args:
            preparing: the component that tells how far its preparation is.
            prepare: makes the run folder.
        """
        run = yield from start_run.start_run(
            self.services, prepare, lambda text: {preparing: gr.HTML(render_progress(text), visible=True)}
        )
        shown = {} if run is None else self.show(run, self.services.list_runs(self.visitors.identify(token, request)))
        yield {**shown, preparing: gr.HTML("", visible=False)}

    def refresh(self, name: str | None, at: Any, seen: dict[str, Any], token: str, request: gr.Request) -> Updates:
        """Update what has changed since the last refresh; nothing else is sent."""
        try:
            visitor = self.visitors.identify(token, request)
            runs = self.services.list_runs(visitor)
            chosen = next((run for run in runs if run.id == name), runs[0] if runs else None)
        except (ChatAppError, OSError):  # A folder is being deleted at this moment.
            return {self.seen: gr.skip()}
        return self.show(chosen, runs, at, seen if isinstance(seen, dict) else {})

    def choose(self, name: str | None, at: Any, seen: dict[str, Any], token: str, request: gr.Request) -> Updates:
        """Show the chosen run. If it is shown already, only what has changed is sent."""
        is_shown = isinstance(seen, dict) and seen.get("run") == name
        return self.refresh(name, at, seen if is_shown else {}, token, request)

    def show(self, run: Run | None, runs: list[Run], at: Any = None, seen: dict[str, Any] | None = None) -> Updates:
        """Show a run and the list of runs. What the page shows already is not sent again."""
        seen = seen or {}
        now: dict[str, Any] = {"labels": run_report.label_runs(runs)}
        now["run"] = run.id if run is not None else None
        now["queue"] = self.queue.list_waiting(runs)
        updates: Updates = {self.seen: now}
        if any(seen.get(name) != now[name] for name in ("labels", "run")):
            updates[self.picker] = gr.Dropdown(choices=now["labels"], value=now["run"], visible=bool(runs))
        if seen.get("queue") != now["queue"]:
            updates[self.queue.view] = gr.HTML(value=render_queue(now["queue"]), visible=bool(now["queue"]))
        if run is None:
            hidden = self.actions.hide() | self.curves.hide() | self.command.hide() | self.export.hide()
            return {**updates, **hidden, self.status: NO_RUN}
        return updates | self._show_run(run, at, seen, now)

    def _show_run(self, run: Run, at: Any, seen: dict[str, Any], now: dict[str, Any]) -> Updates:
        """Update what has changed in the shown run, and note in `now` what the page will show."""
        state = run.state()
        now["status"], now["model"], now["checkpoints"] = state.status, run.has_model, run.checkpoint_steps()
        now["decision"] = state.decision
        now["metrics"], now["samples"] = _get_file_stamp(run, "metrics.jsonl"), _get_file_stamp(run, "samples.jsonl")
        now["about"] = _get_file_stamp(run, "config.json")
        is_new = seen.get("run") != now["run"]

        def has_changed(*names: str) -> bool:
            return is_new or any(seen.get(name) != now[name] for name in names)

        updates: Updates = {}
        if has_changed("status", "model", "checkpoints", "decision"):
            updates |= self.actions.show(run, state, now["checkpoints"])
        now["action"] = seen.get("action", "")
        if has_changed("metrics", "status", "about") or state.status in ACTIVE:
            metrics = run.metrics()
            said = run_report.diagnose_run(run, state, metrics)
            now["action"] = said.action if said and self.services.jobs is not None else ""
            updates[self.status] = run_report.render_status(run, state, metrics, said=said)
            if has_changed("metrics"):
                updates |= self.curves.show_metrics(metrics)
        if is_new or seen.get("action", "") != now["action"]:
            updates |= self.actions.show_action(now["action"])
        if has_changed("status", "about", "model"):
            updates |= self.command.show(run) | self.export.show(run)
        now["evaluations"] = seen.get("evaluations", 0)
        if has_changed("samples"):
            shown, now["evaluations"] = self.curves.show_samples(run, None if is_new else at, now["evaluations"])
            updates |= shown
        return updates


def _get_file_stamp(run: Run, name: str) -> tuple[int, int]:
    """Return size and modification time of a file, which change when it does."""
    try:
        known = (run.folder / name).stat()
    except OSError:
        return (0, 0)
    return (known.st_size, known.st_mtime_ns)
