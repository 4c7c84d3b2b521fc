"""Short notices as pieces of the page: work under way, and why something was refused. Pure."""

from __future__ import annotations

from chat_app.ui.components.escape import escape


def render_progress(text: str) -> str:
    """What is being done, while it is done."""
    return f'<p class="working" role="status">{escape(text)}</p>'


def render_refusal(why: str) -> str:
    """Why something cannot be used or done."""
    return f'<p class="bad" role="alert">{escape(why)}</p>'
