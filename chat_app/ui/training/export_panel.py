"""Exporting the model of a run: as a zip, or to the Hugging Face Hub. The Hub token is used once and kept nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from chat_app.errors import RunError
from chat_app.models.export import As, export, push
from chat_app.runs.run import Run
from chat_app.services import Services
from chat_app.system.progress import ProgressCallback
from chat_app.ui.components.background_task import follow_task
from chat_app.ui.components.downloads import make_click_script, make_download_path
from chat_app.ui.components.escape import clean_text, escape
from chat_app.ui.components.events import Updates, limit_concurrency
from chat_app.ui.components.notices import render_progress
from chat_app.ui.visitor import Visitors

WHOLE: As = "merged"
FORMS = [("The whole model", WHOLE), ("Only the addition (adapter)", "adapter")]
ABOUT = """
<p class="quiet">A folder with the weights, the tokenizer and a card that tells how the model was made, with its curves.
Your conversations stay here. It loads with <code>transformers</code>, and here as a folder on the Models page.</p>
"""


class ExportPanel:
    """The components of the panel and their handlers.

    Args:
        services: the runs.
        visitors, token: identify who calls.
    """

    def __init__(self, services: Services, visitors: Visitors, token: Any):
        self.services, self.visitors, self.token = services, visitors, token

    def draw(self) -> None:
        """Create the components in the current Gradio context."""
        with gr.Accordion("Take the model with you", open=False, visible=False, elem_id="run-export") as self.box:
            gr.HTML(ABOUT, apply_default_css=False)
            self.form = gr.Radio(FORMS, value=WHOLE, label="What", visible=False, elem_id="export-as")
            self.licence = gr.Textbox(
                label="Licence",
                info="What others may do with it, as the Hub spells it. Left empty, it is to be filled in later.",
                placeholder="mit, apache-2.0, cc-by-4.0 …",
                max_length=40,
                elem_id="export-licence",
            )
            self.zip = gr.Button("Download as a zip", size="md", elem_id="export-zip")
            self.file = gr.DownloadButton("Download", visible="hidden", elem_id="export-file")
            self.said = gr.HTML("", elem_id="export-said", apply_default_css=False)
            with gr.Accordion("To the Hugging Face Hub", open=False, elem_id="export-hub"):
                with gr.Row():
                    self.name = gr.Textbox(label="Name", placeholder="your-name/model-name", elem_id="hub-model")
                    self.secret = gr.Textbox(
                        label="Token",
                        info="With the right to write. It is used for this once and not kept.",
                        type="password",
                        elem_id="hub-token",
                        html_attributes=gr.InputHTMLAttributes(autocomplete="off"),
                    )
                self.private = gr.Checkbox(value=True, label="Only I can see it", elem_id="hub-private")
                self.push = gr.Button("Put it on the Hub", size="md", elem_id="hub-push")

    @property
    def outputs(self) -> list[Any]:
        """What `show` and `hide` update."""
        return [self.box, self.form]

    def show(self, run: Run) -> Updates:
        """Offer the model of a run, and the choice between adapter and whole model where it has an adapter."""
        has_choice = run.adapter.is_dir()
        form = gr.Radio(visible=True) if has_choice else gr.Radio(visible=False, value=WHOLE)
        return {self.box: gr.Accordion(visible=run.has_model), self.form: form}

    def hide(self) -> Updates:
        """There is no run."""
        return {self.box: gr.Accordion(visible=False)}

    def connect(self, picker: Any) -> None:
        """Register the event handlers; `picker` names the run."""
        long = limit_concurrency("export", 2)
        self.zip.click(
            self.make_zip, [picker, self.form, self.licence, self.token], [self.file, self.said], **long
        ).success(None, None, None, js=make_click_script("export-file"), api_visibility="private")
        hub = [picker, self.form, self.licence, self.name, self.secret, self.private, self.token]
        # The token is removed from the page's field as soon as it was read.
        self.push.click(self.push_to_hub, hub, [self.said, self.secret], **long)

    def make_zip(self, name: str | None, form: str, licence: str, token: str, request: gr.Request) -> Iterator[Updates]:
        """Write the zip into the page's cache and let the browser fetch it."""

        def write(progress: ProgressCallback) -> Path:
            run, as_, source = self._source(name, form, token, request)
            return export(
                source, make_download_path(self.file, f"{run.id}.zip"), run=run, licence=clean_text(licence), as_=as_
            )

        path = yield from follow_task(
            write, lambda _: {self.said: render_progress("Packing the model.")}, "The zip could not be written"
        )
        yield {self.said: ""} if path is None else {self.said: "", self.file: gr.DownloadButton(value=str(path))}

    def push_to_hub(
        self,
        name: str | None,
        form: str,
        licence: str,
        model: str,
        secret: str,
        private: bool,
        token: str,
        request: gr.Request,
    ) -> Iterator[Updates]:
        """Upload the model to the Hub."""

        def send(progress: ProgressCallback) -> str:
            run, as_, source = self._source(name, form, token, request)
            is_private = private is not False
            return push(
                source,
                clean_text(model).strip(),
                clean_text(secret),
                is_private,
                run=run,
                licence=clean_text(licence),
                as_=as_,
            )

        sending = render_progress("Sending the model to the Hub. Please leave this page open.")
        address = yield from follow_task(
            send, lambda _: {self.said: sending, self.secret: ""}, "The model could not be read"
        )
        link = escape(address)
        there = f'<p class="good">It is there: <a href="{link}" rel="noopener" target="_blank">{link}</a></p>'
        yield {self.said: "" if address is None else there, self.secret: ""}

    def _source(self, name: str | None, form: str, token: str, request: gr.Request) -> tuple[Run, As, Path]:
        run = self.services.find_run(self.visitors.identify(token, request), str(name))
        as_: As = "adapter" if form == "adapter" and run.adapter.is_dir() else "merged"
        source = run.adapter if as_ == "adapter" else run.model
        if not source.is_dir():
            raise RunError("This run has no model yet.", advice="Wait for its first evaluation.")
        return run, as_, source
