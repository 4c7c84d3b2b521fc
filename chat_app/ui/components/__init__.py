"""Parts that the tabs of the page share: settings forms, conversations as bubbles, escaping, background tasks.

None of them knows what a tab does.
"""

__all__ = [
    "background_task",
    "conversation_view",
    "downloads",
    "escape",
    "events",
    "formatting",
    "gradio_internals",
    "notices",
    "settings_form",
    "theme",
]
