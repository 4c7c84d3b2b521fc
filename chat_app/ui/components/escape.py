"""Text that a person, a model, a file or a log wrote, made safe to show. Knows no components but the toast."""

from __future__ import annotations

import html
from dataclasses import fields

import gradio as gr

from chat_app.config.loading import LoadConfig
from chat_app.config.sampling import SamplingConfig
from chat_app.config.training import TrainConfig
from chat_app.errors import ChatAppError, SettingError


def escape(text: object) -> str:
    """Escape text for HTML, between tags and inside an attribute's quotes."""
    return html.escape(str(text), quote=True)


def clean_text(text: object) -> str:
    """Make text from a browser encodable: lone surrogates become the replacement character, NUL is removed."""
    if not isinstance(text, str):
        return ""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "")


def describe_error(error: ChatAppError) -> str:
    """Describe an error in one sentence for the page, which calls a setting by its label."""
    if isinstance(error, SettingError):
        return " ".join(part for part in (f"{find_label(error.field)}: {error.what}", error.advice) if part)
    return error.sentence()


def find_label(field: str) -> str:
    """Return the label of a setting if every settings class that has it agrees on one, else its name in words."""
    kinds = (SamplingConfig, LoadConfig, TrainConfig)
    labels = {setting.metadata.get("label") for kind in kinds for setting in fields(kind) if setting.name == field}
    label = labels.pop() if len(labels) == 1 else None
    return label or humanize(field)


def humanize(field: str) -> str:
    """ "batch_size" -> "Batch size"."""
    return field.replace("_", " ").capitalize()


def warn(what: ChatAppError | str) -> None:
    """Show a warning toast. The browser renders its text as HTML, so it is escaped."""
    gr.Warning(html.escape(what if isinstance(what, str) else describe_error(what), quote=False), title="Please look")
