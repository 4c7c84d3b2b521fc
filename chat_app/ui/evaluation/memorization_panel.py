"""Memorization: what a trained model answers to questions, and how much of it is copied from its training data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from chat_app.conversation import Conversation
from chat_app.data.readers import has_text, iterate_conversations
from chat_app.errors import DataError
from chat_app.evaluation.jobs import generate_in_child
from chat_app.evaluation.memorization import CopyFinding, RunMemorizationIndex
from chat_app.evaluation.selection import extract_prompts
from chat_app.runs.run import Run
from chat_app.system.progress import Progress, ProgressCallback
from chat_app.training.pipeline import choose_sample_prompts
from chat_app.ui.components import formatting
from chat_app.ui.components.escape import escape
from chat_app.ui.components.events import Updates
from chat_app.ui.evaluation.panel import Choice, EvaluationPanel
from chat_app.ui.evaluation.subjects import check_count

QUESTIONS, MAX_QUESTIONS = 12, 60
Row = tuple[str, str, CopyFinding]


class MemorizationPanel(EvaluationPanel):
    """Asks a trained model questions, and searches its training data for each reply."""

    title = "Copied or new"
    about = """Does it answer in its own words, or has it learned yours by heart? It is asked the questions
that were pinned when it learned, then others of your conversations. Nothing here leaves this program."""

    def draw_controls(self) -> None:
        """The number of questions, the button and the report."""
        self.count = gr.Slider(
            1, MAX_QUESTIONS, value=QUESTIONS, step=1, label="Questions to ask", elem_id="copies-count"
        )
        self.start = gr.Button("Look for copies", variant="primary", size="md", elem_id="copies-start")
        self.report = gr.HTML("", elem_id="copies-report", apply_default_css=False)

    @property
    def settings(self) -> list[Any]:
        """How many questions are asked."""
        return [self.count]

    @property
    def results(self) -> list[Any]:
        """The report on the replies."""
        return [self.report]

    def prepare(self, choice: Choice, *settings: Any) -> Callable[[ProgressCallback], Updates]:
        """Find the run whose model was chosen."""
        run = self.subjects.get_run(choice.after, choice.visitor)
        subject = self.subjects.get_subject(choice.after, choice.visitor)
        most, paths = check_count(settings[0], 1, MAX_QUESTIONS, "questions can be asked"), self.subjects.services.paths

        def search(progress: ProgressCallback) -> Updates:
            progress(Progress("Looking through what it learned."))
            index = RunMemorizationIndex.open(run, paths, progress)
            prompts = choose_questions(run, most)
            replies = generate_in_child(subject.name, prompts, paths, None, progress)
            asked = [prompt.turns[-1].text for prompt in prompts]
            rows = [(*one, index.classify_reply(one[1])) for one in zip(asked, replies, strict=True)]
            return {self.report: render_report(rows)}

        return search

    def show_failure(self, reason: str) -> Updates:
        """Show the reason in place of the report."""
        return {self.report: reason}


def choose_questions(run: Run, most: int) -> list[Conversation]:
    """Choose the run's pinned questions, then openings from its validation data, then some from its training data.

    Raises:
        DataError: there is nothing to ask.
    """
    found = {prompt.turns[-1].text: prompt for prompt in choose_sample_prompts(run)}
    for name in ("valid.jsonl", "train.jsonl"):
        path = run.data / name
        if len(found) < most and has_text(path):
            for prompt in extract_prompts(iterate_conversations(path), most + len(found)):
                found.setdefault(prompt.turns[-1].text, prompt)
    if not found:
        raise DataError("There is nothing to ask this model.")
    return list(found.values())[:most]


def render_report(rows: Sequence[Row]) -> str:
    """Render the replies with their marks."""
    kinds = Counter(copy.kind for *_, copy in rows)
    counted = formatting.format_count(len(rows), "reply", "replies")
    head = f"Of {counted}: {kinds['copied']} copied, {kinds['partly copied']} partly copied, {kinds['new']} new."
    body = "".join(
        f'<tr><th scope="row">{escape(prompt)}</th><td data-name="Reply">{escape(reply)}</td>'
        f'<td data-name="Copied?">{render_mark(copy)}<span class="why">{escape(copy.sentence)}</span></td></tr>'
        for prompt, reply, copy in rows
    )
    return (
        f'<p class="verdict-line">{escape(head)}</p><table class="samples copies"><thead><tr>'
        f'<th scope="col">Question</th><th scope="col">Reply</th><th scope="col">Copied?</th></tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )


def render_mark(copy: CopyFinding) -> str:
    """Render a small mark in the colour of its kind."""
    return f'<span class="copy-badge {copy.kind.replace(" ", "-")}">{escape(copy.label)}</span>'
