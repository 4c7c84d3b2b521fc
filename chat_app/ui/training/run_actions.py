"""What can be done with the run that is shown: stop, resume, follow the diagnosis, chat with it, see its log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from chat_app.errors import ChatAppError, RunError
from chat_app.runs.run import RESUMABLE, Run, State
from chat_app.services import Services
from chat_app.training.decisions import allow
from chat_app.training.follow_up_runs import give_more_epochs, with_half_the_rate
from chat_app.training.job_queue import Jobs
from chat_app.ui.components.downloads import make_save_script
from chat_app.ui.components.escape import warn
from chat_app.ui.components.events import QUICK, Updates
from chat_app.ui.training import run_report, start_run
from chat_app.ui.visitor import Visitors

MAX_LOG_BYTES = 1_000_000
ALLOW_WORDS: Mapping[str, str] = {
    "changed-data": "Go on with what has changed",
    "restart": "Begin again from the first step",
}


class RunActions:
    """The buttons and their handlers.

    Args:
        services: the runs and the training queue.
        visitors, token: identify who calls.
    """

    def __init__(self, services: Services, visitors: Visitors, token: Any):
        self.services, self.visitors, self.token = services, visitors, token

    def draw(self) -> None:
        """Create the components in the current Gradio context."""
        with gr.Row(elem_classes=["run-buttons"]):
            self.act = gr.Button("", variant="primary", size="md", visible=False, elem_id="run-act", min_width=180)
            self.stop = gr.Button("Stop", variant="stop", size="md", visible=False, elem_id="run-stop", min_width=110)
            self.allow = gr.Button("", variant="stop", size="md", visible=False, elem_id="run-allow", min_width=180)
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

    @property
    def outputs(self) -> list[Any]:
        """What `show`, `show_action` and `hide` update."""
        return [self.act, self.allow, self.stop, self.resume, self.which, self.chat, self.download]

    def connect(self, picker: Any, seen: Any) -> list[Any]:
        """Register the handlers, and return the events after which the run must be shown again.

        Args:
            picker, seen: the components that hold which run is chosen, and what the page was shown of it.
        """
        self.download.click(self.read_log, [picker, self.token], [self.log_text], **QUICK).then(
            None, [self.log_text], None, js=make_save_script("training-log.txt", "text/plain"), api_visibility="private"
        )
        return [
            self.stop.click(self.stop_run, [picker, self.token], None, **QUICK),
            self.resume.click(self.resume_run, [picker, self.token], None, **QUICK),
            self.allow.click(self.allow_and_resume, [picker, self.token], None, **QUICK),
            self.act.click(self.follow_verdict, [picker, seen, self.token], [picker], **QUICK),
        ]

    def show(self, run: Run, state: State, checkpoints: list[int]) -> Updates:
        """Offer what can be done with a run in this state, and the models of it that can be chatted with."""
        status = state.status
        can_train = self.services.jobs is not None
        models = [("The best model", run.id)] if run.has_model else []
        models += [(f"Checkpoint of step {step:,}", f"{run.id}@{step}") for step in reversed(checkpoints)]
        has_choice = run.has_model and len(models) > 1
        return {
            self.stop: gr.Button(visible=can_train and status in ("queued", "running"), interactive=True),
            self.resume: gr.Button(visible=can_train and status in RESUMABLE and not state.decision, interactive=True),
            self.allow: gr.Button(
                value=ALLOW_WORDS.get(state.decision, ""), visible=can_train and bool(state.decision), interactive=True
            ),
            self.which: gr.Dropdown(choices=models, value=run.id if run.has_model else None, visible=has_choice),
            self.chat: gr.Button(visible=run.has_model),
            self.download: gr.Button(visible=run.log.is_file()),
        }

    def show_action(self, action: str) -> Updates:
        """Offer the action that the diagnosis suggests, if any."""
        label = run_report.ACTION_WORDS.get(action, "")  # type: ignore[call-overload]
        return {self.act: gr.Button(value=label, visible=bool(label))}

    def hide(self) -> Updates:
        """There is no run."""
        return {component: gr.update(visible=False) for component in self.outputs}

    def stop_run(self, name: str | None, token: str, request: gr.Request) -> None:
        """Stop a run after its current step."""
        try:
            run, jobs = self._find_run(name, token, request)
            jobs.stop(run)
        except ChatAppError as error:
            warn(error)

    def resume_run(self, name: str | None, token: str, request: gr.Request) -> None:
        """Submit a run that was stopped to the queue again."""
        try:
            run, jobs = self._find_run(name, token, request)
            jobs.submit(run)
        except ChatAppError as error:
            warn(error)

    def allow_and_resume(self, name: str | None, token: str, request: gr.Request) -> None:
        """Allow what a run waits for, as its state on disk names it, and submit it to the queue again."""
        try:
            run, jobs = self._find_run(name, token, request)
            allow(run, run.state().decision)
            jobs.submit(run)
        except ChatAppError as error:
            warn(error)

    def follow_verdict(self, name: str | None, seen: dict[str, Any], token: str, request: gr.Request) -> Any:
        """Do what the diagnosis suggests. The server has kept the suggestion, so the page cannot choose the action."""
        try:
            run, jobs = self._find_run(name, token, request)
            if not isinstance(seen, dict) or seen.get("run") != run.id:
                raise RunError("The page shows another run by now.", advice="Look again, and press the button again.")
            new = self._carry_out(run, jobs, seen.get("action"))
            return gr.skip() if new is None else gr.Dropdown(choices=run_report.label_runs([new]), value=new.id)
        except ChatAppError as error:
            warn(error)
            return gr.skip()

    def _carry_out(self, run: Run, jobs: Jobs, action: str | None) -> Run | None:
        """Carry an action out, and return the new run if it created one."""
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

    def _find_run(self, name: str | None, token: str, request: gr.Request) -> tuple[Run, Jobs]:
        jobs = start_run.require_jobs(self.services)
        return self.services.find_run(self.visitors.identify(token, request), str(name)), jobs

    def read_log(self, name: str | None, token: str, request: gr.Request) -> str:
        """Read the end of the training log."""
        try:
            run = self.services.find_run(self.visitors.identify(token, request), str(name))
            with open(run.log, "rb") as file:
                file.seek(max(run.log.stat().st_size - MAX_LOG_BYTES, 0))
                return file.read().decode("utf-8", "replace")
        except (ChatAppError, OSError):
            warn("There is no log of this run.")
            return ""
