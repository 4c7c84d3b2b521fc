"""The form for reading options: the roles of columns, and who the bot is. Shown only if needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from chat_app.data.dataset import DatasetFacts
from chat_app.data.readers import Column, Preview, ReadingOptions
from chat_app.ui.components import formatting
from chat_app.ui.components.escape import clean_text, escape
from chat_app.ui.components.events import Updates

MAX_COLUMNS = 12
MAX_SAMPLE_LENGTH = 120
ROLE_WORDS = {
    "context": "Said to the bot",
    "reply": "Reply to learn",
    "turn": "A turn, in order",
    "system": "System text",
    "conversation": "Conversation id",
    "speaker": "Who speaks",
    "text": "One message a row",
    "time": "Time",
    "split": "Part (train, test)",
    "record": "Whole conversation",
    "ignore": "Left out",
}
NAMES = {"Keep the names": "keep", "Write Person 1, Person 2 instead": "replace"}


class ColumnMapping:
    """The components, and the options that they stand for."""

    def draw(self) -> None:
        """Create the components in the current Gradio context."""
        with gr.Accordion("How it was understood", open=True, visible=False, elem_id="understood") as self.panel:
            self.hint = gr.HTML("", apply_default_css=False)
            with gr.Row(elem_classes=["settings-grid"]) as self.table:
                choices = [(text, name) for name, text in ROLE_WORDS.items()]
                self.columns = [
                    gr.Dropdown(choices, value="ignore", visible=False, min_width=200, elem_id=f"column-{number}")
                    for number in range(1, MAX_COLUMNS + 1)
                ]
            with gr.Row(elem_classes=["settings-grid"]) as self.chat:
                self.bot = gr.Dropdown([], label="Who is the bot?", elem_id="bot")
                self.pause = gr.Number(
                    value=ReadingOptions().pause,
                    label="Silence that ends a conversation (minutes)",
                    minimum=1,
                    elem_id="pause",
                )
                self.names = gr.Dropdown(list(NAMES.items()), label="Names", elem_id="names")
            self.apply = gr.Button("Read it again like this", size="md", elem_id="read-again")

    @property
    def outputs(self) -> list[Any]:
        """The outputs of `show` and `hide`."""
        return [self.panel, self.hint, self.table, self.chat, *self.columns, self.bot, self.pause, self.names]

    @property
    def inputs(self) -> list[Any]:
        """The inputs of `read_options`."""
        return [*self.columns, self.bot, self.pause, self.names]

    def hide(self) -> Updates:
        """Hide the form."""
        return {self.panel: gr.Accordion(visible=False)}

    def show(self, facts: DatasetFacts, options: ReadingOptions) -> Updates:
        """Show the questions that these files raise, filled with what was guessed or chosen."""
        columns, speakers, bot = (
            find_columns(facts.previews),
            _count_messages(facts.previews),
            _guess_bot(facts.previews),
        )
        drops = [_make_dropdown(column) for column in columns[:MAX_COLUMNS]]
        drops += [gr.Dropdown(visible=False)] * (MAX_COLUMNS - len(drops))
        people = [(f"{name} ({formatting.format_count(count, 'message')})", name) for name, count in speakers.items()]
        return {
            self.panel: gr.Accordion(visible=bool(columns or people), open=bool(people) or not _is_plain(columns)),
            self.hint: _render_hint(columns[:MAX_COLUMNS], bool(people)),
            self.table: gr.Row(visible=bool(columns)),
            self.chat: gr.Row(visible=bool(people)),
            **dict(zip(self.columns, drops, strict=True)),
            self.bot: gr.Dropdown(choices=people, value=options.bot or bot or None),
            self.pause: options.pause,
            self.names: options.names,
        }

    def read_options(self, facts: DatasetFacts, values: Sequence[Any]) -> ReadingOptions:
        """Build reading options from the values of the form.

        Raises:
            SettingError: a value that cannot be; the page's own limits are not relied on.
        """
        roles, (bot, pause, names) = values[:MAX_COLUMNS], values[MAX_COLUMNS:]
        columns = find_columns(facts.previews)
        pairs = tuple(f"{column.name}={clean_text(role)}" for column, role in zip(columns, roles, strict=False))
        return ReadingOptions(columns=pairs, bot=clean_text(bot), pause=pause, names=clean_text(names) or "keep")


def find_columns(previews: Sequence[Preview]) -> tuple[Column, ...]:
    """Find the columns of the first table. Several tables are asked about only if they have the same columns."""
    tables = [preview.columns for preview in previews if preview.columns]
    names = [[column.name for column in table] for table in tables]
    if not tables or any(other != names[0] for other in names):
        return ()
    return tables[0]


def _count_messages(previews: Sequence[Preview]) -> dict[str, int]:
    people: dict[str, int] = {}
    for preview in previews:
        for speaker in preview.speakers:
            people[speaker.name] = people.get(speaker.name, 0) + speaker.messages
    return dict(sorted(people.items(), key=lambda item: -item[1]))


def _guess_bot(previews: Sequence[Preview]) -> str:
    return next((preview.bot for preview in previews if preview.bot), "")


def _is_plain(columns: Sequence[Column]) -> bool:
    """Whether the columns are plain turns, so that there is nothing to ask."""
    return all(column.role in ("context", "reply", "turn") for column in columns)


def _make_dropdown(column: Column) -> Any:
    return gr.Dropdown(label=column.name[:60], value=column.role, visible=True)


def _render_hint(columns: Sequence[Column], has_people: bool) -> str:
    """Render the question with sample cells. A dropdown's info cannot hold them: Gradio renders it as Markdown."""
    if has_people:
        return '<p class="quiet">The model learns to write what the bot wrote; all others are the user.</p>'
    if not columns:
        return ""
    samples = [(column.name[:60], " · ".join(column.sample)[:MAX_SAMPLE_LENGTH]) for column in columns]
    rows = "".join(f"<tr><th scope=row>{escape(name)}</th><td>{escape(sample)}</td></tr>" for name, sample in samples)
    return (
        '<p class="quiet">What each column holds was guessed from its name and its cells. Is it right?</p>'
        f'<div class="scroll"><table class="problems columns"><tbody>{rows}</tbody></table></div>'
    )
