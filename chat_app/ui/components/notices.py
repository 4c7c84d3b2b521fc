"""Short notices as HTML: the progress of a task, and why something was refused. Pure."""

from __future__ import annotations

from chat_app.ui.components.escape import escape


def render_progress(text: str) -> str:
    """Render a progress message."""
    return f'<p class="working" role="status">{escape(text)}</p>'


def render_refusal(why: str) -> str:
    """Render the reason why something cannot be used or done."""
    return f'<p class="bad" role="alert">{escape(why)}</p>'
