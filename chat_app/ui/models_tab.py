"""The models: which one is in use, and choosing, loading and unloading another."""

from __future__ import annotations

from typing import Any

import gradio as gr

from chat_app.config import AUTOMATIC, STARTER, LoadConfig
from chat_app.errors import ChatAppError, ModelError
from chat_app.model_files import ModelFiles, estimate_memory, find
from chat_app.recommended import RECOMMENDED
from chat_app.services import Services
from chat_app.sizes import bytes_in_words
from chat_app.ui import model_choices, words
from chat_app.ui.controls import Controls
from chat_app.ui.escape import clean, sentence, shown, warn
from chat_app.ui.events import QUICK, given
from chat_app.ui.visitor import Visitors

KINDS = {
    "starter": "comes with this app",
    "run": "taught here",
    "folder": "a folder on this computer",
    "hub": "from the Hugging Face Hub",
    "gguf": "from a package on this computer",
}
PICK = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-name]');
  if (button) trigger('picked', { name: button.dataset.name });
});
"""


class ModelsTab:
    """The tab's components and what they do.

    Args:
        services: the model in use.
        visitors, token: tell who calls.
    """

    def __init__(self, services: Services, visitors: Visitors, token: Any):
        self.services, self.visitors, self.token = services, visitors, token
        self.settings = Controls(LoadConfig)

    def draw(self) -> None:
        """Put the components where the page is being built."""
        is_shared = self.services.rules.is_shared
        with gr.Row(elem_classes=["models-row"]):
            with gr.Column(scale=5, min_width=320):
                gr.HTML('<h2 class="part">In use</h2>', apply_default_css=False)
                self.card = gr.HTML(card(self.services), elem_id="model-card", apply_default_css=False)
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
                self.load = gr.Button("Load", variant="primary", elem_id="load")
        if is_shared:
            gr.HTML('<p class="notice">On a shared server its owner chooses the model.</p>', apply_default_css=False)
        gr.HTML('<h2 class="part">Worth trying</h2>', apply_default_css=False)
        self.list = gr.HTML(
            recommended(can_use=not is_shared), js_on_load=PICK, elem_id="recommended", apply_default_css=False
        )

    def connect(self) -> None:
        """Join the events. The other tabs look for themselves which model is in use when they are chosen."""
        heavy: dict[str, Any] = {
            "show_progress_on": [self.card],
            "api_visibility": "private",
            "concurrency_limit": 1,
            "concurrency_id": "model",
        }
        settings = self.settings.components
        self.load.click(self.use, [self.name, self.token, *settings], [self.card], **heavy)
        self.unload.click(self.free, None, [self.card], **heavy)
        measured: dict[str, Any] = {
            "inputs": [self.name, self.token, *settings],
            "outputs": [self.estimate],
            "show_progress": "hidden",
            "api_visibility": "private",
            "concurrency_limit": 4,
            "trigger_mode": "always_last",
        }
        self.measured = measured
        self.name.change(self.measure, **measured)
        for one in settings:
            one.change(self.measure, **measured)
        self.list.picked(self.pick, None, [self.name], **QUICK)

    def use(self, request: gr.Request, name: str, token: str, *values: Any) -> str:
        """Load a model in place of the one in use; if that fails, nothing changes."""
        try:
            allowed = self._allowed(name, token, request)
            self.services.models.use(allowed, self.settings.settings(values))
        except ChatAppError as error:
            warn(error)
        return card(self.services)

    def free(self) -> str:
        """Give the memory back."""
        if self.services.rules.is_shared:
            warn("On a shared server the model is chosen by its owner.")
        else:
            self.services.models.unload()
        return card(self.services)

    def measure(self, request: gr.Request, name: str, token: str, *values: Any) -> str:
        """The memory that the chosen model will need, before anything is loaded."""
        try:
            settings = self.settings.settings(values)
            files = find(self._allowed(name, token, request), self.services.paths)
        except ChatAppError as error:
            return f'<p class="bad">{shown(sentence(error))}</p>'
        return f'<p class="estimate">{shown(needs(files, settings.precision))}</p>'

    def pick(self, event: gr.EventData) -> Any:
        """Fill in the name of a recommended model."""
        name = given(event, "name")
        return name if name in {one.name for one in RECOMMENDED} else gr.skip()

    def names(self, visitor: str) -> Any:
        """The list of models that are here."""
        if self.services.rules.is_shared:
            return gr.skip()
        return gr.Dropdown(choices=model_choices.choices(self.services, visitor) or [STARTER])

    def _allowed(self, name: object, token: str, request: gr.Request) -> str:
        if self.services.rules.is_shared:
            raise ModelError("On a shared server the model is chosen by its owner.")
        visitor = self.visitors.name(token, request)
        return model_choices.check_allowed(self.services, visitor, clean(name))


def needs(files: ModelFiles, precision: str) -> str:
    """The memory a model needs, and the download where there is one."""
    memory = bytes_in_words(estimate_memory(files, precision))
    most = "at most about" if precision == AUTOMATIC else "about"
    text = f"{words.amount(files.parameters)} parameters. Needs {most} {memory} of memory."
    if files.folder is not None:
        return text
    return f"{text} {bytes_in_words(files.weight_bytes)} will be downloaded first."


def card(services: Services) -> str:
    """The model in use."""
    loaded = services.models.current
    if loaded is None and services.remote is not None:
        about = shown(model_choices.describe(services.remote))
        return (
            f'<div class="card"><p><strong>{shown(model_choices.remote_title(services.remote))}</strong></p>'
            f'<p class="quiet">{about}. Load a model here to talk with that instead.</p></div>'
        )
    if loaded is None:
        return (
            '<div class="card"><p><strong>No model is loaded.</strong></p><p class="quiet">Load one to chat.</p></div>'
        )
    files, how = loaded.files, loaded.recognised
    name = model_choices.title(services, files)
    sure = "" if how.certain else " (a guess)"
    facts = (
        ("Comes from", KINDS.get(files.kind, files.kind)),
        ("Size", f"{words.amount(files.parameters)} parameters"),
        ("Remembers", f"{files.window:,} tokens, about {round(files.window * 0.75 / 10) * 10:,} words"),
        ("Memory", f"{bytes_in_words(loaded.memory_bytes)}, measured"),
        ("Format", f"{how.format}{sure}: {how.because}"),
        ("Stored as", f"{loaded.precision} on {loaded.device}"),
    )
    rows = "".join(f"<div><dt>{shown(term)}</dt><dd>{shown(value)}</dd></div>" for term, value in facts)
    return f'<div class="card"><p><strong>{shown(name)}</strong></p><dl class="facts wide">{rows}</dl></div>'


def recommended(can_use: bool) -> str:
    """The models worth trying, as cards."""
    cards = []
    for one in RECOMMENDED:
        button = (
            f'<button type="button" data-name="{shown(one.name)}" aria-label="Use {shown(one.title)}">Use</button>'
            if can_use
            else ""
        )
        cards.append(
            f'<li class="card"><h3>{shown(one.title)}</h3><p>{shown(one.good_at)}</p>'
            f'<p class="quiet">{bytes_in_words(one.size)} · {words.amount(one.parameters)} parameters · '
            f"{shown(one.licence)}</p>"
            f'<p class="foot"><code>{shown(one.name)}</code>{button}</p></li>'
        )
    return f'<ul class="cards">{"".join(cards)}</ul>'
