"""Numbers and times in words for the page. Pure: no files, no components."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import pairwise

from chat_app.runs.run import Status

STATUS_WORDS: Mapping[Status, str] = {
    "queued": "Waiting",
    "running": "Learning",
    "stopping": "Stopping",
    "stopped": "Stopped",
    "interrupted": "Interrupted",
    "failed": "Failed",
    "done": "Finished",
}
LONG_PAUSE = 30.0  # Seconds without a point after which the run must have been stopped and resumed in between.


def format_count(number: int, singular: str, plural: str | None = None) -> str:
    """Format a number with its noun: "1 turn", "2,000 turns"."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def format_parameters(number: int) -> str:
    """Format a number of parameters: "14 million"."""
    for word, factor in (("billion", 10**9), ("million", 10**6), ("thousand", 10**3)):
        if number >= factor:
            value = number / factor
            return f"{value:.1f} {word}" if value < 10 else f"{value:.0f} {word}"
    return str(number)


def format_moment(seconds: float) -> str:
    """Format a Unix time in the local time zone: "21 Nov, 23:07"."""
    return time.strftime("%d %b, %H:%M", time.localtime(seconds)).lstrip("0")


def describe_reply(
    tokens: int, per_second: float, used: int, window: int, dropped_turns: int = 0, cut_tokens: int = 0, end: str = ""
) -> str:
    """Write the quiet line under a reply. A `window` of 0 is not known."""
    memory = f"{used:,} of {window:,} tokens of memory used" if window else f"{used:,} tokens in all"
    speed = f", {per_second:.0f} a second" if per_second >= 0.5 else ""
    parts = [f"{format_count(tokens, 'token')}{speed}, {memory}."]
    if dropped_turns == 1:
        parts.append("The oldest turn no longer fits and was not read.")
    elif dropped_turns:
        parts.append(f"The {dropped_turns} oldest turns no longer fit and were not read.")
    if cut_tokens:
        parts.append("A turn was too long: its beginning was not read.")
    if end:
        parts.append(end)
    return " ".join(parts)


def estimate_time_left(points: Sequence[tuple[float, int]], total_steps: int, now: float) -> float | None:
    """Estimate the seconds until the last step from the times at which steps were reached.

    Args:
        points: (seconds since 1970, step), oldest first. Only the newest count; pauses of a run that was stopped do
            not.

    Returns:
        None while there is too little to tell.
    """
    newest = list(points)[-80:]
    seconds, steps = 0.0, 0
    for (earlier, before), (later, after) in pairwise(newest):
        pause = later - earlier
        usual = seconds / steps if steps else pause
        if after < before or pause < 0 or pause > max(LONG_PAUSE, 20 * usual * max(after - before, 1)):
            seconds, steps = 0.0, 0
            continue
        seconds, steps = seconds + pause, steps + after - before
    if not steps or total_steps <= 0:
        return None
    reached_at, reached = newest[-1]
    left = (total_steps - reached) * seconds / steps - max(now - reached_at, 0.0)
    return max(left, 0.0)
