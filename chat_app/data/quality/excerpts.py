"""Excerpts of texts for reports: short, on one line, with private data masked."""

from __future__ import annotations

from chat_app.data.quality.pii import PLACEHOLDERS, PrivateSpan, find_private, may_hold_private

BEFORE, AFTER = 24, 64  # characters shown before and after the position
LOOKED_AT = 10_000  # characters on either side that are searched for private data


def quote(text: str, start: int = 0) -> str:
    """An excerpt of the text around character `start`, with placeholders for private data."""
    offset = max(start - LOOKED_AT, 0)
    near = text[offset : start + LOOKED_AT]
    spans = find_private(near) if may_hold_private(near) else []
    first, end = max(start - offset - BEFORE, 0), min(start - offset + AFTER, len(near))
    for span in spans:  # the excerpt grows so that it cuts none in two
        if span.start < first < span.end:
            first = span.start
        if span.start < end < span.end:
            end = span.end
    shown = _join_lines(_mask(near, [span for span in spans if first <= span.start and span.end <= end], first, end))
    return f"{'…' if first + offset else ''}{shown}{'…' if end + offset < len(text) else ''}"


def _mask(text: str, spans: list[PrivateSpan], first: int, end: int) -> str:
    pieces = []
    for span in spans:
        pieces += [text[first : span.start], PLACEHOLDERS[span.kind]]
        first = span.end
    return "".join([*pieces, text[first:end]])


def _join_lines(text: str) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in " ".join(text.split()))
