"""Bringing conversations: upload or Hub, what was understood, what can be told about it, the check and its repairs.

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
from chat_app.data.source import DataSource, HubData, check_dataset, load_source, write_repaired
from chat_app.data.text_corpus import is_plain_text
from chat_app.errors import ChatAppError, DataError, TooLargeError
from chat_app.formatting import bytes_in_words
from chat_app.services import Services
from chat_app.system.progress import Progress, ProgressCallback
from chat_app.ui.components import formatting as words
from chat_app.ui.components.background_task import Work, WorkRow, count_conversations, followed
from chat_app.ui.components.conversation_view import turns_value, turns_view
from chat_app.ui.components.downloads import place_for, pressing
from chat_app.ui.components.escape import clean, sentence, warn
from chat_app.ui.components.events import QUICK, Updates, slow
from chat_app.ui.components.notices import refused
from chat_app.ui.training.column_mapping import Mapping
from chat_app.ui.training.data_report import check_of, preview_of, report_of, running_text

MOST_FILES = 20
TEXT_ENDINGS = (".txt", ".text", ".md")
HOW_FILES_LOOK = """
<p>Nearly anything that holds conversations is understood as it is: tables (<code>.tsv</code>, <code>.csv</code>,
<code>.xlsx</code>, <code>.parquet</code>), <code>.json</code> and <code>.jsonl</code> in the usual schemas, exported
chats (WhatsApp <code>.txt</code>; Telegram, Discord and Slack <code>.json</code>), each also as <code>.gz</code> or
several in a <code>.zip</code>. If you write one yourself, either of these is enough:</p>
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
class Brought:
    """What a visitor has brought so far, and what was read of it. None of it is there before the first upload.

    `texts` are files of running text, in which nobody speaks: they serve for a model from nothing only.
    """

    wanted: DataSource = field(default_factory=DataSource)
    material: ConversationDataset | None = None
    texts: tuple[Path, ...] = ()


class DataPanel:
    """The components and what they do.

    Args:
        services: the home folder and the rules.
    """

    def __init__(self, services: Services):
        self.services = services
        self.mapping = Mapping()
        self.work = WorkRow()

    def draw(self) -> None:
        """Put the components where the page is being built."""
        self.brought = gr.State(Brought())
        self._draw_sources()
        self.work.draw("reading")
        self.report = gr.HTML("", elem_id="reading", apply_default_css=False)
        self.mapping.draw()
        self.preview = turns_view(
            turns_value([], is_readonly=True), label="The first conversations", elem_id="preview", visible=False
        )
        self._draw_check()

    def _draw_sources(self) -> None:
        limit = bytes_in_words(self.services.rules.upload_limit)
        self.files = gr.File(
            file_count="multiple", label=f"Files of conversations, up to {limit}", height=150, elem_id="files"
        )
        with gr.Row(elem_classes=["try-row"]):
            self.sample = gr.Button("Try the sample shop", size="md", elem_id="try-sample", min_width=140)
        with gr.Accordion("What should a file look like?", open=False, elem_id="file-help"):
            gr.HTML(HOW_FILES_LOOK, apply_default_css=False)
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
        """Join the events.

        Args:
            start: the button that can be pressed when something was read.
            model: the component that names the model whose tokens and window the check counts.
        """
        self.start = start
        long = slow("reading", 2)
        outputs = [
            *(self.brought, *self.work.outputs, self.report, self.preview, self.check_panel, start),
            *self.mapping.outputs,
        ]
        checks = [self.brought, self.preview, self.check_panel, self.check, self.repairs, *self.work.outputs]
        readings = [
            self.files.upload(self.take, [self.files, self.brought], outputs, **long),
            self.sample.click(self.take_sample, None, outputs, **long),
            self.fetch.click(self.take_hub, [self.hub_name, self.hub_config, self.hub_split], outputs, **long),
            self.mapping.apply.click(self.again, [self.brought, *self.mapping.inputs], outputs, **long),
        ]
        stopped = []
        for reading in readings:
            check = reading.success(self.look_over, [self.brought, model], checks, **long)
            stopped += [reading, check]
        self.files.delete(self.take, [self.files, self.brought], outputs, **long)
        self.files.clear(self.forget, None, outputs, **QUICK)
        self.work.stop.click(self.stopped, [self.brought], [*self.work.outputs, self.report], cancels=stopped, **QUICK)
        self.repairs.input(self.mend, [self.brought, self.repairs], [self.brought, self.preview], **QUICK)
        for button, ending in ((self.save_jsonl, ".jsonl"), (self.save_tsv, ".tsv")):
            button.click(self.saver(ending), [self.brought], [self.mended, *self.work.outputs], **long).success(
                None, None, None, js=pressing("mended-file"), api_visibility="private"
            )

    def take(self, files: list[str] | None, brought: Brought) -> Iterator[Updates]:
        """Read what was uploaded and show it."""
        if not files:
            yield self.forget()
            return
        paths = tuple(Path(str(one)) for one in files)
        try:
            self._check_uploads(paths)
        except ChatAppError as error:
            yield self._refused(error)
            return
        texts = tuple(path for path in paths if is_running_text(path))
        talk = tuple(path for path in paths if path not in texts)
        if talk:
            yield from self._read(DataSource(files=talk, names=tuple(path.name for path in talk)), texts)
        else:
            yield {**self.forget(), self.brought: Brought(texts=texts), self.report: running_text(texts)}

    def take_sample(self) -> Iterator[Updates]:
        """Read the sample conversations that come with the app."""
        yield from self._read(DataSource(files=(self.services.paths.samples / "shop.tsv",), names=("shop.tsv",)))

    def take_hub(self, name: str, config: str, split: str) -> Iterator[Updates]:
        """Fetch a data set."""
        folders = not self.services.rules.is_shared
        hub = HubData(clean(name).strip(), clean(config).strip(), clean(split).strip(), folders)
        yield from self._read(DataSource(hub=hub))

    def again(self, brought: Brought, *values: Any) -> Iterator[Updates]:
        """Read the same once more, as the person says that it is meant."""
        if brought.material is None:
            yield self.work.hide()
            return
        try:
            options = self.mapping.options(brought.material.facts, values)
        except ChatAppError as error:
            yield self._refused(error)
            return
        yield from self._read(replace(brought.wanted, options=options), brought.texts)

    def forget(self) -> Updates:
        """The person has taken the files away."""
        return {
            **self.work.hide(),
            **self.mapping.hidden(),
            self.brought: Brought(),
            self.report: "",
            self.preview: gr.HTML(visible=False),
            self.check_panel: gr.Accordion(visible=False),
            self.start: gr.Button(interactive=False),
        }

    def stopped(self, brought: Brought) -> Updates:
        """Somebody has stopped the reading or the check."""
        if brought.material is not None:
            return self.work.hide()
        return {**self.work.hide(), self.report: '<p class="quiet">Stopped. Nothing was changed.</p>'}

    def _check_uploads(self, paths: tuple[Path, ...]) -> None:
        if len(paths) > MOST_FILES:
            raise DataError(
                f"These are {len(paths)} files.",
                advice=f"Upload at most {MOST_FILES} at once, or put them into a .zip.",
            )
        limit = self.services.rules.upload_limit
        for path in paths:
            if path.stat().st_size > limit:
                raise TooLargeError(f"This file is larger than {bytes_in_words(limit)}.", where=path.name)

    def _read(self, wanted: DataSource, texts: tuple[Path, ...] = ()) -> Iterator[Updates]:
        work = Work(
            lambda progress: load_source(wanted, self.services.paths, progress=count_conversations(progress, "Reading"))
        )
        for text in work:
            yield {**self.work.show(text or "Reading."), self.start: gr.Button(interactive=False)}
        try:
            material = work.result()
        except ChatAppError as error:
            yield self._refused(error)
            return
        except OSError as error:
            yield self._refused(DataError(f"What was read could not be kept: {error.strerror or error}."))
            return
        report = report_of(material.facts, material.problems()) + (running_text(texts) if texts else "")
        yield {
            **self.work.hide(),
            **self.mapping.shown(material.facts, wanted.options),
            self.brought: Brought(wanted, material, texts),
            self.report: report,
            self.preview: gr.HTML(value=preview_of(material.conversations()), visible=True),
            self.check_panel: gr.Accordion(visible=False),
            self.start: gr.Button(interactive=True),
        }

    def _refused(self, error: ChatAppError) -> Updates:
        return {**self.forget(), self.report: refused(sentence(error))}

    def look_over(self, brought: Brought, model: str) -> Iterator[Updates]:
        """Check what was read."""
        material = brought.material
        if material is None:
            yield {self.check_panel: gr.Accordion(visible=False), self.check: ""}
            return

        def look(progress: ProgressCallback) -> tuple[Check, str]:
            def report(now: Progress) -> None:
                total = words.count(material.facts.conversations, "conversation")
                progress(replace(now, message=f"Checking: {now.done:,} of {total}."))

            try:
                return check_dataset(material, self.services.paths, model, report), "this model"
            except ChatAppError:  # A model that is not here yet cannot count.
                return check_dataset(material, self.services.paths, STARTER, report), "the starter"

        work = Work(look)
        for text in work:
            yield self.work.show(text or "Checking.")
        check, name = work.result()
        offered = [one for one in REPAIRS.values() if self._is_found(check, one.name)]
        chosen = [one.name for one in offered if one.is_on]
        yield {
            **self.work.hide(),
            **(self.mend(brought, chosen) if chosen else {}),
            self.check_panel: gr.Accordion(visible=True),
            self.check: check_of(check, name),
            self.repairs: gr.CheckboxGroup(
                choices=[(one.label, one.name) for one in offered], value=chosen, visible=bool(offered)
            ),
        }

    @staticmethod
    def _is_found(check: Check, repair: str) -> bool:
        return any(finding.repair == repair for finding in check.findings)

    def mend(self, brought: Brought, chosen: list[str]) -> Updates:
        """Apply these repairs from now on."""
        if brought.material is None:
            return {self.brought: gr.skip()}
        repairs = frozenset(one for one in chosen or () if one in REPAIRS)
        material = brought.material.with_repairs(repairs)
        return {
            self.brought: Brought(replace(brought.wanted, repairs=repairs), material, brought.texts),
            self.preview: gr.HTML(value=preview_of(material.conversations()), visible=True),
        }

    def saver(self, ending: str) -> Any:
        """What writes the mended conversations as a file for the browser."""

        def save(brought: Brought) -> Iterator[Updates]:
            material = brought.material
            if material is None:
                warn("There is nothing to download yet.")
                yield self.work.hide()
                return
            stem = Path(material.facts.files[0]).name.partition(".")[0] or "conversations"

            def write(progress: ProgressCallback) -> tuple[Path, int]:
                target = place_for(self.mended, f"{stem}-mended{ending}")

                def report(now: Progress) -> None:
                    progress(replace(now, message=f"Writing: {now.done:,} conversations."))

                return target, write_repaired(material, target, report)

            written = yield from followed(
                write, lambda text: self.work.show(text or "Writing."), "The file could not be written"
            )
            if written is None:
                yield self.work.hide()
                return
            target, lost = written
            if lost:
                warn(f"{words.count(lost, 'conversation')} lost something that TSV cannot hold. JSONL keeps all.")
            yield {**self.work.hide(), self.mended: gr.DownloadButton(value=str(target))}

        return save

    def wanted(self, brought: Brought) -> DataSource:
        """What to learn from.

        Raises:
            DataError: there is nothing, or the uploads have expired.
        """
        if brought.material is None:
            raise DataError("There is nothing to learn from yet.", advice="Upload a file first.")
        check_here(brought)
        return brought.wanted


def check_here(brought: Brought) -> None:
    """Whether the uploads are still there.

    Raises:
        DataError: they have expired.
    """
    if not all(file.exists() for file in (*brought.wanted.files, *brought.texts)):
        raise DataError("The files are no longer here.", advice="Upload them again.")


def is_running_text(path: Path) -> bool:
    """Whether an upload is meant as running text: by its name, and because nobody speaks in it."""
    return path.name.casefold().removesuffix(".gz").endswith(TEXT_ENDINGS) and is_plain_text(path)
