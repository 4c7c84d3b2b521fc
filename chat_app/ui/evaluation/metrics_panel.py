"""Numbers before and after: a table that says better or worse, with bars, and as a file for a spreadsheet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gradio as gr

from chat_app.errors import DataError
from chat_app.evaluation.comparison import MEASURES, as_csv, compare, figure, summary
from chat_app.evaluation.evaluate import Evaluation
from chat_app.evaluation.runner import evaluate_models, spread
from chat_app.system.progress import Progress, ProgressCallback
from chat_app.ui.components import formatting as words
from chat_app.ui.components.downloads import saving
from chat_app.ui.components.escape import shown
from chat_app.ui.evaluation.subjects import MOST_CONVERSATIONS, Bench, Subject, whole

REPLIES, MAX_REPLIES = 40, 200
ABOUT = """<p class="quiet">Both models read the same conversations and answer the same questions. Lower surprise and
replies closer to the right ones are better.</p>"""


class NumbersPanel:
    """The components and what they do.

    Args:
        bench: chooses and works.
    """

    title = "Numbers"

    def __init__(self, bench: Bench):
        self.bench = bench

    def draw(self) -> None:
        """Put the components where the page is being built."""
        gr.HTML(ABOUT, apply_default_css=False)
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

    def connect(self, choice: list[Any], busy: list[Any], long: dict[str, Any]) -> list[Any]:
        """Join the events; those that Stop ends are returned."""
        outputs = [*busy, self.report, self.text, self.save]
        self.save.click(None, [self.text], None, js=saving("evaluation.csv", "text/csv"), api_visibility="private")
        return [self.start.click(self.measure, [*choice, self.replies], outputs, **long)]

    def measure(
        self,
        token: str,
        after: str,
        before: str,
        source: str,
        files: list[str] | None,
        replies: float,
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:
        """Measure what was chosen, and show it."""

        def begin() -> Callable[[ProgressCallback], tuple[Any, ...]]:
            visitor = self.bench.visitors.name(token, request)
            subjects = [self.bench.subject(after, visitor)]
            if (earlier := self.bench.earlier(before, after, visitor)) is not None:
                subjects.insert(0, earlier)
            read, what = self.bench.conversations(source, after, files, visitor)
            most = whole(replies, 0, MAX_REPLIES, "replies can be written")

            def do(progress: ProgressCallback) -> tuple[Any, ...]:
                progress(Progress("Reading the conversations."))
                total = sum(1 for _ in read(progress))
                chosen = spread(read(progress), total, MOST_CONVERSATIONS)
                if not chosen:
                    raise DataError("There are no conversations to measure on.", advice="Bring another file.")
                names = [one.name for one in subjects]
                found = evaluate_models(names, chosen, self.bench.services.paths, most_replies=most, progress=progress)
                titles = _columns([one.title for one in subjects])
                table = as_csv(dict(zip(titles, (one.as_dict() for one in found), strict=True)))
                return report_of(subjects, found, what, total), table, gr.Button(visible=True)

            return do

        yield from self.bench.follow(begin, lambda why: (why, "", gr.Button(visible=False)))


def _columns(titles: Sequence[str]) -> list[str]:
    return [f"before: {titles[0]}", f"after: {titles[-1]}"] if len(titles) == 2 else list(titles)


def report_of(subjects: Sequence[Subject], found: Sequence[Evaluation], what: str, total: int) -> str:
    """One or two evaluations as a table.

    Args:
        subjects: what was measured; with two, the first is how it was before.
        what: what to call the conversations.
        total: how many conversations there were; fewer may have been measured.
    """
    last = found[-1].as_dict()
    counted = found[-1].conversations
    amount = f"{total:,} {what}" if counted == total else f"{counted:,} of {total:,} {what}, spread evenly"
    about = f"Measured on {amount}; {words.count(found[-1].replies, 'reply', 'replies')} written."
    if len(found) == 1:
        rows = "".join(
            f'<tr><th scope="row">{one.label}<span>{one.meaning}</span></th>'
            f'<td data-name="Value">{figure(one, last[one.name])}</td></tr>'
            for one in MEASURES
        )
        head = f'<th scope="col">{shown(subjects[0].title)}</th>'
        return _table(head, rows) + f'<p class="quiet">{shown(about)}</p>'
    changes = compare(found[0].as_dict(), last)
    rows = "".join(_row(one.measure.label, one.measure.meaning, one) for one in changes)
    head = "".join(
        f'<th scope="col">{when}<span>{shown(one.title)}</span></th>'
        for when, one in zip(("Before", "After"), subjects, strict=True)
    )
    said = summary(changes)
    if found[0].learned_tokens != found[-1].learned_tokens:
        about += " The two cut words into pieces differently: compare bits per byte, not perplexity."
    return (
        f'<p class="verdict-line">{shown(said)}</p>'
        + _table(head + '<th scope="col">Change</th>', rows)
        + f'<p class="quiet">{shown(about)}</p>'
    )


def _table(head: str, rows: str) -> str:
    top = f'<thead><tr><th scope="col">Measure</th>{head}</tr></thead>'
    return f'<table class="measures">{top}<tbody>{rows}</tbody></table>'


def _row(label: str, meaning: str, change: Any) -> str:
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
