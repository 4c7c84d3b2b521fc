"""The Models tab, and the choices and titles of every model picker.

Models are found, loaded and kept in `chat_app.models` and `chat_app.inference`.
"""

__all__ = ["model_choices", "tab"]
