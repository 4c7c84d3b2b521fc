"""How the page's events are called: at once or as work that takes long, and what the page sends along with one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import gradio as gr

# Nothing is marked as being worked on: otherwise a page goes through all that any event has ever filled with each piece
# of a reply, only to tell it that nothing is to be shown.
_UNMARKED: Mapping[str, Any] = MappingProxyType({"show_progress": "hidden", "show_progress_on": []})
QUICK: Mapping[str, Any] = MappingProxyType({**_UNMARKED, "api_visibility": "private", "queue": False})
"""For what is done at once."""


def slow(kind: str, at_once: int) -> dict[str, Any]:
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


def given(event: gr.EventData, name: str) -> Any:
    """What the page sent along with an event, which may be anything."""
    data = getattr(event, "_data", None)
    return data.get(name) if isinstance(data, dict) else None
