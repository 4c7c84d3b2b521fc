"""Teaching: from files of conversations to a run in the queue. Beside it stands what the run does (run_view).

Uploads lie in the page's cache, and are read again when the run starts: what a run needs is then in its own folder.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from chat_app.config import CAREFULNESS, STARTER, TrainConfig
from chat_app.errors import ChatAppError, DataError, RunError, TooLargeError
from chat_app.reading import Reading, read_files
from chat_app.services import Services
from chat_app.teaching import prepare_run
from chat_app.ui import model_choices, words
from chat_app.ui.controls import Controls
from chat_app.ui.escape import sentence, shown, warn
from chat_app.ui.run_view import RunView
from chat_app.ui.talk import Turn
from chat_app.ui.turns_view import rows_of, turns_value, turns_view
from chat_app.ui.visitor import Visitors

MOST_FILES = 20
SHOWN_PROBLEMS = 100
SHOWN_CONVERSATIONS = 3
SHOWN_TURNS = 6
LONGEST_SHOWN = 400
FILE_TYPES = [".tsv", ".jsonl", ".json", ".txt"]
BALANCED = "Balanced"
GROUPS = {
    "How it learns": (
        *("learning_rate", "rate_factor", "batch_size", "accumulation", "optimizer", "schedule", "warmup"),
        *("weight_decay", "clip", "dropout", "seed"),
    ),
    "What it learns from": ("learn", "format", "window", "max_turns", "overlap", "valid_share"),
    "When it stops and saves": (
        *("max_steps", "patience", "evaluate_every", "save_every", "log_every", "keep_checkpoints"),
    ),
    "This computer": ("precision", "save_as", "device", "threads"),
}
LOOK_AT_RUN = "() => document.querySelector('#run')?.scrollIntoView({ block: 'start', behavior: 'smooth' })"
HOW_FILES_LOOK = """
<p>One conversation a line, in either of two ways:</p>
<dl class="layouts">
<dt>Text with tabs (<code>.tsv</code>)</dt>
<dd>what a person says, a tab, what the model should answer. More columns are more turns. A spreadsheet saves this as
“tab-separated”.<pre>When are you open?\u21e5Every day but Monday.</pre></dd>
<dt>JSON Lines (<code>.jsonl</code>)</dt>
<dd><pre>{"messages": [{"role": "user", "content": "When are you open?"},
  {"role": "assistant", "content": "Every day but Monday."}]}</pre></dd>
</dl>
<p>A few hundred conversations are enough to see an effect.</p>
"""


class TeachTab:
    """The tab's components and what they do.

    Args:
        services: reading, runs, the training queue.
        visitors, token: tell who calls.
    """

    def __init__(self, services: Services, visitors: Visitors, token: Any):
        self.services, self.visitors, self.token = services, visitors, token
        self.settings = Controls(TrainConfig, leave_out=("model",))
        self.runs = RunView(services, visitors, token)

    def draw(self, chat_with: Callable[..., Any], chat_outputs: list[Any], talk: Any) -> None:
        """Put the components where the page is being built; the arguments are those of RunView.connect."""
        if self.services.jobs is None:
            gr.HTML('<p class="notice">Training is switched off on this server.</p>', apply_default_css=False)
        with gr.Row(elem_classes=["teach-row"]):
            with gr.Column(scale=5, min_width=320, visible=self.services.jobs is not None, elem_classes=["steps"]):
                self._draw_data()
                self._draw_start()
            with gr.Column(scale=6, min_width=320, elem_classes=["run-side"]):
                gr.HTML(_step(3, "Watch it learn"), apply_default_css=False)
                self.runs.draw()
        self.runs.connect(chat_with, chat_outputs, talk)
        self._connect()

    def _draw_data(self) -> None:
        gr.HTML(_step(1, "Give it conversations"), apply_default_css=False)
        self.files = gr.File(
            file_count="multiple", file_types=FILE_TYPES, label="Files of conversations", height=150, elem_id="files"
        )
        with gr.Row(elem_classes=["try-row"]):
            self.sample = gr.Button("Try the sample shop", size="md", elem_id="try-sample", min_width=140)
        with gr.Accordion("What should a file look like?", open=False, elem_id="file-help"):
            gr.HTML(HOW_FILES_LOOK, apply_default_css=False)
        self.material = gr.State(())
        self.report = gr.HTML("", elem_id="reading", apply_default_css=False)
        self.preview = turns_view(
            turns_value([], is_readonly=True), label="The first conversations", elem_id="preview", visible=False
        )

    def _draw_start(self) -> None:
        gr.HTML(_step(2, "Choose how"), apply_default_css=False)
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
        with gr.Accordion("Advanced", open=False, elem_id="train-advanced"):
            for title, names in GROUPS.items():
                gr.HTML(f'<h4 class="group-title">{title}</h4>', apply_default_css=False)
                with gr.Row(elem_classes=["settings-grid"]):
                    self.settings.draw(names)
            with gr.Row(elem_classes=["settings-grid"]):
                self.settings.draw()
            self.defaults = gr.Button("Back to defaults", size="sm", elem_id="train-defaults")
        self.start = gr.Button("Start", variant="primary", interactive=False, elem_id="start")

    def _connect(self) -> None:
        quick: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "queue": False}
        reads = [self.material, self.report, self.preview, self.start]
        shows: dict[str, Any] = {
            "show_progress_on": [self.report],
            "api_visibility": "private",
            "concurrency_limit": 2,
            "concurrency_id": "reading",
        }
        self.files.change(self.take, [self.files], reads, **shows)
        self.files.clear(self.forget, None, reads, **quick)
        self.sample.click(self.take_sample, None, [self.files, *reads], **shows)
        controls = self.settings.components
        self.care.input(self.set_care, [self.care], controls, **quick)
        self.defaults.click(self.set_defaults, None, [self.care, *controls], **quick)
        self.start.click(
            self.begin,
            [self.material, self.model, self.token, *controls],
            self.runs.outputs,
            show_progress_on=[self.runs.status],
            api_visibility="private",
            concurrency_limit=2,
            concurrency_id="reading",
        ).then(None, None, None, js=LOOK_AT_RUN, api_visibility="private")

    def take(self, files: list[str] | None) -> tuple[Any, ...]:
        """Read what was uploaded and show it."""
        if not files:
            return (gr.skip(),) * 4
        paths = tuple(Path(str(one)) for one in files)
        try:
            self._check_uploads(paths)
        except ChatAppError as error:
            return (), _refused(error), gr.HTML(visible=False), gr.Button(interactive=False)
        return self._read(paths)

    def forget(self) -> tuple[Any, ...]:
        """The person has taken the files away."""
        return (), "", gr.HTML(visible=False), gr.Button(interactive=False)

    def take_sample(self) -> tuple[Any, ...]:
        """Read the sample conversations that come with the app."""
        return None, *self._read((self.services.paths.samples / "shop.tsv",))

    def _check_uploads(self, paths: tuple[Path, ...]) -> None:
        if len(paths) > MOST_FILES:
            raise DataError(f"These are {len(paths)} files.", advice=f"Upload at most {MOST_FILES} at once.")
        limit = self.services.rules.upload_bytes
        for path in paths:
            if path.stat().st_size > limit:
                raise TooLargeError(f"This file is larger than {words.size(limit)}.", where=path.name)

    def _read(self, paths: tuple[Path, ...]) -> tuple[Any, ...]:
        try:
            reading = read_files(paths)
        except ChatAppError as error:
            return (), _refused(error), gr.HTML(visible=False), gr.Button(interactive=False)
        preview = gr.HTML(value=preview_of(reading), visible=True)
        return paths, report_of(reading, [path.name for path in paths]), preview, gr.Button(interactive=True)

    def set_care(self, choice: str) -> list[Any]:
        """Set the fields that this word stands for; those of the other words go back to their defaults."""
        concerned = {name for fields in CAREFULNESS.values() for name in fields}
        wanted = CAREFULNESS.get(choice, {})
        return [
            wanted.get(name, default) if name in concerned else gr.skip()
            for name, default in zip(self.settings.controls, self.settings.defaults(), strict=True)
        ]

    def set_defaults(self) -> list[Any]:
        """Every setting as it was."""
        return [BALANCED, *self.settings.defaults()]

    def begin(
        self, request: gr.Request, material: tuple[Path, ...], model: str, token: str, *values: Any
    ) -> tuple[Any, ...]:
        """Make a run of what was read, and put it into the queue."""
        nothing = (gr.skip(),) * len(self.runs.outputs)
        try:
            if self.services.jobs is None:
                raise RunError("Training is switched off on this server.")
            visitor = self.visitors.name(token, request)
            name = model_choices.check_allowed(self.services, visitor, model)
            config = self.settings.settings(values, model=name)
            if not material or not all(path.is_file() for path in material):
                raise DataError("The files are no longer here.", advice="Upload them again.")
            reading = read_files(material, need_reply=config.learn == "replies")
            names = [path.name for path in material]
            run = prepare_run(config, reading, self.services.paths, about={"files": names, "by": visitor})
            self.services.jobs.submit(run)
            return self.runs.show(run, self.services.runs_of(visitor))
        except ChatAppError as error:
            warn(error)
        except OSError as error:
            warn(f"The run could not be written: {error.strerror or error}.")
        return nothing

    def models(self, visitor: str, chosen: str) -> Any:
        """The list of models to start from; what was chosen stays, where it can."""
        rows = model_choices.choices(self.services, visitor)
        names = [name for _, name in rows]
        missing = chosen not in names and (self.services.rules.is_shared or chosen == STARTER)
        return gr.Dropdown(choices=rows, value=names[0] if missing and names else chosen)


def preview_of(reading: Reading) -> dict[str, Any]:
    """The first conversations as bubbles, shortened."""
    rows: list[dict[str, Any]] = []
    for number, conversation in enumerate(reading.conversations[:SHOWN_CONVERSATIONS], start=1):
        turns = rows_of(Turn(one.role, one.text) for one in conversation.messages[:SHOWN_TURNS])
        for row in turns:
            row["text"] = row["text"] if len(row["text"]) <= LONGEST_SHOWN else row["text"][:LONGEST_SHOWN] + "…"
        turns[0]["group"] = f"Conversation {number}"
        if len(conversation.messages) > SHOWN_TURNS:
            turns[-1]["note"] = f"and {len(conversation.messages) - SHOWN_TURNS} more"
        rows += turns
    return turns_value(rows, is_readonly=True, name="Reply to learn")


def report_of(reading: Reading, names: list[str]) -> str:
    """What was read, and a table of what was left out."""
    found = words.count(len(reading.conversations), "conversation")
    turns = words.count(reading.turns, "turn")
    files = names[0] if len(names) == 1 else words.count(len(names), "file")
    text = f'<p class="good"><strong>{found}</strong> with {turns} in {shown(files)}.</p>'
    if not reading.problems_total:
        return f"{text}<p class='quiet'>Every line can be used.</p>"
    several = len(names) > 1
    shown_problems = reading.problems[:SHOWN_PROBLEMS]
    rows = "".join(
        f"<tr>{f'<td>{shown(one.file)}</td>' if several else ''}<td>{'' if one.line is None else f'{one.line:,}'}</td>"
        f"<td>{shown(one.reason)}</td><td>{shown(one.advice)}</td></tr>"
        for one in shown_problems
    )
    total = reading.problems_total
    first = f" The first {len(shown_problems)} of them:" if total > len(shown_problems) else ""
    verb = "line was" if total == 1 else "lines were"
    return (
        f'{text}<p class="bad">{total:,} {verb} left out.{first}</p>'
        '<div class="scroll" tabindex="0" role="region" aria-label="Lines that were left out"><table class="problems">'
        f"<thead><tr>{'<th scope=col>File</th>' if several else ''}"
        '<th scope="col">Line</th><th scope="col">Why</th>'
        f'<th scope="col">What to do</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _refused(error: ChatAppError) -> str:
    return f'<p class="bad" role="alert">{shown(sentence(error))}</p>'


def _step(number: int, title: str) -> str:
    return f'<h2 class="step"><span>{number}</span>{title}</h2>'
