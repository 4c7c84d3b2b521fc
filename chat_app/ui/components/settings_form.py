"""A form built from the fields of a settings class, and settings parsed from the values of its controls.

A field's limits, choices, label and explanation stand with the field; nothing is repeated here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import Field, fields
from typing import Any

import gradio as gr

from chat_app.config.fields import from_mapping
from chat_app.ui.components.escape import clean_text, humanize

DEVICES = ("automatic", "cpu", "cuda", "mps")
MAX_SLIDER_STEPS = 200
CHOICE_WORDS: Mapping[str, Mapping[str, str]] = {
    "method": {
        "automatic": "Automatic",
        "full": "Everything (full)",
        "lora": "Small additions (LoRA)",
        "lora-8bit": "Small additions, half the memory (LoRA, 8-bit)",
        "lora-4bit": "Small additions, least memory (LoRA, 4-bit)",
    },
}
"""Labels of a field's choices where their names say little."""
HELP_WORDS: Mapping[str, str] = {
    "method": "Everything learns best and needs most memory. Small additions leave the model as it is and learn a "
    "little beside it. Automatic takes the best that fits into the memory.",
}


def make_control(field: Field[Any]) -> Any:
    """Create the control that suits a field: dropdown, checkbox, slider where the steps are few, number or textbox."""
    about, default = field.metadata, _get_default(field)
    common: dict[str, Any] = {
        "label": about.get("label") or humanize(field.name),
        "info": HELP_WORDS.get(field.name) or about.get("help"),
        "elem_id": f"set-{field.name}",
    }
    if about.get("choices"):
        called = CHOICE_WORDS.get(field.name, {})
        return gr.Dropdown([(called.get(name, name), name) for name in about["choices"]], value=default, **common)
    if field.name == "device":
        return gr.Dropdown(list(DEVICES), value=default, allow_custom_value=True, **common)
    if isinstance(default, bool):
        return gr.Checkbox(value=default, **common)
    if isinstance(default, (int, float)):
        return _make_number(field, common)
    if isinstance(default, tuple):
        return gr.Textbox(value="\n".join(default), lines=2, max_lines=6, **common)
    return gr.Textbox(value=default, **common)


def _make_number(field: Field[Any], common: Mapping[str, Any]) -> Any:
    low, high, step = (field.metadata.get(name) for name in ("low", "high", "step"))
    if step and low is not None and high is not None and (high - low) / step <= MAX_SLIDER_STEPS:
        return gr.Slider(low, high, value=_get_default(field), step=step, **common)
    whole = isinstance(_get_default(field), int)
    return gr.Number(
        value=_get_default(field), precision=0 if whole else None, step=step or (1 if whole else 0.0001), **common
    )


def _get_default(field: Field[Any]) -> Any:
    return field.default


class SettingsForm:
    """The controls of some fields of a settings class, by name.

    Args:
        kind: the settings class.
        leave_out: names that the page asks for in another way.
    """

    def __init__(self, kind: Any, leave_out: Sequence[str] = ()):
        self.kind = kind
        self.fields = {field.name: field for field in fields(kind) if field.name not in leave_out}
        self.controls: dict[str, Any] = {}

    def draw(self, names: Iterable[str] | None = None) -> None:
        """Put the controls of these fields, or of all that are not drawn yet, in the current Gradio context."""
        for name in names if names is not None else [field for field in self.fields if field not in self.controls]:
            if name in self.fields and name not in self.controls:
                self.controls[name] = make_control(self.fields[name])

    @property
    def components(self) -> list[Any]:
        """The controls, as an event's inputs or outputs."""
        return list(self.controls.values())

    def get_defaults(self) -> list[Any]:
        """Return the default value of each control."""
        return [_format_value(self.fields[name].default) for name in self.controls]

    def parse(self, values: Sequence[Any], **others: Any) -> Any:
        """Build a settings object from the values of the controls and of the fields that were left out.

        Raises:
            SettingError: a value outside its limits; the page's own limits are not relied on.
        """
        held = {name: _parse_value(self.fields[name], value) for name, value in zip(self.controls, values, strict=True)}
        return from_mapping(self.kind, {**held, **others})


def _format_value(value: Any) -> Any:
    return "\n".join(value) if isinstance(value, tuple) else value


def _parse_value(field: Field[Any], value: Any) -> Any:
    if isinstance(field.default, tuple):
        return tuple(line for line in clean_text(value).splitlines() if line)
    return clean_text(value) if isinstance(field.default, str) else value
