"""A component that shows turns of a conversation as bubbles, with buttons to copy, edit, retry and undo.

Texts travel as JSON and reach the page as text nodes only, so no text of a user or a model becomes markup, and
copying and editing preserve the text. The drawing is in turns.js.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

SCRIPT = Path(__file__).with_name("conversation_view.js")


def make_conversation_view(value: dict[str, Any], *, label: str, elem_id: str, visible: bool = True) -> gr.HTML:
    """Create the component. Its events are again, takeback, edited, teach and suggest."""
    return gr.HTML(
        value,
        html_template='<div class="turns-frame"></div>',
        js_on_load=SCRIPT.read_text(encoding="utf-8"),
        apply_default_css=False,
        elem_id=elem_id,
        elem_classes=["turns-view"],
        visible=visible,
        caption=label,
    )


def make_view_value(
    rows: Sequence[dict[str, Any]],
    *,
    is_busy: bool = False,
    is_readonly: bool = False,
    name: str = "Model",
    greeting: str = "",
    hints: Sequence[str] = (),
    version: int = 0,
    session: str = "",
    live: str = "",
) -> dict[str, Any]:
    """Build the value that the component shows.

    Args:
        rows: role, text and note of each turn; "mark" tells whether it is copied, "teach" offers to teach it; a "group"
            heads the turns of one of several conversations.
        is_busy: whether the last turn is being written.
        is_readonly: no buttons.
        name: of the model.
        greeting, hints: shown while there are no turns; a hint can be clicked.
        version: grows with each value of a session. A value that arrives after a newer one was drawn is not drawn.
        session: whose versions these are. The first value of another session is drawn, whatever its version.
        live: the name under which the last turn can be followed while it is being written; see `live`.
    """
    return {
        "rows": list(rows),
        "busy": is_busy,
        "readonly": is_readonly,
        "name": name,
        "greeting": greeting,
        "hints": list(hints),
        "version": version,
        "session": session,
        "live": live,
    }
