"""The reading report and the data check as HTML. Pure: creates no components, reads no files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from chat_app.conversation import Conversation
from chat_app.data.dataset import DatasetFacts
from chat_app.data.quality import NOT_LOOKED_FOR, Check, Finding, Histogram
from chat_app.data.readers import Preview, Problem
from chat_app.formatting import format_bytes
from chat_app.ui.chat.session import ChatTurn, make_rows
from chat_app.ui.components import formatting
from chat_app.ui.components.conversation_view import make_view_value
from chat_app.ui.components.escape import escape

MAX_PROBLEMS = 100
PREVIEW_CONVERSATIONS = 3
PREVIEW_TURNS = 6
MAX_PREVIEW_LENGTH = 400
KIND_WORDS = {
    "tsv": "text with tabs",
    "csv": "a table (CSV)",
    "xlsx": "an Excel table",
    "parquet": "a Parquet table",
    "jsonl": "JSON Lines",
    "json": "JSON",
    "marked": "text with speaker marks",
    "dialogpt": "DialoGPT's weighted lines",
    "dailydialog": "DailyDialog",
    "empathetic": "EmpatheticDialogues",
    "personachat": "Persona-Chat",
    "blended": "BlendedSkillTalk",
    "whatsapp": "a WhatsApp chat",
    "telegram": "a Telegram chat",
    "discord": "a Discord chat",
    "slack": "a Slack export",
    "messenger": "a Messenger or Instagram chat",
    "line": "a LINE chat",
    "kakaotalk": "a KakaoTalk chat",
    "signal": "a Signal chat",
    "imessage": "an iMessage chat",
    "sms": "text messages (SMS)",
    "google_chat": "a Google Chat export",
    "skype": "a Skype export",
    "irc": "an IRC log",
    "names": "lines with names",
    "subtitles": "subtitles",
    "meeting": "a meeting's transcript",
    "chatgpt": "a ChatGPT export",
    "claude": "a Claude export",
    "sillytavern": "a SillyTavern chat",
    "oobabooga": "a chat of text-generation-webui",
    "intents": "intents with patterns and responses",
    "rasa": "a Rasa bot",
    "chatterbot": "a ChatterBot corpus",
    "aiml": "AIML",
    "dialogflow": "a Dialogflow agent",
    "bot_framework": "a Bot Framework chat",
    "eos_lines": "turns between end-of-text marks",
    "cornell": "Cornell Movie-Dialogs",
    "parlai": "ParlAI's text",
    "oasst": "OpenAssistant's trees",
    "multiwoz": "MultiWOZ",
    "schema_guided": "Schema-Guided Dialogue",
    "squad": "SQuAD",
    "text": "plain text",
    "hub": "a data set of the Hub",
}
PART_WORDS = {"train": "to learn", "valid": "for validation", "test": "for a test"}


def make_preview(conversations: Iterable[Conversation]) -> dict[str, Any]:
    """Build a shortened preview of the first conversations."""
    rows: list[dict[str, Any]] = []
    for number, conversation in enumerate(islice(conversations, PREVIEW_CONVERSATIONS), start=1):
        turns = make_rows(ChatTurn(message.role, message.text) for message in conversation.messages[:PREVIEW_TURNS])
        for row in turns:
            row["text"] = (
                row["text"] if len(row["text"]) <= MAX_PREVIEW_LENGTH else row["text"][:MAX_PREVIEW_LENGTH] + "…"
            )
        turns[0]["group"] = f"Conversation {number}"
        if len(conversation.messages) > PREVIEW_TURNS:
            turns[-1]["note"] = f"and {len(conversation.messages) - PREVIEW_TURNS} more"
        rows += turns
    return make_view_value(rows, is_readonly=True, name="Reply to learn")


def render_plain_text_notice(files: Sequence[Path]) -> str:
    """Render the notice about uploads of plain text without speakers."""
    names = ", ".join(escape(path.name) for path in files)
    size = format_bytes(sum(path.stat().st_size for path in files))
    return (
        f'<p class="notice">Running text: {names} ({size}). Nobody speaks in it, so it does not teach '
        "answering. A new model can learn the language from it: see “Start from nothing” below.</p>"
    )


def render_report(facts: DatasetFacts, problems: Sequence[Problem]) -> str:
    """Render what was read, and a table of the lines that were left out."""
    found = formatting.format_count(facts.conversations, "conversation")
    turns = formatting.format_count(facts.turns, "turn")
    files = facts.files[0] if len(facts.files) == 1 else formatting.format_count(len(facts.files), "file")
    text = f'<p class="good"><strong>{found}</strong> with {turns} in {escape(files)}{_name_kinds(facts.previews)}.</p>'
    if len(facts.parts) > 1:
        parts = ", ".join(f"{count:,} {PART_WORDS[part]}" for part, count in facts.parts.items())
        text += f'<p class="quiet">As its publisher meant it: {parts}.</p>'
    if facts.notes:
        text += '<p class="notice">' + "<br>".join(map(escape, facts.notes)) + "</p>"
    if not facts.problems:
        return f"{text}<p class='quiet'>Every line can be used.</p>"
    return text + _render_problems(problems, facts.problems, len(facts.files) > 1)


def _name_kinds(previews: Sequence[Preview]) -> str:
    kinds = list(dict.fromkeys(KIND_WORDS[preview.kind] for preview in previews))
    return f" ({', '.join(kinds[:3])})" if kinds else ""


def _render_problems(problems: Sequence[Problem], total: int, several: bool) -> str:
    first = problems[:MAX_PROBLEMS]
    rows = "".join(
        f"<tr>{f'<td>{escape(problem.file)}</td>' if several else ''}"
        f"<td>{'' if problem.line is None else f'{problem.line:,}'}</td>"
        f"<td>{escape(problem.reason)}</td><td>{escape(problem.advice)}</td></tr>"
        for problem in first
    )
    more = f" The first {len(first)} of them:" if total > len(first) else ""
    verb = "line was" if total == 1 else "lines were"
    return (
        f'<p class="bad">{total:,} {verb} left out.{more}</p>'
        '<div class="scroll" tabindex="0" role="region" aria-label="Lines that were left out"><table class="problems">'
        f"<thead><tr>{'<th scope=col>File</th>' if several else ''}"
        '<th scope="col">Line</th><th scope="col">Why</th>'
        f'<th scope="col">What to do</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def render_check(check: Check, window_of: str) -> str:
    """Render the counts, histograms and findings of a check. `window_of` names the model of the context window."""
    facts = [("Conversations", f"{check.conversations:,}"), ("Turns", f"{check.turns:,}")]
    if check.tokens is not None:
        facts.append(("Tokens", f"{check.tokens:,}"))
    if check.fitting is not None:
        facts.append((f"Fit the window of {window_of}", _format_percent(check.fitting)))
    if check.languages:
        named = ", ".join(f"{name} {_format_percent(share)}" for name, share in check.languages[:4])
        facts.append(("Languages" if len(check.languages) > 1 else "Language", named))
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    charts = _render_histogram("Turns in a conversation", check.turns_histogram)
    charts += _render_histogram(f"Length in {check.length_unit}", check.length_histogram)
    findings = "".join(map(_render_finding, check.findings))
    found = f'<ul class="findings">{findings}</ul>' if findings else '<p class="good">Nothing to worry about.</p>'
    found += f'<p class="quiet">{NOT_LOOKED_FOR}</p>'
    return f'<dl class="facts">{items}</dl><div class="charts">{charts}</div>{found}'


def _render_finding(finding: Finding) -> str:
    examples = "".join(
        f"<li><span class=where>{escape(spot.file)}, line {spot.line:,}</span> <q>{escape(spot.quote)}</q></li>"
        for spot in finding.spots
    )
    return (
        f'<li data-finding="{escape(finding.name)}"><details><summary><b>{finding.count:,}</b> {escape(finding.title)}'
        f"</summary><p>{escape(finding.advice)}</p><ul>{examples}</ul></details></li>"
    )


def _render_histogram(title: str, histogram: Histogram) -> str:
    """Render the bars from the first to the last that is not empty."""
    filled = [index for index, count in enumerate(histogram.counts) if count]
    if not filled:
        return ""
    first, last = filled[0], filled[-1]
    most = max(histogram.counts)
    bars = "".join(_render_bar(histogram, index, most) for index in range(first, last + 1))
    return f'<figure class="histogram"><figcaption>{escape(title)}</figcaption><div class="bars">{bars}</div></figure>'


def _render_bar(histogram: Histogram, index: int, most: int) -> str:
    count, start = histogram.counts[index], histogram.edges[index]
    label = f"{start:,}"
    if index + 1 == len(histogram.edges):
        label += "+"
    elif histogram.edges[index + 1] - start > 1:
        label += f"–{histogram.edges[index + 1] - 1:,}"
    height = max(round(100 * count / most), 2 if count else 0)
    return (
        f'<div class="column" title="{label}: {count:,}"><span class="amount">{count:,}</span>'
        f'<span class="stick" style="height:{height}%"></span><span class="edge">{label}</span></div>'
    )


def _format_percent(share: float) -> str:
    if 0 < share < 0.005:
        return "under 1 %"
    return f"{min(round(100 * share), 99) if share < 1 else 100} %"
