"""What this project knows of the inside of Gradio, beyond its documented interface.

It has tests that carry the mark `dependencies`, which `.ci/run` runs with the oldest and the newest version that
pyproject.toml allows. The paths that Gradio answers are known to `guard`, which lets callers through to them; how its
page draws is known to `ui/frames.js` and `ui/turns.js`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr
from fastapi import FastAPI
from gradio.networking import setup_tunnel
from gradio.routes import App
from starlette.routing import Mount

HEAD = "<head>"  # What a page begins with, all of which comes in one piece.


def mounted_page(app: FastAPI) -> App:
    """The application of Gradio's that `mount_gradio_app` has put into another one."""
    return next(route.app for route in app.routes if isinstance(route, Mount) and isinstance(route.app, App))


def is_logged_in(page: App, cookies: Mapping[str, str]) -> bool:
    """Whether a request with these cookies comes from a page that is logged in; some of Gradio's routes do not ask."""
    names = (f"access-token-{page.cookie_id}", f"access-token-unsecure-{page.cookie_id}")
    return any(cookies.get(name) in page.tokens for name in names)


def read_payload(event: gr.EventData, name: str) -> Any:
    """Read a value that the page sent with an event. It may be anything."""
    data = getattr(event, "_data", None)
    return data.get(name) if isinstance(data, dict) else None


def keep_sessions(page: gr.Blocks, count: int) -> None:
    """How many visitors' states are kept."""
    page.state_session_capacity = count


def open_tunnel(host: str, port: int) -> str:
    """A public link to a port of this machine, through a server of Gradio's.

    Raises:
        Exception: of any kind: a program is downloaded and run.
    """
    open_it: Callable[..., str] = setup_tunnel
    return open_it(host, port, secrets.token_urlsafe(32), None, None)
