"""Short notices as pieces of the page: work under way, and why something was refused. Pure."""

from __future__ import annotations

from chat_app.ui.components.escape import shown


def working(text: str) -> str:
    """What is being done, while it is done."""
    return f'<p class="working" role="status">{shown(text)}</p>'


def refused(why: str) -> str:
    """Why something cannot be used or done."""
    return f'<p class="bad" role="alert">{shown(why)}</p>'
