"""Watching a run: the list of runs, and for the chosen one its state, curves, replies and buttons.

What can be done with runs besides stands beside it: run_queue, run_desk, run_export, runs_panel.

Everything shown is read from the run's folder, so a reload, a second browser or a restart of the server shows the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from chat_app.errors import ChatAppError, RunError
from chat_app.followup import give_more_epochs, with_half_the_rate
from chat_app.jobs import Jobs
from chat_app.runs import ACTIVE, RESUMABLE, Run
from chat_app.services import Services
from chat_app.ui import run_report, run_start
from chat_app.ui.background import Tell
from chat_app.ui.data_report import working
from chat_app.ui.downloads import saving
from chat_app.ui.escape import warn
from chat_app.ui.events import QUICK, listen_for_choice
from chat_app.ui.run_desk import RunDesk
from chat_app.ui.run_export import RunExport
from chat_app.ui.run_queue import RunQueue, queue_list
from chat_app.ui.runs_panel import RunsPanel
from chat_app.ui.visitor import Visitors

LOOK_EVERY = 2.0
MOST_LOG_BYTES = 1_000_000
NOBODY = '<p class="quiet">Nothing has been taught yet. Your first run will show here, and stay here.</p>'
COLORS = {run_report.TRAINING: "#b47b2a", run_report.VALIDATION: "#12a090"}


class RunView:
    """The right side of the Teach tab.

    Args:
        services: the runs and the training queue.
        visitors, token: tell who calls.
    """

    def __init__(self, services: Services, visitors: Visitors, token: Any):
        self.services, self.visitors, self.token = services, visitors, token
        self.queue = RunQueue(services, visitors, token)
        self.desk = RunDesk(services)
        self.export = RunExport(services, visitors, token)
        self.panel = RunsPanel(services, visitors, token)

    def draw(self) -> None:
        """Put the components where the page is being built."""
        self.picker = gr.Dropdown([], label="Run", elem_id="run")
        self.status = gr.HTML(NOBODY, elem_id="run-status", apply_default_css=False)
        self._draw_buttons()
        self.queue.draw()
        self._draw_curves()
        self.desk.draw()
        self.export.draw()
        self.panel.draw()
        self.seen = gr.State({})
        self.timer = gr.Timer(LOOK_EVERY)

    def _draw_buttons(self) -> None:
        with gr.Row(elem_classes=["run-buttons"]):
            self.act = gr.Button("", variant="primary", size="md", visible=False, elem_id="run-act", min_width=180)
            self.stop = gr.Button("Stop", variant="stop", size="md", visible=False, elem_id="run-stop", min_width=110)
            self.resume = gr.Button("Resume", size="md", visible=False, elem_id="run-resume", min_width=110)
            self.which = gr.Dropdown(
                [],
                label="Model",
                show_label=False,
                container=False,
                visible=False,
                elem_id="run-which",
                filterable=False,
                min_width=180,
            )
            self.chat = gr.Button(
                "Chat with this model", variant="primary", size="md", visible=False, elem_id="run-chat", min_width=200
            )
            self.download = gr.Button("Download log", size="md", visible=False, elem_id="run-log", min_width=140)
        self.log_text = gr.Textbox(visible="hidden", elem_id="run-log-text")

    def _draw_curves(self) -> None:
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
            self.at = gr.Slider(
                0,
                1,
                value=1,
                step=1,
                label="After evaluation (0: before it learned)",
                visible=False,
                elem_id="samples-at",
                buttons=[],
            )
            self.samples = gr.HTML("", elem_id="samples", apply_default_css=False)
            with gr.Accordion("Learning rate", open=False, elem_id="rate-panel"):
                self.rate = gr.LinePlot(
                    x="step", y="learning rate", height=180, elem_id="rate-plot", buttons=[], show_label=False
                )

    @property
    def outputs(self) -> list[Any]:
        """What `look` fills."""
        return list(self._parts().values())

    def _parts(self) -> dict[str, Any]:
        return {
            **{"picker": self.picker, "status": self.status, "act": self.act, "curves": self.curves},
            **{"loss": self.loss, "rate": self.rate, "at": self.at, "samples": self.samples, "stop": self.stop},
            **{"resume": self.resume, "which": self.which, "chat": self.chat, "download": self.download},
            **{"queue": self.queue.view, "seen": self.seen, **self.desk.parts(), **self.export.parts()},
        }

    def _filled(self, values: dict[str, Any]) -> tuple[Any, ...]:
        """A value for each output; those without one stay as they are."""
        return tuple(values.get(name, gr.skip()) for name in self._parts())

    def connect(self, chat_with: Callable[..., Any], chat_outputs: list[Any], talk: Any) -> None:
        """Join the events.

        Args:
            chat_with: loads the model of a run and shows the chat; takes a run's id, the token, the conversation and
                the request.
            chat_outputs: what it fills.
            talk: the component that keeps the conversation.
        """
        inputs = [self.picker, self.at, self.seen, self.token]
        self.timer.tick(self.look, inputs, self.outputs, **QUICK)
        listen_for_choice(self.picker, self.choose, inputs, self.outputs, **QUICK)
        self.at.input(self.compare, [self.picker, self.at, self.token], [self.samples], **QUICK)
        for button, do in ((self.stop, self.ask_stop), (self.resume, self.go_on)):
            button.click(do, [self.picker, self.token], None, **QUICK).then(self.look, inputs, self.outputs, **QUICK)
        self.act.click(self.follow, [self.picker, self.seen, self.token], [self.picker], **QUICK).then(
            self.look, inputs, self.outputs, **QUICK
        )
        self.queue.connect(self.look, inputs, self.outputs)
        self.export.connect(self.picker)
        self.panel.connect(self.picker, self.look, inputs, self.outputs)
        self.download.click(self.read_log, [self.picker, self.token], [self.log_text], **QUICK).then(
            None, [self.log_text], None, js=saving("training-log.txt", "text/plain"), api_visibility="private"
        )
        self.chat.click(
            chat_with,
            [self.which, self.token, talk],
            chat_outputs,
            show_progress_on=[self.status],
            api_visibility="private",
            concurrency_limit=1,
            concurrency_id="model",
        )

    def begin(self, visitor: str) -> tuple[Any, ...]:
        """The view of a page that has just been opened: the newest run at work, else the newest."""
        runs = self.services.runs_of(visitor)
        active = [run for run in runs if run.state().status in ACTIVE]
        waiting = [run for run in runs if run.state().status == "queued"]
        return self.show(next(iter([*active, *waiting, *runs]), None), runs)

    def begun(self, prepare: Callable[[Tell], Run], token: str, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Begin a run and show it: how far its preparation is, and the outputs.

        Args:
            prepare: makes the run folder.
        """
        kept = (gr.skip(),) * len(self.outputs)
        run = yield from run_start.begun(
            self.services, prepare, lambda text: (gr.HTML(working(text), visible=True), *kept)
        )
        if run is not None:
            kept = self.show(run, self.services.runs_of(self.visitors.name(token, request)))
        yield gr.HTML("", visible=False), *kept

    def look(self, name: str | None, at: Any, seen: dict[str, Any], token: str, request: gr.Request) -> tuple[Any, ...]:
        """What has changed since the last look; nothing else is sent."""
        try:
            visitor = self.visitors.name(token, request)
            runs = self.services.runs_of(visitor)
            chosen = next((run for run in runs if run.id == name), runs[0] if runs else None)
        except (ChatAppError, OSError):  # A folder that is being removed; the next look will tell.
            return (gr.skip(),) * len(self.outputs)
        return self.show(chosen, runs, at, seen if isinstance(seen, dict) else {})

    def choose(
        self, name: str | None, at: Any, seen: dict[str, Any], token: str, request: gr.Request
    ) -> tuple[Any, ...]:
        """The person has chosen a run; where it is the one that is shown already, only what has changed is sent."""
        is_shown = isinstance(seen, dict) and seen.get("run") == name
        return self.look(name, at, seen if is_shown else {}, token, request)

    def compare(self, name: str | None, at: Any, token: str, request: gr.Request) -> str:
        """The person has chosen an evaluation: the replies then."""
        try:
            run = self.services.run_of(self.visitors.name(token, request), str(name))
        except ChatAppError as error:
            warn(error)
            return ""
        samples = run.samples()
        return run_report.sample_table(samples, _step_at(run_report.sample_steps(samples), at))

    def show(
        self, run: Run | None, runs: list[Run], at: Any = None, seen: dict[str, Any] | None = None
    ) -> tuple[Any, ...]:
        """A value for each of the outputs; what the page has already, it keeps."""
        seen = seen or {}
        now: dict[str, Any] = {"labels": run_report.labels(runs)}
        now["run"] = run.id if run is not None else None
        now["queue"] = self.queue.rows(runs)
        values: dict[str, Any] = {"seen": now}
        if any(seen.get(name) != now[name] for name in ("labels", "run")):
            values["picker"] = gr.Dropdown(choices=now["labels"], value=now["run"], visible=bool(runs))
        if seen.get("queue") != now["queue"]:
            values["queue"] = gr.HTML(value=queue_list(now["queue"]), visible=bool(now["queue"]))
        if run is None:
            hidden = ("curves", "act", "stop", "resume", "which", "chat", "download", "desk", "export")
            nothing = {name: gr.update(visible=False) for name in hidden}
            return self._filled({**values, **nothing, "status": NOBODY})
        return self._filled({**values, **self._of_run(run, at, seen, now)})

    def _of_run(self, run: Run, at: Any, seen: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
        """What has changed in the run that is looked at. `now` is completed for the next look."""
        state = run.state()
        now["status"], now["model"], now["checkpoints"] = state.status, run.has_model, run.checkpoint_steps()
        now["metrics"], now["samples"] = _stamp(run, "metrics.jsonl"), _stamp(run, "samples.jsonl")
        now["about"] = _stamp(run, "config.json")
        is_new = seen.get("run") != now["run"]

        def moved(*names: str) -> bool:
            return is_new or any(seen.get(name) != now[name] for name in names)

        values: dict[str, Any] = {}
        if moved("status", "model", "checkpoints"):
            values |= self._buttons(run, state.status, now["checkpoints"])
        now["action"] = seen.get("action", "")
        if moved("metrics", "status", "about") or state.status in ACTIVE:
            metrics = run.metrics()
            said = run_report.judged(run, state, metrics)
            now["action"] = said.action if said and self.services.jobs is not None else ""
            values["status"] = run_report.status(run, state, metrics, said=said)
            if moved("metrics"):
                values |= _curves(metrics)
        if is_new or seen.get("action", "") != now["action"]:
            values["act"] = _act_button(now["action"])
        if moved("status", "about", "model"):
            values |= self.desk.values(run) | self.export.values(run)
        if moved("samples"):
            values |= _samples(run, None if is_new else at, seen, now)
        else:
            now["evaluations"] = seen.get("evaluations", 0)
        return values

    def _buttons(self, run: Run, status: str, checkpoints: list[int]) -> dict[str, Any]:
        """Stop, resume, chat, download: those that can be used now; and the models that can be chatted with."""
        can_train = self.services.jobs is not None
        models = [("The best model", run.id)] if run.has_model else []
        models += [(f"Checkpoint of step {step:,}", f"{run.id}@{step}") for step in reversed(checkpoints)]
        has_choice = run.has_model and len(models) > 1
        return {
            "stop": gr.Button(visible=can_train and status in ("queued", "running"), interactive=True),
            "resume": gr.Button(visible=can_train and status in RESUMABLE, interactive=True),
            "which": gr.Dropdown(choices=models, value=run.id if run.has_model else None, visible=has_choice),
            "chat": gr.Button(visible=run.has_model),
            "download": gr.Button(visible=run.log.is_file()),
        }

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

    def follow(self, name: str | None, seen: dict[str, Any], token: str, request: gr.Request) -> Any:
        """Do what the verdict suggests. What that was, the server has kept; the page does not choose it."""
        try:
            run, jobs = self._own(name, token, request)
            if not isinstance(seen, dict) or seen.get("run") != run.id:
                raise RunError("The page shows another run by now.", advice="Look again, and press the button again.")
            new = self._follow(run, jobs, seen.get("action"))
            return gr.skip() if new is None else gr.Dropdown(choices=run_report.labels([new]), value=new.id)
        except ChatAppError as error:
            warn(error)
            return gr.skip()

    def _follow(self, run: Run, jobs: Jobs, action: str | None) -> Run | None:
        """The run that was begun, if any."""
        if action == "keep-best-and-stop":
            jobs.stop(run)
        elif action == "more-epochs":
            give_more_epochs(run)
            jobs.submit(run)
        elif action == "lower-rate":
            new = with_half_the_rate(run, self.services.paths)
            if run.state().status == "running":  # It only gets worse.
                jobs.stop(run)
            jobs.submit(new)
            return new
        return None

    def _own(self, name: str | None, token: str, request: gr.Request) -> tuple[Run, Jobs]:
        jobs = run_start.jobs_of(self.services)
        return self.services.run_of(self.visitors.name(token, request), str(name)), jobs

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


def _act_button(action: Any) -> Any:
    label = run_report.ACTION_WORDS.get(action, "")
    return gr.Button(value=label, visible=bool(label))


def _curves(metrics: list[dict[str, Any]]) -> dict[str, Any]:
    has_points = any("train_loss" in line or "valid_loss" in line for line in metrics)
    return {
        "curves": gr.Column(visible=has_points),
        "loss": gr.LinePlot(value=run_report.losses(metrics)),
        "rate": gr.LinePlot(value=run_report.learning_rates(metrics)),
    }


def _samples(run: Run, at: Any, seen: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The slider through the evaluations, and the table of replies. Who looks at the newest goes on to do so."""
    samples = run.samples()
    steps = run_report.sample_steps(samples)
    last = max(len(steps) - 1, 0)
    now["evaluations"] = last
    is_newest = not isinstance(at, (int, float)) or at >= seen.get("evaluations", 0)
    at = last if is_newest else int(at or 0)
    slider = gr.Slider(maximum=max(last, 1), value=at, visible=last > 1)
    return {"at": slider, "samples": run_report.sample_table(samples, _step_at(steps, at))}


def _step_at(steps: list[int], at: object) -> int:
    """The step of the evaluation of that number; the newest where there is none."""
    is_there = isinstance(at, (int, float)) and 0 <= at < len(steps)
    return steps[int(at)] if is_there else run_report.LATEST  # type: ignore[call-overload]


def _stamp(run: Run, name: str) -> tuple[int, int]:
    """Changes when a file does."""
    try:
        known = (run.folder / name).stat()
    except OSError:
        return (0, 0)
    return (known.st_size, known.st_mtime_ns)
