"""All runs of a visitor: search, rename, delete after a warning, and compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr
import pandas as pd

from chat_app.errors import ChatAppError, RunError
from chat_app.formatting import format_bytes
from chat_app.models.model_card import public_name
from chat_app.runs import catalog
from chat_app.runs.compare import Difference, check_count, list_differences, loss_curve
from chat_app.runs.loss_plot import thinned
from chat_app.runs.run import Run
from chat_app.services import Services
from chat_app.ui.components import formatting
from chat_app.ui.components.escape import clean_text, escape, warn
from chat_app.ui.components.events import NEWEST, QUICK, Updates, limit_concurrency
from chat_app.ui.models.model_choices import title_run
from chat_app.ui.training.run_report import label_runs, title_runs
from chat_app.ui.visitor import Visitors

MAX_SHOWN = 100
# Eight colours that are easy to tell apart in light and dark mode.
COLORS = ("#12a090", "#b47b2a", "#7c6bd6", "#c9517c", "#3b8fc9", "#6f9a2f", "#a2603d", "#8a8580")


class AllRunsPanel:
    """The components of the panel and their handlers.

    Args:
        services: the runs.
        visitors, token: identify who calls.
    """

    def __init__(self, services: Services, visitors: Visitors, token: Any):
        self.services, self.visitors, self.token = services, visitors, token

    def draw(self) -> None:
        """Create the components in the current Gradio context."""
        with gr.Accordion("All runs: find, rename, delete, compare", open=False, elem_id="runs-panel") as self.box:
            self.search = gr.Textbox(
                label="Find", placeholder="a name, a file, a model, a state", max_length=200, elem_id="runs-search"
            )
            self.ticked = gr.CheckboxGroup([], label="Runs", elem_id="runs-list")
            with gr.Row():
                self.compare = gr.Button("Compare", size="md", elem_id="runs-compare", min_width=110)
                self.delete = gr.Button("Delete", size="md", elem_id="runs-delete", min_width=110)
            with gr.Row(equal_height=True, elem_classes=["rename-row"]):
                self.title = gr.Textbox(
                    label="New name for the ticked run", max_length=catalog.LONGEST_TITLE, elem_id="runs-title"
                )
                self.rename = gr.Button("Rename", size="md", elem_id="runs-rename", scale=0, min_width=110)
            with gr.Column(visible=False, elem_id="delete-warning") as self.warning:
                self.doomed = gr.State([])
                self.what_goes = gr.HTML("", elem_id="what-goes", apply_default_css=False)
                with gr.Row():
                    self.really = gr.Button("Delete for good", variant="stop", size="md", elem_id="really-delete")
                    self.keep = gr.Button("Keep", size="md", elem_id="keep-runs")
            with gr.Column(visible=False, elem_classes=["run-curves"]) as self.compared:
                self.plot = gr.LinePlot(
                    x="step",
                    y="loss",
                    color="run",
                    title="Validation loss (lower is better)",
                    color_title="",
                    height=280,
                    elem_id="compare-plot",
                    buttons=[],
                )
                self.table = gr.HTML("", elem_id="compare-table", apply_default_css=False)

    def connect(self, picker: Any, refresh: Any, inputs: list[Any], outputs: list[Any]) -> None:
        """Register the event handlers.

        Args:
            picker: names the run that is looked at; it is ticked when the panel opens.
            look, inputs, outputs: show the run and the list of runs anew.
        """
        listed = [self.search, self.ticked, self.token]
        self.box.expand(self.open, [picker, self.search, self.token], [self.ticked], **QUICK)
        self.search.change(self.list_found, listed, [self.ticked], **NEWEST)
        self.compare.click(
            self.compare_runs, [self.ticked, self.token], [self.compared, self.plot, self.table], **QUICK
        )
        renamed = self.rename.click(self.rename_run, [self.ticked, self.title, self.token], [self.title], **QUICK)
        self.delete.click(
            self.ask_before_deleting, [self.ticked, self.token], [self.warning, self.what_goes, self.doomed], **QUICK
        )
        self.keep.click(self.cancel_deleting, None, [self.warning, self.doomed], **QUICK)
        deleted = self.really.click(
            self.delete_runs, [self.doomed, self.token], [self.warning, self.doomed], **limit_concurrency("deleting", 2)
        )
        for event in (renamed, deleted):
            event.then(self.list_found, listed, [self.ticked], **QUICK).then(refresh, inputs, outputs, **QUICK)

    def open(self, chosen: str | None, text: str, token: str, request: gr.Request) -> Any:
        """Tick the run that is shown when the panel is opened."""
        return self.list_found(text, [chosen] if chosen else [], token, request)

    def list_found(self, text: str, ticked: list[str] | None, token: str, request: gr.Request) -> Any:
        """List the runs that match the search. Ticked runs stay in the list."""
        try:
            runs = self.services.list_runs(self.visitors.identify(token, request))
        except ChatAppError as error:
            warn(error)
            return gr.skip()
        kept = set(ticked or ())
        matching = {run.id for run in catalog.search(runs, clean_text(text)[:200])}
        rows = [row for row in label_runs(runs) if row[1] in matching or row[1] in kept][:MAX_SHOWN]
        return gr.CheckboxGroup(choices=rows, value=[name for _, name in rows if name in kept])

    def compare_runs(self, ticked: list[str] | None, token: str, request: gr.Request) -> Updates:
        """Show the loss curves of the ticked runs in one plot, and the settings in which they differ."""
        try:
            runs = self._find_runs(ticked, token, request)
            check_count(len(runs))
        except ChatAppError as error:
            warn(error)
            return {self.compared: gr.Column(visible=False), self.table: ""}
        names = [f"{number} · {title}" for number, title in enumerate(title_runs(runs).values(), start=1)]
        colors = dict(zip(names, COLORS, strict=False))
        told = public_name if self.services.rules.is_shared else str
        table = render_comparison(names, list_differences(runs, told), colors)
        return {
            self.compared: gr.Column(visible=True),
            self.plot: gr.LinePlot(value=load_curves(names, runs), color_map=colors),
            self.table: table,
        }

    def rename_run(self, ticked: list[str] | None, title: str, token: str, request: gr.Request) -> Any:
        """Give the ticked run a name."""
        try:
            runs = self._find_runs(ticked, token, request)
            if len(runs) != 1:
                raise RunError("Only one run can be renamed at a time.", advice="Tick that one.")
            catalog.rename(runs[0], clean_text(title))
        except ChatAppError as error:
            warn(error)
            return gr.skip()
        return ""

    def ask_before_deleting(self, ticked: list[str] | None, token: str, request: gr.Request) -> Updates:
        """Show what would be deleted, and ask for confirmation."""
        try:
            runs = self._find_runs(ticked, token, request)
            for run in runs:
                catalog.check_deletable(run)
        except ChatAppError as error:
            warn(error)
            return {**self.cancel_deleting(), self.what_goes: ""}
        return {
            self.warning: gr.Column(visible=True),
            self.what_goes: render_warning(runs),
            self.doomed: [run.id for run in runs],
        }

    def cancel_deleting(self) -> Updates:
        """Delete nothing."""
        return {self.warning: gr.Column(visible=False), self.doomed: []}

    def delete_runs(self, doomed: list[str], token: str, request: gr.Request) -> Updates:
        """Delete the runs that the warning named."""
        try:
            for run in self._find_runs(doomed, token, request):
                catalog.delete(run)
        except ChatAppError as error:
            warn(error)
        return self.cancel_deleting()

    def _find_runs(self, names: Sequence[str] | None, token: str, request: gr.Request) -> list[Run]:
        """Return the visitor's own runs of these names.

        Raises:
            RunError: none was named, or one is not there for this visitor.
        """
        visitor = self.visitors.identify(token, request)
        runs = [self.services.find_run(visitor, str(name)) for name in dict.fromkeys(names or ())]
        if not runs:
            raise RunError("No run is ticked.", advice="Tick one in the list.")
        return runs


def load_curves(names: Sequence[str], runs: Sequence[Run]) -> pd.DataFrame:
    """Load the validation curves as a table of step, loss and run."""
    rows: list[tuple[int, float | None, str]] = []
    for name, run in zip(names, runs, strict=True):
        rows += [(step, loss, name) for step, loss in thinned(loss_curve(run))] or [(0, None, name)]
    return pd.DataFrame(rows, columns=["step", "loss", "run"])


def render_comparison(names: Sequence[str], rows: Sequence[Difference], colors: dict[str, str]) -> str:
    """Render results and differing settings with a column for each run."""
    heads = "".join(
        f'<th scope="col" dir="auto"><i class="dot" style="background:{colors[name]}"></i>{escape(name)}</th>'
        for name in names
    )
    body = "".join(
        f'<tr><th scope="row">{escape(row.name)}</th>'
        f"{''.join(f'<td>{escape(value)}</td>' for value in row.values)}</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll wide"><table class="compare"><thead><tr><td></td>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def render_warning(runs: Sequence[Run]) -> str:
    """Render the warning before runs are deleted."""
    items = "".join(f'<li><b dir="auto">{escape(title_run(run))}</b>: {_describe_contents(run)}</li>' for run in runs)
    return (
        f'<p class="bad">This deletes {formatting.format_count(len(runs), "run")} for good:</p>'
        f'<ul class="going">{items}</ul>'
        '<p class="quiet">It cannot be undone. Download what you want to keep first.</p>'
    )


def _describe_contents(run: Run) -> str:
    held = catalog.measure_contents(run)
    parts = [f"its model ({format_bytes(held.model_bytes)})"] if held.model_bytes else ["it has no model yet"]
    if held.checkpoints:
        parts.append(
            f"{formatting.format_count(held.checkpoints, 'checkpoint')} ({format_bytes(held.checkpoint_bytes)})"
        )
    if held.conversations:
        parts.append(f"its copy of {formatting.format_count(held.conversations, 'conversation')}")
    return f"{', '.join(parts)}, its curves and answers; {format_bytes(held.all_bytes)} in all"
