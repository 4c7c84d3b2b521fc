"""The Models tab: the model in use, and choosing, loading and unloading another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from chat_app.config.fields import AUTOMATIC
from chat_app.config.loading import LoadConfig
from chat_app.config.paths import STARTER
from chat_app.errors import ChatAppError, ModelError
from chat_app.formatting import format_bytes
from chat_app.inference.backend import ModelDescription
from chat_app.models.recommended import RECOMMENDED
from chat_app.models.resolver import ModelFiles, estimate_memory, find
from chat_app.services import Services
from chat_app.ui.components import formatting
from chat_app.ui.components.escape import clean_text, describe_error, escape, warn
from chat_app.ui.components.events import QUICK, Updates, read_payload
from chat_app.ui.components.settings_form import SettingsForm
from chat_app.ui.models import model_choices
from chat_app.ui.visitor import Visitors

KINDS = {
    "starter": "comes with this app",
    "run": "taught here",
    "folder": "a folder on this computer",
    "hub": "from the Hugging Face Hub",
    "gguf": "from a package on this computer",
}
BUTTONS_SCRIPT = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-name]');
  if (button) trigger('picked', { name: button.dataset.name });
});
"""


class ModelsTab:
    """The components of the tab and their handlers.

    Args:
        services: the model in use.
        visitors, token: identify who calls.
    """

    def __init__(self, services: Services, visitors: Visitors, token: Any):
        self.services, self.visitors, self.token = services, visitors, token
        self.settings = SettingsForm(LoadConfig)

    def draw(self) -> None:
        """Create the components in the current Gradio context."""
        is_shared = self.services.rules.is_shared
        with gr.Row(elem_classes=["models-row"]):
            with gr.Column(scale=5, min_width=320):
                gr.HTML('<h2 class="part">In use</h2>', apply_default_css=False)
                self.card = gr.HTML(render_card(self.services), elem_id="model-card", apply_default_css=False)
                self.unload = gr.Button("Unload", size="md", elem_id="unload", visible=not is_shared)
            with gr.Column(scale=5, min_width=320, visible=not is_shared):
                gr.HTML('<h2 class="part">Use another</h2>', apply_default_css=False)
                self.name = gr.Dropdown(
                    [STARTER],
                    value=STARTER,
                    label="Model",
                    info="Choose one that is here, or write a folder or a name on the Hub, such as gpt2.",
                    allow_custom_value=True,
                    elem_id="model-name",
                )
                self.estimate = gr.HTML("", elem_id="estimate", apply_default_css=False)
                with gr.Accordion("Advanced", open=False, elem_id="load-advanced"):
                    self.settings.draw()
                with gr.Row():
                    self.load = gr.Button("Load", variant="primary", elem_id="load")
                    self.cancel = gr.Button("Cancel", visible=False, elem_id="cancel-load")
        if is_shared:
            gr.HTML('<p class="notice">On a shared server its owner chooses the model.</p>', apply_default_css=False)
        gr.HTML('<h2 class="part">Worth trying</h2>', apply_default_css=False)
        self.list = gr.HTML(
            render_recommended(can_use=not is_shared),
            js_on_load=BUTTONS_SCRIPT,
            elem_id="recommended",
            apply_default_css=False,
        )

    def connect(self) -> None:
        """Register the handlers. The other tabs refresh the model in use themselves when they are opened."""
        heavy: dict[str, Any] = {
            "show_progress_on": [self.card],
            "api_visibility": "private",
            "concurrency_limit": 1,
            "concurrency_id": "model",
        }
        settings = self.settings.components
        outputs = [self.card, self.cancel]
        self.load.click(self.load_model, [self.name, self.token, *settings], outputs, **heavy)
        self.cancel.click(self.cancel_loading, None, [self.cancel], **QUICK)
        self.unload.click(self.unload_model, None, [self.card], **heavy)
        measured: dict[str, Any] = {
            "inputs": [self.name, self.token, *settings],
            "outputs": [self.estimate],
            "show_progress": "hidden",
            "api_visibility": "private",
            "concurrency_limit": 4,
            "trigger_mode": "always_last",
        }
        self.estimate_event = measured
        self.name.change(self.show_estimate, **measured)
        for component in settings:
            component.change(self.show_estimate, **measured)
        self.list.picked(self.fill_in_name, None, [self.name], **QUICK)

    def load_model(self, request: gr.Request, name: str, token: str, *values: Any) -> Iterator[Updates]:
        """Load a model in place of the one in use. If that fails, nothing changes."""
        try:
            allowed, settings = self._check_name(name, token, request), self.settings.parse(values)
            yield {self.cancel: gr.Button(visible=True)}
            self.services.models.use(allowed, settings)
        except ChatAppError as error:
            warn(error)
        yield {self.card: render_card(self.services), self.cancel: gr.Button(visible=False)}

    def cancel_loading(self) -> Updates:
        """End the load under way; the model in use stays."""
        if not self.services.rules.is_shared:
            self.services.models.cancel_loading()
        return {self.cancel: gr.Button(visible=False)}

    def unload_model(self) -> str:
        """Unload the model in use and free its memory."""
        if self.services.rules.is_shared:
            warn("On a shared server the model is chosen by its owner.")
        else:
            self.services.models.unload()
        return render_card(self.services)

    def show_estimate(self, request: gr.Request, name: str, token: str, *values: Any) -> str:
        """Show the memory that the chosen model will need, before anything is loaded."""
        try:
            settings = self.settings.parse(values)
            files = find(self._check_name(name, token, request), self.services.paths)
        except ChatAppError as error:
            return f'<p class="bad">{escape(describe_error(error))}</p>'
        return f'<p class="estimate">{escape(describe_requirements(files, settings.precision))}</p>'

    def fill_in_name(self, event: gr.EventData) -> Any:
        """Fill in the name of a recommended model."""
        name = read_payload(event, "name")
        return name if name in {model.name for model in RECOMMENDED} else gr.skip()

    def update_names(self, visitor: str) -> Any:
        """Refresh the list of local models."""
        if self.services.rules.is_shared:
            return gr.skip()
        return gr.Dropdown(choices=model_choices.list_models(self.services, visitor) or [STARTER])

    def _check_name(self, name: object, token: str, request: gr.Request) -> str:
        if self.services.rules.is_shared:
            raise ModelError("On a shared server the model is chosen by its owner.")
        visitor = self.visitors.identify(token, request)
        return model_choices.check_allowed(self.services, visitor, clean_text(name))


def describe_requirements(files: ModelFiles, precision: str) -> str:
    """Describe the memory that a model needs, and its download if there is one."""
    memory = format_bytes(estimate_memory(files, precision))
    most = "at most about" if precision == AUTOMATIC else "about"
    text = f"{formatting.format_parameters(files.parameters)} parameters. Needs {most} {memory} of memory."
    if files.folder is not None:
        return text
    return f"{text} {format_bytes(files.weight_bytes)} will be downloaded first."


def render_card(services: Services) -> str:
    """Render the model in use."""
    loaded = services.models.current
    if loaded is None and services.remote is not None:
        about = escape(model_choices.describe_model(services.remote))
        return (
            f'<div class="card"><p><strong>{escape(model_choices.title_remote_model(services.remote))}</strong></p>'
            f'<p class="quiet">{about}. Load a model here to talk with that instead.</p></div>'
        )
    if loaded is None:
        return (
            '<div class="card"><p><strong>No model is loaded.</strong></p><p class="quiet">Load one to chat.</p></div>'
        )
    model = loaded.description
    name = model_choices.title_model(services, model)
    if model.problem:
        return (
            f'<div class="card"><p><strong>{escape(name)}</strong></p>'
            f'<p class="bad" role="alert">{escape(model.problem)}</p></div>'
        )
    sure = "" if model.is_format_certain else " (a guess)"
    facts = (
        ("Comes from", KINDS.get(model.kind, model.kind)),
        ("Size", f"{formatting.format_parameters(model.parameters or 0)} parameters"),
        ("Remembers", f"{model.window:,} tokens, about {round(model.window * 0.75 / 10) * 10:,} words"),
        ("Memory", f"{format_bytes(model.memory_bytes)}, measured"),
        ("Format", f"{model.format}{sure}: {model.format_reason}"),
        ("Stored as", _describe_precision(model)),
    )
    rows = "".join(f"<div><dt>{escape(term)}</dt><dd>{escape(value)}</dd></div>" for term, value in facts)
    return f'<div class="card"><p><strong>{escape(name)}</strong></p><dl class="facts wide">{rows}</dl></div>'


def _describe_precision(model: ModelDescription) -> str:
    """Describe the precision in which a model computes, why, and on what device."""
    reason = f" ({model.precision_reason})" if model.precision_reason else ""
    return f"{model.precision} on {model.device}{reason}"


def render_recommended(can_use: bool) -> str:
    """Render the recommended models as cards."""
    cards = []
    for model in RECOMMENDED:
        button = (
            f'<button type="button" data-name="{escape(model.name)}" '
            f'aria-label="Use {escape(model.title)}">Use</button>'
            if can_use
            else ""
        )
        cards.append(
            f'<li class="card"><h3>{escape(model.title)}</h3><p>{escape(model.good_at)}</p>'
            f'<p class="quiet">{format_bytes(model.size)} · '
            f"{formatting.format_parameters(model.parameters)} parameters · {escape(model.licence)}</p>"
            f'<p class="foot"><code>{escape(model.name)}</code>{button}</p></li>'
        )
    return f'<ul class="cards">{"".join(cards)}</ul>'
