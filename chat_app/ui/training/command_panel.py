"""The command line that repeats the chosen run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gradio as gr

from chat_app.errors import RunError
from chat_app.models.model_card import public_name
from chat_app.runs.run import Run
from chat_app.services import Services
from chat_app.training.recipe import command_for
from chat_app.ui.components.events import Updates


class RunCommandPanel:
    """The components and what they show.

    Args:
        services: the rules of the server.
    """

    def __init__(self, services: Services):
        self.services = services

    def draw(self) -> None:
        """Create the components in the current Gradio context."""
        with gr.Accordion("The same on the command line", open=False, visible=False, elem_id="run-command") as self.box:
            self.command = gr.Textbox(
                label="Command",
                info="Does the same training again, where the files lie in the folder that it is called in.",
                lines=3,
                max_lines=12,
                interactive=False,
                buttons=["copy"],
                elem_id="command",
            )

    @property
    def outputs(self) -> list[Any]:
        """What `show` and `hide` update."""
        return [self.box, self.command]

    def show(self, run: Run) -> Updates:
        """Show the command of a run."""
        try:
            config = run.config()
            if self.services.rules.is_shared:  # Visitors of a shared server must not see its paths.
                config = replace(config, model=public_name(config.model))
            command = command_for(run, config)
        except RunError:
            return self.hide()
        return {self.box: gr.Accordion(visible=True), self.command: command}

    def hide(self) -> Updates:
        """There is no run, or it cannot be read."""
        return {self.box: gr.Accordion(visible=False)}
