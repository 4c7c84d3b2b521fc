"""The Teach tab: from the data (data_panel) through the settings to a run in the queue, with run_view beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from chat_app.config.paths import STARTER
from chat_app.config.training import CAREFULNESS, TrainConfig
from chat_app.data.source import DataSource
from chat_app.runs.run import Run
from chat_app.services import Services
from chat_app.system.progress import ProgressCallback
from chat_app.training.prepare import prepare_run
from chat_app.training.sample_prompts import MOST, parse_questions
from chat_app.ui.components.background_task import count_conversations
from chat_app.ui.components.escape import clean_text
from chat_app.ui.components.events import NEWEST, QUICK, Updates, limit_concurrency
from chat_app.ui.components.settings_form import SettingsForm
from chat_app.ui.models import model_choices
from chat_app.ui.training.data_panel import DataPanel, Upload
from chat_app.ui.training.from_scratch_panel import FromScratchPanel
from chat_app.ui.training.run_view import RunView
from chat_app.ui.visitor import Visitors

BALANCED = "Balanced"
GROUPS = {
    "How it learns": (
        *("learning_rate", "rate_factor", "batch_size", "accumulation", "optimizer", "schedule", "warmup"),
        *("weight_decay", "clip", "dropout", "seed"),
    ),
    "Small additions (LoRA)": ("lora_rank", "lora_alpha", "lora_dropout"),
    "What it learns from": ("learn", "format", "window", "max_turns", "overlap", "valid_share", "wordings"),
    "When it stops and saves": (
        *("max_steps", "patience", "evaluate_every", "save_every", "log_every", "keep_checkpoints"),
    ),
    "This computer": ("rehearse", "gradient_checkpointing", "precision", "save_as", "device", "threads"),
}
SCROLL_TO_RUN = "() => document.querySelector('#run')?.scrollIntoView({ block: 'start', behavior: 'smooth' })"


class TeachTab:
    """The components of the tab and their handlers.

    Args:
        services: reading, runs, the training queue.
        visitors, token: identify who calls.
    """

    def __init__(self, services: Services, visitors: Visitors, token: Any):
        self.services, self.visitors, self.token = services, visitors, token
        self.settings = SettingsForm(TrainConfig, leave_out=("model",))
        self.data = DataPanel(services)
        self.runs = RunView(services, visitors, token)
        self.from_scratch = FromScratchPanel(services, visitors, token, self.runs)

    def draw(self, chat_with: Callable[..., Any], chat_outputs: list[Any], session: Any) -> None:
        """Create the components in the current Gradio context; the arguments are those of RunView.connect."""
        if self.services.jobs is None:
            gr.HTML('<p class="notice">Training is switched off on this server.</p>', apply_default_css=False)
        with gr.Row(elem_classes=["teach-row"]):
            with gr.Column(scale=5, min_width=320, visible=self.services.jobs is not None, elem_classes=["steps"]):
                gr.HTML(_render_step(1, "Give it conversations"), apply_default_css=False)
                self.data.draw()
                self._draw_start()
            with gr.Column(scale=6, min_width=320, elem_classes=["run-side"]):
                gr.HTML(_render_step(3, "Watch it learn"), apply_default_css=False)
                self.runs.draw()
        self.runs.connect(chat_with, chat_outputs, session)
        self._connect()

    def _draw_start(self) -> None:
        gr.HTML(_render_step(2, "Choose how"), apply_default_css=False)
        self.model = gr.Dropdown(
            [STARTER],
            value=STARTER,
            label="Start from",
            info="What it has learned before, it brings along.",
            allow_custom_value=not self.services.rules.is_shared,
            elem_id="set-model",
        )
        self.settings.draw(["epochs"])
        self.care = gr.Radio(
            list(CAREFULNESS),
            value=BALANCED,
            label="How careful",
            info="Careful keeps more of what the model knew; thorough learns your conversations more exactly.",
            elem_id="care",
        )
        self.settings.draw(["method"])
        with gr.Accordion("Questions it is asked again and again", open=False, elem_id="questions-panel"):
            self.questions = gr.Textbox(
                label="Pinned questions",
                info=f"One a line, up to {MOST}. It answers them before, during and after the training.",
                placeholder="Left empty, a few are taken from your conversations.",
                lines=4,
                max_lines=MOST,
                elem_id="questions",
            )
        with gr.Accordion("Advanced", open=False, elem_id="train-advanced"):
            for title, names in GROUPS.items():
                gr.HTML(f'<h4 class="group-title">{title}</h4>', apply_default_css=False)
                with gr.Row(elem_classes=["settings-grid"]):
                    self.settings.draw(names)
            with gr.Row(elem_classes=["settings-grid"]):
                self.settings.draw()
            self.defaults = gr.Button("Back to defaults", size="sm", elem_id="train-defaults")
        self.start = gr.Button("Start", variant="primary", interactive=False, elem_id="start")
        self.from_scratch.draw()
        self.preparing = gr.HTML("", visible=False, elem_id="preparing", apply_default_css=False)

    def _connect(self) -> None:
        self.data.connect(self.start, self.model)
        self.from_scratch.connect(self.data.upload, self.questions, self.preparing, SCROLL_TO_RUN)
        controls = self.settings.components
        self.care.input(self.set_care, [self.care], controls, **NEWEST)
        self.defaults.click(self.set_defaults, None, [self.care, *controls], **QUICK)
        self.start.click(
            self.begin,
            [self.data.upload, self.model, self.questions, self.token, *controls],
            [self.preparing, *self.runs.outputs],
            **limit_concurrency("reading", 2),
        ).then(None, None, None, js=SCROLL_TO_RUN, api_visibility="private")

    def set_care(self, choice: str) -> list[Any]:
        """Set the fields that this choice stands for; the fields of the other choices return to their defaults."""
        concerned = {name for fields in CAREFULNESS.values() for name in fields}
        source = CAREFULNESS.get(choice, {})
        return [
            source.get(name, default) if name in concerned else gr.skip()
            for name, default in zip(self.settings.controls, self.settings.get_defaults(), strict=True)
        ]

    def set_defaults(self) -> list[Any]:
        """Reset every setting to its default."""
        return [BALANCED, *self.settings.get_defaults()]

    def begin(
        self, request: gr.Request, upload: Upload, model: str, questions: str, token: str, *values: Any
    ) -> Iterator[Updates]:
        """Prepare a run on the dataset, and submit it to the queue."""

        def prepare(progress: ProgressCallback) -> Run:
            visitor = self.visitors.identify(token, request)
            name = model_choices.check_allowed(self.services, visitor, model)
            config = self.settings.parse(values, model=name)
            return self._prepare_run(config, self.data.get_source(upload), questions, visitor, progress)

        yield from self.runs.start_run(self.preparing, prepare, token, request)

    def _prepare_run(
        self, config: TrainConfig, source: DataSource, questions: str, visitor: str, progress: ProgressCallback
    ) -> Run:
        """Create a run folder with its data and its recipe."""
        run, _ = prepare_run(
            config,
            source,
            self.services.paths,
            questions=parse_questions(clean_text(questions)),
            about={"by": visitor},
            progress=count_conversations(progress, "Preparing"),
        )
        return run

    def update_models(self, visitor: str, chosen: str) -> Any:
        """Refresh the list of base models, and keep the chosen one where it is still offered."""
        rows = model_choices.list_models(self.services, visitor)
        names = [name for _, name in rows]
        missing = chosen not in names and (self.services.rules.is_shared or chosen == STARTER)
        return gr.Dropdown(choices=rows, value=names[0] if missing and names else chosen)


def _render_step(number: int, title: str) -> str:
    return f'<h2 class="step"><span>{number}</span>{title}</h2>'
