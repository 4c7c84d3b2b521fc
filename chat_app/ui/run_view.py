"""Watching a run: the list of runs, and for the chosen one its state, curves, replies and buttons.

Everything shown is read from the run's folder, so a reload, a second browser or a restart of the server shows the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from chat_app.errors import ChatAppError, RunError
from chat_app.runs import ACTIVE, RESUMABLE, Run
from chat_app.services import Services
from chat_app.ui import run_report
from chat_app.ui.escape import warn
from chat_app.ui.visitor import Visitors

LOOK_EVERY = 2.0
MOST_LOG_BYTES = 1_000_000
NOBODY = '<p class="quiet">Nothing has been taught yet. Your first run will show here, and stay here.</p>'
SAVE_TEXT = """(text) => {
  if (!text) return;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  link.download = "training-log.txt";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}"""
COLORS = {run_report.TRAINING: "#b47b2a", run_report.VALIDATION: "#12a090"}


class RunView:
    """The right side of the Teach tab.

    Args:
        services: the runs and the training queue.
        visitors, token: tell who calls.
    """

    def __init__(self, services: Services, visitors: Visitors, token: Any):
        self.services, self.visitors, self.token = services, visitors, token

    def draw(self) -> None:
        """Put the components where the page is being built."""
        self.picker = gr.Dropdown([], label="Run", elem_id="run", filterable=False)
        self.status = gr.HTML(NOBODY, elem_id="run-status", apply_default_css=False)
        with gr.Row(elem_classes=["run-buttons"]):
            self.stop = gr.Button("Stop", variant="stop", size="md", visible=False, elem_id="run-stop", min_width=110)
            self.resume = gr.Button("Resume", size="md", visible=False, elem_id="run-resume", min_width=110)
            self.chat = gr.Button(
                "Chat with this model", variant="primary", size="md", visible=False, elem_id="run-chat", min_width=200
            )
            self.download = gr.Button("Download log", size="md", visible=False, elem_id="run-log", min_width=140)
        self.log_text = gr.Textbox(visible="hidden", elem_id="run-log-text")
        with gr.Column(visible=False, elem_classes=["run-curves"]) as self.curves:
            self.loss = gr.LinePlot(
                x="step",
                y="loss",
                color="which",
                color_map=COLORS,
                title="Loss: how surprised it is (lower is better)",
                x_title="step",
                y_title="loss",
                color_title="",
                height=260,
                elem_id="loss-plot",
                buttons=[],
            )
            gr.HTML('<h3 class="part">What it answers</h3>', apply_default_css=False)
            self.at = gr.Dropdown(
                [("Now", run_report.LATEST)],
                value=run_report.LATEST,
                label="Answers of",
                visible=False,
                elem_id="samples-at",
                filterable=False,
            )
            self.samples = gr.HTML("", elem_id="samples", apply_default_css=False)
            with gr.Accordion("Learning rate", open=False, elem_id="rate-panel"):
                self.rate = gr.LinePlot(
                    x="step", y="learning rate", height=180, elem_id="rate-plot", buttons=[], show_label=False
                )
        self.seen = gr.State({})
        self.timer = gr.Timer(LOOK_EVERY)

    @property
    def outputs(self) -> list[Any]:
        """What `look` fills."""
        return [
            *(self.picker, self.status, self.curves, self.loss, self.rate, self.at, self.samples),
            *(self.stop, self.resume, self.chat, self.download, self.seen),
        ]

    def connect(self, chat_with: Callable[..., Any], chat_outputs: list[Any], talk: Any) -> None:
        """Join the events.

        Args:
            chat_with: loads the model of a run and shows the chat; takes a run's id, the token, the conversation and
                the request.
            chat_outputs: what it fills.
            talk: the component that keeps the conversation.
        """
        quick: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "queue": False}
        inputs = [self.picker, self.at, self.seen, self.token]
        self.timer.tick(self.look, inputs, self.outputs, **quick)
        self.picker.input(self.choose, inputs, self.outputs, **quick)
        self.at.input(self.compare, [self.picker, self.at, self.token], [self.samples], **quick)
        self.stop.click(self.ask_stop, [self.picker, self.token], None, **quick).then(
            self.look, inputs, self.outputs, **quick
        )
        self.resume.click(self.go_on, [self.picker, self.token], None, **quick).then(
            self.look, inputs, self.outputs, **quick
        )
        self.download.click(self.read_log, [self.picker, self.token], [self.log_text], **quick).then(
            None, [self.log_text], None, js=SAVE_TEXT, api_visibility="private"
        )
        self.chat.click(
            chat_with,
            [self.picker, self.token, talk],
            chat_outputs,
            show_progress_on=[self.status],
            api_visibility="private",
            concurrency_limit=1,
            concurrency_id="model",
        )

    def begin(self, visitor: str) -> tuple[Any, ...]:
        """The view of a page that has just been opened: the newest run at work, else the newest."""
        runs = self.services.runs_of(visitor)
        active = [run for run in runs if run.state().status in (*ACTIVE, "queued")]
        return self.show(next(iter([*active, *runs]), None), runs)

    def look(self, name: str | None, at: int, seen: dict[str, Any], token: str, request: gr.Request) -> tuple[Any, ...]:
        """What has changed since the last look; nothing else is sent."""
        try:
            visitor = self.visitors.name(token, request)
            runs = self.services.runs_of(visitor)
            chosen = next((run for run in runs if run.id == name), runs[0] if runs else None)
        except (ChatAppError, OSError):  # A folder that is being removed; the next look will tell.
            return (gr.skip(),) * len(self.outputs)
        return self.show(chosen, runs, at, seen if isinstance(seen, dict) else {})

    def choose(
        self, name: str | None, at: int, seen: dict[str, Any], token: str, request: gr.Request
    ) -> tuple[Any, ...]:
        """The person has chosen a run."""
        return self.look(name, at, {}, token, request)

    def compare(self, name: str | None, at: int, token: str, request: gr.Request) -> str:
        """The person has chosen an evaluation: the replies then."""
        try:
            run = self.services.run_of(self.visitors.name(token, request), str(name))
        except ChatAppError as error:
            warn(error)
            return ""
        return run_report.sample_table(run.samples(), at)

    def show(
        self, run: Run | None, runs: list[Run], at: int = run_report.LATEST, seen: dict[str, Any] | None = None
    ) -> tuple[Any, ...]:
        """A value for each of the outputs; what the page has already, it keeps."""
        seen = seen or {}
        labels = [(run_report.label(one), one.id) for one in runs]
        chosen = run.id if run is not None else None
        now: dict[str, Any] = {"labels": labels, "run": chosen}
        picker = gr.skip() if seen.get("labels") == labels and seen.get("run") == chosen else None
        if picker is None:
            picker = gr.Dropdown(choices=labels, value=chosen, visible=bool(labels))
        if run is None:
            hidden = gr.update(visible=False)
            return picker, NOBODY, hidden, *[gr.skip()] * 4, *[hidden] * 4, now
        state = run.state()
        now["status"], now["model"] = state.status, run.has_model
        now["metrics"], now["samples"] = _stamp(run, "metrics.jsonl"), _stamp(run, "samples.jsonl")
        same_run = seen.get("run") == chosen
        buttons: tuple[Any, ...] = (gr.skip(),) * 4
        if not same_run or any(seen.get(name) != now[name] for name in ("status", "model")):
            buttons = self._buttons(run, now["status"])
        moved = not same_run or seen.get("metrics") != now["metrics"]
        metrics, report = [], gr.skip()
        if moved or state.status in ACTIVE or seen.get("status") != state.status:
            metrics = run.metrics()
            report = run_report.status(run, state, metrics)
        curves = self._curves(metrics) if moved else (gr.skip(),) * 3
        told = (gr.skip(),) * 2
        if not same_run or seen.get("samples") != now["samples"]:
            told = _samples(run, at if same_run else run_report.LATEST)
        return picker, report, *curves, *told, *buttons, now

    def _curves(self, metrics: list[dict[str, Any]]) -> tuple[Any, ...]:
        has_points = any("train_loss" in line or "valid_loss" in line for line in metrics)
        return (
            gr.Column(visible=has_points),
            gr.LinePlot(value=run_report.losses(metrics)),
            gr.LinePlot(value=run_report.learning_rates(metrics)),
        )

    def _buttons(self, run: Run, status: str) -> tuple[Any, ...]:
        """Stop, resume, chat, download: those that can be used now."""
        can_train = self.services.jobs is not None
        return (
            gr.Button(visible=can_train and status in ("queued", "running"), interactive=True),
            gr.Button(visible=can_train and status in RESUMABLE, interactive=True),
            gr.Button(visible=run.has_model),
            gr.Button(visible=run.log.is_file()),
        )

    def ask_stop(self, name: str | None, token: str, request: gr.Request) -> None:
        """End a run after the step it is in."""
        try:
            run, jobs = self._own(name, token, request)
            jobs.stop(run)
        except ChatAppError as error:
            warn(error)

    def go_on(self, name: str | None, token: str, request: gr.Request) -> None:
        """Put a run that stopped into the queue again."""
        try:
            run, jobs = self._own(name, token, request)
            jobs.submit(run)
        except ChatAppError as error:
            warn(error)

    def _own(self, name: str | None, token: str, request: gr.Request) -> tuple[Run, Any]:
        if self.services.jobs is None:
            raise RunError("Training is switched off on this server.")
        return self.services.run_of(self.visitors.name(token, request), str(name)), self.services.jobs

    def read_log(self, name: str | None, token: str, request: gr.Request) -> str:
        """The end of what the training process printed."""
        try:
            run = self.services.run_of(self.visitors.name(token, request), str(name))
            with open(run.log, "rb") as file:
                file.seek(max(run.log.stat().st_size - MOST_LOG_BYTES, 0))
                return file.read().decode("utf-8", "replace")
        except (ChatAppError, OSError):
            warn("There is no log of this run.")
            return ""


def _samples(run: Run, at: int) -> tuple[Any, ...]:
    """The list of evaluations and the table of replies."""
    samples = run.samples()
    steps = run_report.sample_steps(samples)
    rows = [("Now", run_report.LATEST), *((f"Step {step:,}", step) for step in reversed(steps[1:-1]))]
    at = at if at in [step for _, step in rows] else run_report.LATEST
    choices = gr.Dropdown(choices=rows, value=at, visible=len(rows) > 1)
    return choices, run_report.sample_table(samples, at)


def _stamp(run: Run, name: str) -> tuple[int, int]:
    """Changes when a file does."""
    try:
        known = (run.folder / name).stat()
    except OSError:
        return (0, 0)
    return (known.st_size, known.st_mtime_ns)
