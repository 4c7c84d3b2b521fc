"""How the page's events are called: at once or as work that takes long."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from chat_app.ui.components.gradio_internals import read_payload

__all__ = ["QUICK", "Updates", "limit_concurrency", "listen_for_choice", "read_payload"]

Updates = dict[Any, Any]
"""What a handler returns: an update for each component that changes. Gradio leaves the event's other outputs as they
are; at least one must be named."""

# Nothing is marked as being worked on: otherwise a page goes through all that any event has ever filled with each piece
# of a reply, only to tell it that nothing is to be shown.
_UNMARKED: Mapping[str, Any] = MappingProxyType({"show_progress": "hidden", "show_progress_on": []})
QUICK: Mapping[str, Any] = MappingProxyType({**_UNMARKED, "api_visibility": "private", "queue": False})
"""For what is done at once."""


def limit_concurrency(kind: str, at_once: int) -> dict[str, Any]:
    """For work that takes long.

    Args:
        kind: what waits for the same free place.
        at_once: how many of that kind are worked on.
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
    with what the page was filled with before, and do nothing if it is the same.
    """
    return dropdown.blur(handler, inputs, outputs, **how)
