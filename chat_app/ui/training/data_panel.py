"""Choosing the training data: upload or Hub, a preview, reading options, the data check and its repairs.

Uploads lie in the page's cache and are never changed. What was read of them lies in the cache of the home folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gradio as gr

from chat_app.config.paths import STARTER
from chat_app.data.dataset import ConversationDataset
from chat_app.data.quality import REPAIRS, Check
from chat_app.data.readers import Column
from chat_app.data.source import DataSource, HubData, check_in_child, load_apart, write_repaired
from chat_app.data.text_corpus import is_plain_text
from chat_app.errors import ChatAppError, DataError, TooLargeError, UnclearColumnsError
from chat_app.formatting import format_bytes
from chat_app.services import Services
from chat_app.system.progress import Progress, ProgressCallback
from chat_app.ui.components import formatting
from chat_app.ui.components.background_task import BackgroundTask, TaskRow, count_conversations, follow_task
from chat_app.ui.components.conversation_view import make_conversation_view, make_view_value
from chat_app.ui.components.downloads import make_click_script, make_download_path
from chat_app.ui.components.escape import clean_text, describe_error, warn
from chat_app.ui.components.events import NEWEST, QUICK, Updates, limit_concurrency
from chat_app.ui.components.notices import render_refusal
from chat_app.ui.training.column_mapping import ColumnMapping, find_columns, is_other_layout
from chat_app.ui.training.data_report import make_preview, render_check, render_plain_text_notice, render_report

MAX_FILES = 20
TEXT_ENDINGS = (".txt", ".text", ".md")
FORMAT_HELP = """
<p>Nearly anything that holds conversations is understood as it is: tables (<code>.tsv</code>, <code>.csv</code>,
<code>.xlsx</code>, <code>.parquet</code>), <code>.json</code> and <code>.jsonl</code> in the usual schemas, exported
chats (WhatsApp, Telegram, Discord, Slack, Messenger, LINE, ChatGPT and many more), bots
(<code>intents.json</code>, Rasa, AIML), lines with names in text or Word, each also as <code>.gz</code> or several in a
<code>.zip</code>. If you write one yourself, either of these is enough:</p>
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


@dataclass(frozen=True)
class Upload:
    """The training data of a visitor: its source, and the dataset that was read from it. Empty before the first upload.

    Attributes:
        asked: the columns of a table in which no talk was found, about which the form asks.
        texts: files of plain text without speakers, which serve only for a model that is trained from scratch.
    """

    source: DataSource = field(default_factory=DataSource)
    material: ConversationDataset | None = None
    texts: tuple[Path, ...] = ()
    asked: tuple[Column, ...] = ()


class DataPanel:
    """The components of the panel and their handlers.

    Args:
        services: the home folder and the rules.
    """

    def __init__(self, services: Services):
        self.services = services
        self.mapping = ColumnMapping()
        self.task_row = TaskRow()

    def draw(self) -> None:
        """Create the components in the current Gradio context."""
        self.upload = gr.State(Upload())
        self._draw_sources()
        self.task_row.draw("reading")
        self.report = gr.HTML("", elem_id="reading", apply_default_css=False)
        self.mapping.draw()
        self.preview = make_conversation_view(
            make_view_value([], is_readonly=True), label="The first conversations", elem_id="preview", visible=False
        )
        self._draw_check()

    def _draw_sources(self) -> None:
        limit = format_bytes(self.services.rules.upload_limit)
        self.files = gr.File(
            file_count="multiple", label=f"Files of conversations, up to {limit}", height=150, elem_id="files"
        )
        with gr.Row(elem_classes=["try-row"]):
            self.sample = gr.Button("Try the sample shop", size="md", elem_id="try-sample", min_width=140)
        with gr.Accordion("What should a file look like?", open=False, elem_id="file-help"):
            gr.HTML(FORMAT_HELP, apply_default_css=False)
        with gr.Accordion("A data set of the Hugging Face Hub", open=False, elem_id="hub-data"):
            with gr.Row():
                self.hub_name = gr.Textbox(
                    label="Name", placeholder="owner/name, or dailydialog", elem_id="hub-name", max_length=200
                )
                self.hub_config = gr.Textbox(label="Configuration", placeholder="if it has several", max_length=100)
                self.hub_split = gr.Textbox(label="Part", placeholder="all", max_length=100)
            self.fetch = gr.Button("Fetch", size="md", elem_id="hub-fetch")

    def _draw_check(self) -> None:
        with gr.Accordion("Data check", open=True, visible=False, elem_id="data-check") as self.check_panel:
            self.check = gr.HTML("", elem_id="check", apply_default_css=False)
            self.repairs = gr.CheckboxGroup(
                [],
                label="Mend",
                info="Your file stays as it is; what is learned changes. What can only help is switched on already.",
                elem_id="repairs",
            )
            with gr.Row(elem_classes=["export-row"]):
                self.save_jsonl = gr.Button("Download as JSONL", size="sm", elem_id="save-jsonl")
                self.save_tsv = gr.Button("Download as TSV", size="sm", elem_id="save-tsv")
            self.mended = gr.DownloadButton("Download", visible="hidden", elem_id="mended-file")

    def connect(self, start: Any, model: Any) -> None:
        """Register the event handlers.

        Args:
            start: the button that can be pressed when something was read.
            model: the component that names the model whose tokens and window the check counts.
        """
        self.start = start
        long = limit_concurrency("reading", 2)
        outputs = [
            *(self.upload, *self.task_row.outputs, self.report, self.preview, self.check_panel, start),
            *self.mapping.outputs,
        ]
        checks = [self.upload, self.preview, self.check_panel, self.check, self.repairs, *self.task_row.outputs]
        readings = [
            self.files.upload(self.read_upload, [self.files, self.upload], outputs, trigger_mode="always_last", **long),
            self.sample.click(self.read_sample, None, outputs, **long),
            self.fetch.click(self.read_hub, [self.hub_name, self.hub_config, self.hub_split], outputs, **long),
            self.mapping.apply.click(self.read_again, [self.upload, *self.mapping.inputs], outputs, **long),
        ]
        stopped = []
        for reading in readings:
            check = reading.success(self.check_data, [self.upload, model], checks, **long)
            stopped += [reading, check]
        self.files.delete(self.read_upload, [self.files, self.upload], outputs, **long)
        self.files.clear(self.clear, None, outputs, **QUICK)
        self.task_row.stop.click(
            self.handle_stop, [self.upload], [*self.task_row.outputs, self.report], cancels=stopped, **QUICK
        )
        self.repairs.input(self.apply_repairs, [self.upload, self.repairs], [self.upload, self.preview], **NEWEST)
        for button, ending in ((self.save_jsonl, ".jsonl"), (self.save_tsv, ".tsv")):
            button.click(
                self.make_save_handler(ending), [self.upload], [self.mended, *self.task_row.outputs], **long
            ).success(None, None, None, js=make_click_script("mended-file"), api_visibility="private")

    def read_upload(self, files: list[str] | None, upload: Upload) -> Iterator[Updates]:
        """Read the uploaded files and show a preview."""
        if not files:
            yield self.clear()
            return
        paths = tuple(Path(str(file)) for file in files)
        try:
            self._check_uploads(paths)
        except ChatAppError as error:
            yield self._show_refusal(error)
            return
        texts = tuple(path for path in paths if is_plain_text_file(path))
        conversations = tuple(path for path in paths if path not in texts)
        if conversations:
            yield from self._read(
                DataSource(files=conversations, names=tuple(path.name for path in conversations)), texts
            )
        else:
            yield {**self.clear(), self.upload: Upload(texts=texts), self.report: render_plain_text_notice(texts)}

    def read_sample(self) -> Iterator[Updates]:
        """Read the sample conversations that come with the app."""
        yield from self._read(DataSource(files=(self.services.paths.samples / "shop.tsv",), names=("shop.tsv",)))

    def read_hub(self, name: str, config: str, split: str) -> Iterator[Updates]:
        """Fetch and read a data set of the Hub."""
        folders = not self.services.rules.is_shared
        hub = HubData(clean_text(name).strip(), clean_text(config).strip(), clean_text(split).strip(), folders)
        yield from self._read(DataSource(hub=hub))

    def read_again(self, upload: Upload, *values: Any) -> Iterator[Updates]:
        """Read the same source again with the reading options of the form."""
        if upload.material is None and not upload.asked:
            yield self.task_row.hide()
            return
        columns = find_columns(upload.material.facts.previews) if upload.material else upload.asked
        try:
            options = self.mapping.read_options(columns, values)
            if is_other_layout(options, upload.source.options):
                options = replace(options, columns=())  # There are other columns now.
        except ChatAppError as error:
            yield self._show_refusal(error)
            return
        yield from self._read(replace(upload.source, options=options), upload.texts)

    def clear(self) -> Updates:
        """Clear everything: the files were removed."""
        return {
            **self.task_row.hide(),
            **self.mapping.hide(),
            self.upload: Upload(),
            self.report: "",
            self.preview: gr.HTML(visible=False),
            self.check_panel: gr.Accordion(visible=False),
            self.start: gr.Button(interactive=False),
        }

    def handle_stop(self, upload: Upload) -> Updates:
        """Show that the reading or the check was stopped."""
        if upload.material is not None:
            return self.task_row.hide()
        return {**self.task_row.hide(), self.report: '<p class="quiet">Stopped. Nothing was changed.</p>'}

    def _check_uploads(self, paths: tuple[Path, ...]) -> None:
        if len(paths) > MAX_FILES:
            raise DataError(
                f"These are {len(paths)} files.",
                advice=f"Upload at most {MAX_FILES} at once, or put them into a .zip.",
            )
        limit = self.services.rules.upload_limit
        for path in paths:
            if path.stat().st_size > limit:
                raise TooLargeError(f"This file is larger than {format_bytes(limit)}.", where=path.name)

    def _read(self, source: DataSource, texts: tuple[Path, ...] = ()) -> Iterator[Updates]:
        task = BackgroundTask(
            lambda progress: load_apart(source, self.services.paths, count_conversations(progress, "Reading"))
        )
        for text in task:
            yield {**self.task_row.show(text or "Reading."), self.start: gr.Button(interactive=False)}
        try:
            material = task.result()
        except UnclearColumnsError as error:
            asked = tuple(Column(name, "ignore", sample) for name, sample in error.columns)
            # The error's own advice is to give flags of the command line.
            refusal = DataError(error.what, where=error.where, advice="Say below what its columns hold.")
            yield {
                **self._show_refusal(refusal),
                **self.mapping.ask(asked, source.options),
                self.upload: Upload(source, None, texts, asked),
            }
            return
        except ChatAppError as error:
            yield self._show_refusal(error)
            return
        except OSError as error:
            yield self._show_refusal(DataError(f"What was read could not be kept: {error.strerror or error}."))
            return
        report = render_report(material.facts, material.list_problems()) + (
            render_plain_text_notice(texts) if texts else ""
        )
        yield {
            **self.task_row.hide(),
            **self.mapping.show(material.facts, source.options),
            self.upload: Upload(source, material, texts),
            self.report: report,
            self.preview: gr.HTML(value=make_preview(material.iterate_conversations()), visible=True),
            self.check_panel: gr.Accordion(visible=False),
            self.start: gr.Button(interactive=True),
        }

    def _show_refusal(self, error: ChatAppError) -> Updates:
        return {**self.clear(), self.report: render_refusal(describe_error(error))}

    def check_data(self, upload: Upload, model: str) -> Iterator[Updates]:
        """Run the data check on the dataset, and offer repairs."""
        material = upload.material
        if material is None:
            yield {self.check_panel: gr.Accordion(visible=False), self.check: ""}
            return

        def look(progress: ProgressCallback) -> tuple[Check, str]:
            def report(now: Progress) -> None:
                total = formatting.format_count(material.facts.conversations, "conversation")
                progress(replace(now, message=f"Checking: {now.done:,} of {total}."))

            try:
                return check_in_child(material, self.services.paths, model, report), "this model"
            except ChatAppError:  # Without the model there is no tokenizer to count with.
                return check_in_child(material, self.services.paths, STARTER, report), "the starter"

        task = BackgroundTask(look)
        for text in task:
            yield self.task_row.show(text or "Checking.")
        check, name = task.result()
        offered = [repair for repair in REPAIRS.values() if self._is_found(check, repair.name)]
        chosen = [repair.name for repair in offered if repair.is_on]
        yield {
            **self.task_row.hide(),
            **(self.apply_repairs(upload, chosen) if chosen else {}),
            self.check_panel: gr.Accordion(visible=True),
            self.check: render_check(check, name),
            self.repairs: gr.CheckboxGroup(
                choices=[(repair.label, repair.name) for repair in offered], value=chosen, visible=bool(offered)
            ),
        }

    @staticmethod
    def _is_found(check: Check, repair: str) -> bool:
        return any(finding.repair == repair for finding in check.findings)

    def apply_repairs(self, upload: Upload, chosen: list[str]) -> Updates:
        """Apply these repairs to the dataset."""
        if upload.material is None:
            return {self.upload: gr.skip()}
        repairs = frozenset(name for name in chosen or () if name in REPAIRS)
        material = upload.material.with_repairs(repairs)
        return {
            self.upload: Upload(replace(upload.source, repairs=repairs), material, upload.texts),
            self.preview: gr.HTML(value=make_preview(material.iterate_conversations()), visible=True),
        }

    def make_save_handler(self, ending: str) -> Any:
        """Make the handler that writes the repaired conversations to a file for the browser."""

        def save(upload: Upload) -> Iterator[Updates]:
            material = upload.material
            if material is None:
                warn("There is nothing to download yet.")
                yield self.task_row.hide()
                return
            stem = Path(material.facts.files[0]).name.partition(".")[0] or "conversations"

            def write(progress: ProgressCallback) -> tuple[Path, int]:
                target = make_download_path(self.mended, f"{stem}-mended{ending}")

                def report(now: Progress) -> None:
                    progress(replace(now, message=f"Writing: {now.done:,} conversations."))

                return target, write_repaired(material, target, report)

            written = yield from follow_task(
                write, lambda text: self.task_row.show(text or "Writing."), "The file could not be written"
            )
            if written is None:
                yield self.task_row.hide()
                return
            target, lost = written
            if lost:
                several = formatting.format_count(lost, "conversation")
                warn(f"{several} lost something that TSV cannot hold. JSONL keeps all.")
            yield {**self.task_row.hide(), self.mended: gr.DownloadButton(value=str(target))}

        return save

    def get_source(self, upload: Upload) -> DataSource:
        """Return the data source to train on.

        Raises:
            DataError: there is nothing, or the uploads have expired.
        """
        if upload.material is None:
            raise DataError("There is nothing to learn from yet.", advice="Upload a file first.")
        check_files_exist(upload)
        return upload.source


def check_files_exist(upload: Upload) -> None:
    """Check that the uploads still exist.

    Raises:
        DataError: they have expired.
    """
    if not all(file.exists() for file in (*upload.source.files, *upload.texts)):
        raise DataError("The files are no longer here.", advice="Upload them again.")


def is_plain_text_file(path: Path) -> bool:
    """Whether an upload is plain text without speakers, judged by its name and its content."""
    return path.name.casefold().removesuffix(".gz").endswith(TEXT_ENDINGS) and is_plain_text(path)
