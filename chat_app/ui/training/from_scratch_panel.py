"""Pretraining from scratch: a new tokenizer and a new model for the data of the visitor, in a run like any other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from chat_app.config.fields import from_mapping
from chat_app.config.training import TrainConfig
from chat_app.errors import DataError
from chat_app.runs.run import Run
from chat_app.services import Services
from chat_app.system.progress import ProgressCallback
from chat_app.training.pretraining import PRETRAIN_DEFAULTS
from chat_app.training.pretraining_plan import parse_size, prepare_from_scratch_in_child
from chat_app.training.sample_prompts import parse_questions
from chat_app.ui.components.escape import clean_text
from chat_app.ui.components.events import Updates, limit_concurrency
from chat_app.ui.training.data_panel import Upload, check_files_exist
from chat_app.ui.training.run_view import RunView
from chat_app.ui.visitor import Visitors

ABOUT = """
<p class="quiet">A new model knows no language at all. It learns one from what you have brought under 1: conversations,
or running text such as books (<code>.txt</code>). That needs far more text than teaching, millions of words, and much
more time. Its words and its size are chosen by how much text there is.</p>
"""
SIZES = [
    ("Automatic: by how much text there is", "automatic"),
    ("Nano: for a first try", "nano"),
    ("Mini: 11 million numbers and its words", "mini"),
    ("Compact: 25 million", "compact"),
    ("Small: 85 million, as the smallest GPT-2", "small"),
    ("Medium: 302 million", "medium"),
]


class FromScratchPanel:
    """The components of the panel and their handlers.

    Args:
        services: the runs and the training queue.
        visitors, token: identify who calls.
        runs: shows the run that was begun.
    """

    def __init__(self, services: Services, visitors: Visitors, token: Any, runs: RunView):
        self.services, self.visitors, self.token, self.runs = services, visitors, token, runs

    def draw(self) -> None:
        """Create the components in the current Gradio context."""
        with gr.Accordion("Start from nothing", open=False, elem_id="from-nothing"):
            gr.HTML(ABOUT, apply_default_css=False)
            self.size = gr.Dropdown(SIZES, value="automatic", label="How large", elem_id="nothing-size")
            self.epochs = gr.Number(
                value=PRETRAIN_DEFAULTS["epochs"],
                minimum=0.01,
                maximum=1000,
                label="Epochs",
                info="How many times it reads everything.",
                elem_id="nothing-epochs",
            )
            self.start = gr.Button("Start from nothing", size="md", elem_id="nothing-start")

    def connect(self, upload: Any, questions: Any, preparing: Any, then: str) -> None:
        """Register the event handlers.

        Args:
            brought, questions: the components that hold what to learn and what to ask.
            preparing: where it is told how far the preparations are. then: a script for the page afterwards.
        """
        self.preparing = preparing
        self.start.click(
            self.begin,
            [upload, self.size, self.epochs, questions, self.token],
            [preparing, *self.runs.outputs],
            **limit_concurrency("reading", 2),
        ).then(None, None, None, js=then, api_visibility="private")

    def begin(
        self, request: gr.Request, upload: Upload, size: str, epochs: float, questions: str, token: str
    ) -> Iterator[Updates]:
        """Create the tokenizer, the model and the run, and submit it to the queue."""

        def prepare(progress: ProgressCallback) -> Run:
            visitor = self.visitors.identify(token, request)
            if upload.material is None and not upload.texts:
                raise DataError("There is nothing to learn from yet.", advice="Upload a file first.")
            check_files_exist(upload)
            wanted_size, asked = parse_size(size), list(parse_questions(clean_text(questions)))
            config = from_mapping(TrainConfig, {**PRETRAIN_DEFAULTS, "epochs": epochs})
            about = {"by": visitor, "questions": asked, "repairs": sorted(upload.source.repairs)}
            return prepare_from_scratch_in_child(
                config,
                upload.source,
                upload.texts,
                self.services.paths,
                size=wanted_size,
                about=about,
                progress=progress,
            )

        yield from self.runs.start_run(self.preparing, prepare, token, request)
