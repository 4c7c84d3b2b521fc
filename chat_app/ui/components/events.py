"""Settings of the page's events, quick and long-running, and the type of what their handlers return."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from chat_app.ui.components.gradio_internals import read_payload

__all__ = ["NEWEST", "QUICK", "Updates", "limit_concurrency", "listen_for_choice", "read_payload"]

Updates = dict[Any, Any]
"""What a handler returns: an update for each component that changes. Gradio leaves the event's other outputs unchanged.
The dict must not be empty."""

# No progress is shown: otherwise each piece of a reply makes the page update the status of every output that any event
# ever had, only to show nothing.
_UNMARKED: Mapping[str, Any] = MappingProxyType({"show_progress": "hidden", "show_progress_on": []})
QUICK: Mapping[str, Any] = MappingProxyType({**_UNMARKED, "api_visibility": "private", "queue": False})
"""Settings of an event that is handled at once, outside the queue."""
NEWEST: Mapping[str, Any] = MappingProxyType({**QUICK, "trigger_mode": "always_last"})
"""As `QUICK`, for a control whose newest value counts. Gradio drops other events that come while one is pending: the
second of two boxes that are ticked in quick succession would do nothing."""


def limit_concurrency(kind: str, at_once: int) -> dict[str, Any]:
    """Return the settings of an event that takes long.

    Args:
        kind: the concurrency group; events of the same kind share the limit.
        at_once: how many of them run at the same time.
    """
    return {
        **_UNMARKED,
        "api_visibility": "private",
        "concurrency_limit": at_once,
        "concurrency_id": kind,
    }


def listen_for_choice(dropdown: Any, handler: Callable[..., Any], inputs: list[Any], outputs: Any, **how: Any) -> Any:
    """Call a handler when something may have been chosen from a drop-down list, and return the event.

    Gradio sends `select` for a choice by the pointer only, not for one by the keyboard. `blur` follows both, once; but
    it is sent as well, and so is `input`, when the focus merely passes by. So the handler must compare what it is given
    with what the page was filled with before, and do nothing if it is the same. The newest event counts: on a busy
    computer a choice comes while the passing by before it is pending, and would be dropped.
    """
    return dropdown.blur(handler, inputs, outputs, **{**how, "trigger_mode": "always_last"})
