"""Metrics before and after a training: a table with verdicts and bars, and the same as CSV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from chat_app.errors import DataError
from chat_app.evaluation.comparison import MEASURES, as_csv, compare, figure, summary
from chat_app.evaluation.evaluation import Evaluation
from chat_app.evaluation.jobs import evaluate_in_child
from chat_app.evaluation.segmentation import describe_tokenizer
from chat_app.evaluation.selection import sample_evenly
from chat_app.system.progress import Progress, ProgressCallback
from chat_app.ui.components import formatting
from chat_app.ui.components.downloads import make_save_script
from chat_app.ui.components.escape import escape
from chat_app.ui.components.events import Updates
from chat_app.ui.evaluation.panel import Choice, EvaluationPanel
from chat_app.ui.evaluation.subjects import MAX_CONVERSATIONS, Subject, check_count

REPLIES, MAX_REPLIES = 40, 200


class MetricsPanel(EvaluationPanel):
    """Measures one or two models on the same conversations."""

    title = "Numbers"
    about = """Both models read the same conversations and answer the same questions. Lower surprise and
replies closer to the right ones are better."""

    def draw_controls(self) -> None:
        """The number of replies, the buttons and the report."""
        self.replies = gr.Slider(
            0,
            MAX_REPLIES,
            value=REPLIES,
            step=10,
            label="Replies to write",
            info="More are slower and tell more; without any, only the surprise is measured.",
            elem_id="evaluate-replies",
        )
        with gr.Row(elem_classes=["run-buttons"]):
            self.start = gr.Button("Measure", variant="primary", size="md", elem_id="evaluate-start", min_width=140)
            self.save = gr.Button("Download as CSV", size="md", visible=False, elem_id="evaluate-csv", min_width=160)
        self.report = gr.HTML("", elem_id="evaluate-report", apply_default_css=False)
        self.text = gr.Textbox(visible="hidden", elem_id="evaluate-csv-text")

    @property
    def settings(self) -> list[Any]:
        """How many replies are written."""
        return [self.replies]

    @property
    def results(self) -> list[Any]:
        """The table, the same as CSV, and the button that saves it."""
        return [self.report, self.text, self.save]

    def connect(self, choice: list[Any], long: dict[str, Any]) -> Any:
        """Register the handlers, the one that saves the table among them."""
        self.save.click(
            None, [self.text], None, js=make_save_script("evaluation.csv", "text/csv"), api_visibility="private"
        )
        return super().connect(choice, long)

    def prepare(self, choice: Choice, *settings: Any) -> Callable[[ProgressCallback], Updates]:
        """Find the models and the conversations."""
        subjects, visitor = self.subjects, choice.visitor
        judged = [subjects.get_subject(choice.after, visitor)]
        if (earlier := subjects.get_baseline(choice.before, choice.after, visitor)) is not None:
            judged.insert(0, earlier)
        read, what = subjects.load_conversations(choice.source, choice.after, choice.files, visitor)
        most = check_count(settings[0], 0, MAX_REPLIES, "replies can be written")

        def measure(progress: ProgressCallback) -> Updates:
            progress(Progress("Reading the conversations."))
            total = sum(1 for _ in read(progress))
            chosen = sample_evenly(read(progress), total, MAX_CONVERSATIONS)
            if not chosen:
                raise DataError("There are no conversations to measure on.", advice="Bring another file.")
            names = [subject.name for subject in judged]
            found = evaluate_in_child(names, chosen, subjects.services.paths, most, progress)
            titles = _name_columns([subject.title for subject in judged])
            table = as_csv(dict(zip(titles, (evaluation.as_dict() for evaluation in found), strict=True)))
            report = render_report(judged, found, what, total)
            return {self.report: report, self.text: table, self.save: gr.Button(visible=True)}

        return measure

    def show_failure(self, reason: str) -> Updates:
        """Show the reason in place of the table."""
        return {self.report: reason, self.text: "", self.save: gr.Button(visible=False)}


def _name_columns(titles: Sequence[str]) -> list[str]:
    return [f"before: {titles[0]}", f"after: {titles[-1]}"] if len(titles) == 2 else list(titles)


def render_report(subjects: Sequence[Subject], found: Sequence[Evaluation], what: str, total: int) -> str:
    """Render one or two evaluations as a table.

    Args:
        subjects: what was measured; with two, the first is how it was before.
        what: what to call the conversations.
        total: how many conversations there were; fewer may have been measured.
    """
    last = found[-1].as_dict()
    counted = found[-1].conversations
    amount = f"{total:,} {what}" if counted == total else f"{counted:,} of {total:,} {what}, spread evenly"
    about = f"Measured on {amount}; {formatting.format_count(found[-1].replies, 'reply', 'replies')} written."
    about += f" {describe_tokenizer(found[-1].bleu_tokenizer)}"
    if len(found) == 1:
        rows = "".join(
            f'<tr><th scope="row">{measure.label}<span>{measure.meaning}</span></th>'
            f'<td data-name="Value">{figure(measure, last[measure.name])}</td></tr>'
            for measure in MEASURES
        )
        head = f'<th scope="col">{escape(subjects[0].title)}</th>'
        return _render_table(head, rows) + f'<p class="quiet">{escape(about)}</p>'
    changes = compare(found[0].as_dict(), last)
    rows = "".join(_render_row(change.measure.label, change.measure.meaning, change) for change in changes)
    head = "".join(
        f'<th scope="col">{when}<span>{escape(subject.title)}</span></th>'
        for when, subject in zip(("Before", "After"), subjects, strict=True)
    )
    said = summary(changes)
    if found[0].learned_tokens != found[-1].learned_tokens:
        about += " The two cut words into pieces differently: compare bits per byte, not perplexity."
    return (
        f'<p class="verdict-line">{escape(said)}</p>'
        + _render_table(head + '<th scope="col">Change</th>', rows)
        + f'<p class="quiet">{escape(about)}</p>'
    )


def _render_table(head: str, rows: str) -> str:
    top = f'<thead><tr><th scope="col">Measure</th>{head}</tr></thead>'
    return f'<table class="measures">{top}<tbody>{rows}</tbody></table>'


def _render_row(label: str, meaning: str, change: Any) -> str:
    first, second = (figure(change.measure, value) for value in (change.before, change.after))
    most = max(abs(change.before or 0), abs(change.after or 0))
    bars = most and "".join(
        f'<i class="{name}" style="width:{round(100 * (value or 0) / most)}%"></i>'
        for name, value in (("before", change.before), ("after", change.after))
    )
    word = f"{change.arrow} {change.verdict}" if change.verdict else "cannot be compared"
    kind = change.verdict if change.verdict in ("better", "worse") else "even"
    return (
        f'<tr><th scope="row">{label}<span>{meaning}</span></th>'
        f'<td data-name="Before">{first}</td><td data-name="After">{second}</td>'
        f'<td class="change {kind}" data-name="Change">{word}'
        f'<span class="pair" aria-hidden="true">{bars or ""}</span></td></tr>'
    )
