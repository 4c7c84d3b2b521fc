"""The contents of a run folder as HTML and tables: state, curves, sample replies. Creates no components."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from chat_app.config.fields import AUTOMATIC
from chat_app.data.splitting import explain_no_validation
from chat_app.errors import RunError
from chat_app.formatting import format_duration
from chat_app.runs.diagnosis import Action, Diagnosis, diagnose, newest_answers
from chat_app.runs.history import count_damaged_lines
from chat_app.runs.loss_plot import thinned
from chat_app.runs.run import Run, State
from chat_app.training.small_sets import read_small_set
from chat_app.ui.components import formatting
from chat_app.ui.components.escape import escape
from chat_app.ui.models.model_choices import title_run

LATEST = -1
TRAINING, VALIDATION = "training", "validation"
Metrics = Sequence[Mapping[str, Any]]
STOPPED_ITSELF = Diagnosis(
    "done learning",
    "It stopped by itself, because it no longer got better on conversations it did not read.",
    "The best model is kept: chat with it.",
)
ACTION_WORDS: Mapping[Action, str] = {
    "keep-best-and-stop": "Stop and keep the best",
    "more-epochs": "Learn for more epochs",
    "lower-rate": "Start again at half the rate",
}


def title_runs(runs: Sequence[Run]) -> dict[str, str]:
    """Map ids to titles. Equal titles are told apart by the end of the id."""
    plain = {run.id: title_run(run) for run in runs}
    counts = Counter(plain.values())
    return {name: f"{title} ({name[-4:]})" if counts[title] > 1 else title for name, title in plain.items()}


def label_runs(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """List (label, id) of each run."""
    called = title_runs(runs)
    return [(f"{called[run.id]} · {formatting.STATUS_WORDS[run.state().status]}", run.id) for run in runs]


def make_loss_table(metrics: Metrics) -> pd.DataFrame:
    """Build the table of step, loss and curve. Both curves always occur, so that the plot's colours are fixed."""
    rows = [
        (line["step"], line[name], which)
        for name, which in (("train_loss", TRAINING), ("valid_loss", VALIDATION))
        for line in thinned([line for line in metrics if name in line and "step" in line])
    ]
    absent = {TRAINING, VALIDATION} - {row[2] for row in rows}
    return pd.DataFrame([*rows, *((0, None, which) for which in sorted(absent))], columns=["step", "loss", "which"])


def make_rate_table(metrics: Metrics) -> pd.DataFrame:
    """Build the table of step and learning rate."""
    lines = thinned([line for line in metrics if "learning_rate" in line and "step" in line])
    return pd.DataFrame([(line["step"], line["learning_rate"]) for line in lines], columns=["step", "learning rate"])


def diagnose_run(run: Run, state: State, metrics: Metrics) -> Diagnosis | None:
    """Diagnose the curves of a run. None while there are none."""
    if not metrics:
        return None
    try:
        about = run.about()
    except RunError:
        about = {}
    kept_aside = (about.get("valid_conversations") or 0) + (about.get("valid_texts") or 0)
    is_done = state.status == "done"
    steps = state.step if is_done else state.total_steps
    small = read_small_set(about)
    keeps_last = small is not None and small.keep_last
    said = diagnose(
        metrics, total_steps=steps, has_validation=kept_aside > 0, status=state.status, keeps_last=keeps_last
    )
    if is_done and state.step < state.total_steps and said.action == "more-epochs":
        return STOPPED_ITSELF  # Early stopping has seen more evaluations than the curve has points.
    return said


def describe_plan(run: Run) -> str:
    """Describe how the run is trained, why so, and what the dry run measured. Empty until that is decided."""
    try:
        about, chosen = run.about(), run.config().method
    except RunError:
        return ""
    plan = about.get("plan")
    if not isinstance(plan, dict) or not plan.get("words"):
        return ""
    how = "as you chose" if chosen != AUTOMATIC else "the best that fits into the memory that was free"
    expected = plan.get("sentence")
    measured = f" Tried before the start: {expected}." if expected else ""
    return f"{plan['words']} ({how}).{measured}"


def render_status(
    run: Run, state: State, metrics: Metrics, now: float | None = None, said: Diagnosis | None = None
) -> str:
    """Render the state, the progress bar, the facts and the diagnosis."""
    word = formatting.STATUS_WORDS[state.status]
    share = min(state.step / state.total_steps, 1.0) if state.total_steps else 0.0
    share = 1.0 if state.status == "done" else share
    facts = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in _list_facts(run, state, metrics, time.time() if now is None else now)
    )
    plan = describe_plan(run)
    return (
        f'<section class="run {state.status}" data-status="{state.status}" aria-label="The run">'
        f'<p class="run-head"><span class="badge">{word}</span> '
        f"<span>{escape(state.reason or _describe_state(state))}</span></p>"
        f'<div class="bar" role="progressbar" aria-label="Progress" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{share * 100:.0f}"><span style="width:{share * 100:.1f}%"></span></div>'
        f'<dl class="facts">{facts}</dl>'
        f"{_render_plan(plan) if plan else ''}{_render_verdict(said) if said else ''}</section>"
    )


def _render_plan(plan: str) -> str:
    return f'<p class="plan">{escape(plan)}</p>'


def _render_verdict(said: Diagnosis) -> str:
    advice = f" {escape(said.advice)}" if said.advice else ""
    kind = said.kind.replace(" ", "-")
    return f'<p class="verdict" data-verdict="{kind}"><b>{escape(said.sentence)}</b>{advice}</p>'


def _describe_state(state: State) -> str:
    if state.status == "running":
        return "It reads your conversations and gets better step by step."
    return ""


def _list_facts(run: Run, state: State, metrics: Metrics, now: float) -> list[tuple[str, str]]:
    facts = []
    if state.total_steps:
        facts.append(("Step", f"{state.step:,} of {state.total_steps:,}"))
    newest: dict[str, Any] = {}
    for line in metrics:
        newest.update(line)
    if state.status == "running":
        points = [(line["time"], line["step"]) for line in metrics if "time" in line and "step" in line]
        if points and state.step > points[-1][1]:  # The state and the metrics are written at different times.
            points.append((state.time, state.step))
        left = formatting.estimate_time_left(points, state.total_steps, now)
        facts.append(("Time left, at most", format_duration(left) if left is not None else "soon known"))
        if "tokens_per_second" in newest:
            facts.append(("Speed", f"{newest['tokens_per_second']:,.0f} tokens a second"))
    perplexities = [line["valid_perplexity"] for line in metrics if "valid_perplexity" in line]
    if perplexities:
        best = min(perplexities[1:] or perplexities)  # The first is the perplexity of the base model.
        text = (
            f"{_format_perplexity(best)}"
            if len(perplexities) == 1
            else f"{_format_perplexity(perplexities[0])} → {_format_perplexity(best)}"
        )
        facts.append(("Perplexity (lower is better)", text))
    if (answers := newest_answers(metrics)) is not None:
        facts.append(("Right answers", f"{answers[0]} of {answers[1]} questions in other words"))
    try:
        about = run.about()
    except RunError:
        return facts
    if about.get("train_texts"):
        facts.append(
            ("Pieces of text", f"{about['train_texts']:,} to learn, {about.get('valid_texts') or 0:,} to test")
        )
    if about.get("train_conversations"):
        facts.append(("Conversations", _count_conversations(run, about)))
    damaged = count_damaged_lines(run.folder / "metrics.jsonl")
    if damaged:
        facts.append(("Curves", f"{formatting.format_count(damaged, 'damaged line')} left out"))
    if about.get("resumed_from"):
        facts.append(("Checkpoints", str(about["resumed_from"])))
    return facts


def _count_conversations(run: Run, about: Mapping[str, Any]) -> str:
    learned, kept = about["train_conversations"], about.get("valid_conversations") or 0
    if kept:
        return f"{learned:,} to learn, {kept:,} to test"
    try:
        reason = explain_no_validation(run.config().valid_share, learned)
    except RunError:
        return f"{learned:,} to learn, none to test"
    return f"{learned:,} to learn, none to test: {reason}"


def _format_perplexity(number: float) -> str:
    return f"{number:,.1f}" if number < 100 else f"{number:,.0f}"


def list_sample_steps(samples: Metrics) -> list[int]:
    """List the steps at which sample replies were logged, oldest first."""
    return sorted({int(line["step"]) for line in samples if "step" in line})


def render_samples(samples: Metrics, step: object = LATEST) -> str:
    """Render for each sample prompt the reply before the training and the reply at `step`."""
    steps = list_sample_steps(samples)
    if not steps:
        return '<p class="quiet">At each evaluation the model answers the same few questions. They will stand here.</p>'
    step = step if isinstance(step, int) and step in steps else steps[-1]
    replies = {(line.get("prompt"), line.get("step")): line.get("reply", "") for line in samples}
    prompts = dict.fromkeys(line.get("prompt") for line in samples)
    rows = "".join(
        f'<tr><th scope="row" dir="auto">{escape(prompt)}</th>{_render_cell(replies.get((prompt, steps[0])), "Before")}'
        f"{_render_cell(replies.get((prompt, step)), 'Now')}</tr>"
        for prompt in prompts
    )
    now = "Now" if step == steps[-1] else f"At step {step:,}"
    first = steps[0]
    before = "Before it learned" if first == 0 else f"At step {first:,}"
    return (
        f'<table class="samples"><thead><tr><th scope="col">Asked</th><th scope="col">{before}</th>'
        f'<th scope="col">{now}</th></tr></thead><tbody>{rows}</tbody></table>'
    )


def _render_cell(reply: Any, name: str) -> str:
    text = escape(reply) if reply else '<span class="quiet">(nothing)</span>'
    return f'<td dir="auto" data-name="{name}">{text}</td>'
