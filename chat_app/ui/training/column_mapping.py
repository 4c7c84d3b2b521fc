"""The form for reading options: the roles of columns, and who the bot is. Shown only if needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from chat_app.data.dataset import DatasetFacts
from chat_app.data.readers import Column, Preview, ReadingOptions
from chat_app.data.readers.options import DELIMITERS as SIGNS
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
    "message": "Id of the message",
    "parent": "Id of what it answers",
    "rank": "Rank of the answer",
    "label": "Good answer or not",
    "split": "Part (train, test)",
    "record": "Whole conversation",
    "ignore": "Left out",
}
HEADERS = {"As found": "automatic", "Yes": "yes", "No": "no"}
DELIMITERS = {"As found": "", "Comma": "comma", "Semicolon": "semicolon", "Tab": "tab", "Bar |": "pipe"}
LAYOUT_WORDS = {
    "As found": "automatic",
    "A table": "table",
    "A question and its answer a row": "pairs",
    "A turn a column": "turns",
    "A message a row": "messages",
    "Lines with tabs": "lines",
    "One JSON value": "json",
    "JSON Lines": "jsonl",
    "Text that names the speakers": "marked",
}
ENCODINGS = (
    "utf-8", "cp1252", "cp1250", "iso8859-2", "cp1251", "koi8-r", "cp1253", "cp1254", "cp1255", "cp1256", "gb18030",
    "big5", "shift_jis", "euc_kr",
)  # fmt: skip
NAMES = {"Keep the names": "keep", "Write Person 1, Person 2 instead": "replace"}


GUESSED = "What each column holds was guessed from its name and its cells. Is it right?"
ASK = "Which column is the question, and which is the answer? Choose below, and read it again."


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
            with gr.Row(elem_classes=["settings-grid"]) as self.file:
                self.header = gr.Dropdown(list(HEADERS.items()), label="First row names the columns", elem_id="header")
                self.delimiter = gr.Dropdown(list(DELIMITERS.items()), label="Delimiter", elem_id="delimiter")
                self.layout = gr.Dropdown(list(LAYOUT_WORDS.items()), label="Layout", elem_id="layout")
                self.encoding = gr.Dropdown([], label="Encoding", allow_custom_value=True, elem_id="encoding")
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
        parts = [self.panel, self.hint, self.table, self.file, self.chat]
        return [*parts, *self.columns, self.bot, self.pause, self.names, *self._file_inputs]

    @property
    def inputs(self) -> list[Any]:
        """The inputs of `read_options`."""
        return [*self.columns, self.bot, self.pause, self.names, *self._file_inputs]

    @property
    def _file_inputs(self) -> list[Any]:
        return [self.header, self.delimiter, self.layout, self.encoding]

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
            **self._show_file(facts.previews, options),
            **dict(zip(self.columns, drops, strict=True)),
            self.bot: gr.Dropdown(choices=people, value=options.bot or bot or None),
            self.pause: options.pause,
            self.names: options.names,
        }

    def ask(self, columns: Sequence[Column], options: ReadingOptions) -> Updates:
        """Ask what the columns of a table hold in which no talk was found."""
        drops = [_make_dropdown(column) for column in columns[:MAX_COLUMNS]]
        drops += [gr.Dropdown(visible=False)] * (MAX_COLUMNS - len(drops))
        return {
            self.panel: gr.Accordion(visible=True, open=True),
            self.hint: _render_hint(columns[:MAX_COLUMNS], False, ASK),
            self.table: gr.Row(visible=True),
            self.chat: gr.Row(visible=False),
            **dict(zip(self.columns, drops, strict=True)),
            **self._show_file((), options),
        }

    def _show_file(self, previews: Sequence[Preview], options: ReadingOptions) -> Updates:
        """Show how the text was stored and laid out: what was found, and what was chosen instead."""
        first = next((preview for preview in previews if preview.encoding), Preview("", "text"))
        found = "" if first.has_header is None else ": yes" if first.has_header else ": no"
        delimiter = next((name for name, sign in SIGNS.items() if sign == first.delimiter), first.delimiter)
        encodings = [(f"As found: {first.encoding}" if first.encoding else "As found", "")]
        return {
            self.file: gr.Row(visible=not previews or bool(first.encoding)),
            self.header: gr.Dropdown(choices=[(f"As found{found}", "automatic"), *list(HEADERS.items())[1:]],
                                     value=options.header),
            self.delimiter: gr.Dropdown(
                choices=[(f"As found: {delimiter}" if delimiter else "As found", ""), *list(DELIMITERS.items())[1:]],
                value=options.delimiter,
            ),
            self.layout: options.layout,
            self.encoding: gr.Dropdown(
                choices=[*encodings, *((name, name) for name in ENCODINGS)], value=options.encoding
            ),
        }  # fmt: skip

    def read_options(self, columns: Sequence[Column], values: Sequence[Any]) -> ReadingOptions:
        """Build reading options from the values of the form.

        Args:
            columns: those that the form asks about.
            values: of `inputs`.

        Raises:
            SettingError: a value that cannot be; the page's own limits are not relied on.
        """
        roles, (bot, pause, names, header, delimiter, layout, encoding) = values[:MAX_COLUMNS], values[MAX_COLUMNS:]
        pairs = tuple(f"{column.name}={clean_text(role)}" for column, role in zip(columns, roles, strict=False))
        return ReadingOptions(
            columns=pairs,
            bot=clean_text(bot),
            pause=pause,
            names=clean_text(names) or "keep",
            header=clean_text(header) or "automatic",
            delimiter=clean_text(delimiter),
            layout=clean_text(layout) or "automatic",
            encoding=clean_text(encoding),
        )


def find_columns(previews: Sequence[Preview]) -> tuple[Column, ...]:
    """Find the columns of the first table. Several tables are asked about only if they have the same columns."""
    tables = [preview.columns for preview in previews if preview.columns]
    names = [[column.name for column in table] for table in tables]
    if not tables or any(other != names[0] for other in names):
        return ()
    return tables[0]


def is_other_layout(options: ReadingOptions, before: ReadingOptions) -> bool:
    """Whether a file is to be taken apart in another way than before, so that its columns are no longer the same."""
    names = ("header", "delimiter", "layout", "encoding")
    return any(getattr(options, name) != getattr(before, name) for name in names)


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


def _render_hint(columns: Sequence[Column], has_people: bool, question: str = GUESSED) -> str:
    """Render the question with sample cells. A dropdown's info cannot hold them: Gradio renders it as Markdown."""
    if has_people:
        return '<p class="quiet">The model learns to write what the bot wrote; all others are the user.</p>'
    if not columns:
        return ""
    samples = [(column.name[:60], " · ".join(column.sample)[:MAX_SAMPLE_LENGTH]) for column in columns]
    rows = "".join(f"<tr><th scope=row>{escape(name)}</th><td>{escape(sample)}</td></tr>" for name, sample in samples)
    return (
        f'<p class="quiet">{question}</p>'
        f'<div class="scroll"><table class="problems columns"><tbody>{rows}</tbody></table></div>'
    )
