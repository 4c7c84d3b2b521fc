"""The loss curves of a run, and its answers at each evaluation with a slider to choose one."""

from __future__ import annotations

from typing import Any

import gradio as gr

from chat_app.errors import ChatAppError
from chat_app.runs.run import Run
from chat_app.services import Services
from chat_app.ui.components.escape import warn
from chat_app.ui.components.events import NEWEST, Updates
from chat_app.ui.training import run_report
from chat_app.ui.visitor import Visitors

COLORS = {run_report.TRAINING: "#b47b2a", run_report.VALIDATION: "#12a090"}


class RunCurves:
    """The plots, the slider through the evaluations, and the table of answers.

    Args:
        services: the runs.
        visitors, token: identify who calls.
    """

    def __init__(self, services: Services, visitors: Visitors, token: Any):
        self.services, self.visitors, self.token = services, visitors, token

    def draw(self) -> None:
        """Create the components in the current Gradio context."""
        with gr.Column(visible=False, elem_classes=["run-curves"]) as self.box:
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
        """What `show_metrics`, `show_samples` and `hide` update."""
        return [self.box, self.loss, self.rate, self.at, self.samples]

    def connect(self, picker: Any) -> None:
        """Register the event handlers; `picker` names the run."""
        self.at.input(self.compare, [picker, self.at, self.token], [self.samples], **NEWEST)

    def show_metrics(self, metrics: list[dict[str, Any]]) -> Updates:
        """Plot the metrics that the training has logged so far."""
        has_points = any("train_loss" in line or "valid_loss" in line for line in metrics)
        return {
            self.box: gr.Column(visible=has_points),
            self.loss: gr.LinePlot(value=run_report.make_loss_table(metrics)),
            self.rate: gr.LinePlot(value=run_report.make_rate_table(metrics)),
        }

    def show_samples(self, run: Run, at: Any, last_before: int) -> tuple[Updates, int]:
        """Show the answers of the evaluation that the slider is at.

        Args:
            at: where the slider is; anything but a number stands for the newest.
            last_before: the last evaluation that the page knows. A slider that stands there moves on with the newest.

        Returns:
            The updates, and the last evaluation that there is.
        """
        samples = run.samples()
        steps = run_report.list_sample_steps(samples)
        last = max(len(steps) - 1, 0)
        is_newest = not isinstance(at, (int, float)) or at >= last_before
        at = last if is_newest else int(at or 0)
        table = run_report.render_samples(samples, _find_step(steps, at))
        return {self.at: gr.Slider(maximum=max(last, 1), value=at, visible=last > 1), self.samples: table}, last

    def hide(self) -> Updates:
        """There is no run."""
        return {self.box: gr.Column(visible=False)}

    def compare(self, name: str | None, at: Any, token: str, request: gr.Request) -> str:
        """Show the answers of the evaluation that the person has moved the slider to."""
        try:
            run = self.services.find_run(self.visitors.identify(token, request), str(name))
        except ChatAppError as error:
            warn(error)
            return ""
        samples = run.samples()
        return run_report.render_samples(samples, _find_step(run_report.list_sample_steps(samples), at))


def _find_step(steps: list[int], at: object) -> int:
    """Return the step of the evaluation with this index, or the newest where there is none."""
    is_there = isinstance(at, (int, float)) and 0 <= at < len(steps)
    return steps[int(at)] if is_there else run_report.LATEST  # type: ignore[call-overload]
