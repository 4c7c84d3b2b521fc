"""A component that shows turns of a conversation as bubbles, with buttons to copy, edit, retry and undo.

Texts travel as JSON and reach the page as text nodes only, so no text of a user or a model becomes markup, and
copying and editing preserve the text. The drawing is in conversation_view.js; the box below the turns, in which a
message is typed, is in message_box.js, because only the browser knows at once what was typed and sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import gradio as gr

SCRIPTS = [Path(__file__).with_name(name) for name in ("conversation_view.js", "message_box.js")]
FRAME = '<div class="turns-frame"></div>'
BOX = '<div class="message-box" id="message"></div>'


class Returned(Protocol):
    """A text that goes back into the box; see `chat.session.ReturnedText`."""

    @property
    def number(self) -> int:
        """Counts them."""

    @property
    def text(self) -> str:
        """What was said."""

    @property
    def was_refused(self) -> bool:
        """Whether it must not be lost."""


def make_conversation_view(
    value: dict[str, Any], *, label: str, elem_id: str, visible: bool = True, has_box: bool = False
) -> gr.HTML:
    """Create the component. Its events are again, takeback, edited and teach; of the box also say and halt.

    Args:
        has_box: whether there is a box below the turns.
    """
    return gr.HTML(
        value,
        html_template=FRAME + BOX if has_box else FRAME,
        js_on_load="\n".join(script.read_text(encoding="utf-8") for script in SCRIPTS),
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
    heard: str = "",
    returned: Returned | None = None,
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
        heard: the page's name of the newest message that arrived.
        returned: a text that goes back into the box.
    """
    back = [returned.number, returned.text, returned.was_refused] if returned is not None else [0, "", False]
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
        "heard": heard,
        "back": back,
    }
