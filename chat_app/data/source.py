"""Data sources (files or a data set of the Hub): loading one as a dataset, its quality check, and its export.

After `load_source` nothing depends on which of the two the conversations came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, cast

import orjson

from chat_app.config.paths import STARTER, Paths
from chat_app.data.dataset import ConversationDataset, load_files, load_items
from chat_app.data.quality import Check, Checker
from chat_app.data.readers import ReadingOptions
from chat_app.data.tokenized_dataset import WINDOW_LIMIT
from chat_app.data.writers import write_jsonl, write_tsv
from chat_app.errors import DataError
from chat_app.models.tokenizer import load_backend, read_window
from chat_app.system.child_job import run_in_child
from chat_app.system.disk_cache import digest_content
from chat_app.system.progress import ProgressCallback, ignore_progress, report_items

CHECK_VERSION = "3"
REPORT_EVERY = 1_000
HUB_SETTINGS = ("hub", "hub_config", "hub_split")


@dataclass(frozen=True)
class HubData:
    """A data set on the Hub.

    Attributes:
        name: owner/name, or a short name of a well-known corpus.
        config: the configuration; empty for the only one, or the first.
        split: the split; empty for all of them.
        folders: whether the name may also be a folder on this computer. It must be False for visitors of a server.
    """

    name: str
    config: str = ""
    split: str = ""
    folders: bool = True


@dataclass(frozen=True)
class DataSource:
    """The data that a user chose, and the options of reading it.

    Attributes:
        files: files on this computer.
        names: the names to show for the files, if they differ from those on disk.
        hub: a data set of the Hub, instead of files.
        options: what reading cannot detect, such as roles of columns and the bot.
        repairs: names of the repairs to apply.
    """

    files: tuple[Path, ...] = ()
    names: tuple[str, ...] = ()
    hub: HubData | None = None
    options: ReadingOptions = field(default_factory=ReadingOptions)
    repairs: frozenset[str] = frozenset()

    @property
    def given(self) -> list[str]:
        """The names of the files or of the data set, as the user gave them; of a folder only the last part."""
        if self.hub is None:
            return list(self.names or (file.name for file in self.files))
        folder = Path(self.hub.name)
        return [folder.name if folder.is_absolute() or self.hub.name.startswith("~") else self.hub.name]

    def to_settings(self) -> dict[str, Any]:
        """The settings that differ from their defaults, except the files, by the names of the command line's flags."""
        hub = (self.hub.name, self.hub.config, self.hub.split) if self.hub else ()
        found: dict[str, Any] = {name: value for name, value in zip(HUB_SETTINGS, hub, strict=False) if value}
        for option in fields(ReadingOptions):
            value = getattr(self.options, option.name)
            if value != option.default:
                found[option.name] = list(value) if isinstance(value, tuple) else value
        return {**found, "repair": sorted(self.repairs)} if self.repairs else found

    def to_flags(self) -> list[str]:
        """`to_settings` as flags of the command line."""
        parts: list[str] = []
        for name, value in self.to_settings().items():
            flag = "--" + name.replace("_", "-")
            if name == "repair":
                parts += [flag, *value]
            else:
                for item in value if isinstance(value, list) else [value]:
                    parts += [flag, format_value(item)]
        return parts


def load_source(
    source: DataSource,
    paths: Paths,
    *,
    need_reply: bool = True,
    progress: ProgressCallback = ignore_progress,
) -> ConversationDataset:
    """Read a data source into a dataset, or find its dataset in the cache.

    Args:
        source: the files or the data set, with the options.
        paths: where the cache lies.
        need_reply: False also takes conversations without a reply.
        progress: is given the number of conversations read so far.

    Raises:
        DataError: the source cannot be read, or nothing in it can be used.
    """
    cache = paths.open_cache("material")
    if source.hub is None:
        names = source.names or None
        found = load_files(source.files, cache, source.options, need_reply=need_reply, names=names, progress=progress)
    else:
        from chat_app.data.hub import find_download, stream_conversations

        hub = source.hub
        begin = partial(
            stream_conversations,
            hub.name,
            config=hub.config or None,
            split=hub.split or None,
            options=source.options,
            need_reply=need_reply,
            folders=hub.folders,
        )
        settings = orjson.dumps([asdict(hub), asdict(source.options), need_reply]).decode()
        folder = find_download(hub.name) if hub.folders else None
        found = load_items(begin, [settings], hub.name, cache, progress, [folder] if folder else [])
    return found.with_repairs(source.repairs)


def load_apart(source: DataSource, paths: Paths, progress: ProgressCallback) -> ConversationDataset:
    """As `load_source`; data sets of the Hub are read in a child process, because the library for them is heavy.

    Raises:
        ChildProcessDiedError: the process ended, crashed or ran out of memory.
    """
    if source.hub is None:
        return load_source(source, paths, progress=progress)
    return cast("ConversationDataset", run_in_child(f"{__name__}.load_source", source, paths, progress=progress))


def check_in_child(dataset: ConversationDataset, paths: Paths, model: str, progress: ProgressCallback) -> Check:
    """As `check_dataset`, in a child process: what looks for languages, names and duplicates takes memory and time.

    Raises:
        ChildProcessDiedError: the process ended, crashed or ran out of memory.
    """
    return cast("Check", run_in_child(f"{__name__}.check_dataset", dataset, paths, model, progress=progress))


def check_dataset(
    dataset: ConversationDataset,
    paths: Paths,
    model: str = STARTER,
    progress: ProgressCallback = ignore_progress,
) -> Check:
    """Check the quality of a dataset's conversations, without repairs; lengths are counted with a model's tokenizer.

    The result is stored in the dataset's folder and read from there the next time.

    Args:
        model: the model whose tokenizer and window are used.
        progress: is given the number of conversations checked so far.
    """
    backend = load_backend(model, paths)
    window = min(read_window(model, paths), WINDOW_LIMIT)
    kept = dataset.folder / f"check-{digest_content([CHECK_VERSION, str(window), backend.to_str()])}.json"
    try:
        return Check.from_dict(orjson.loads(kept.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError):
        pass  # No stored result: check now.

    def count_tokens(texts: Sequence[str]) -> list[int]:
        return [len(one.ids) for one in backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    checker = Checker(count_tokens=count_tokens, window=window)
    checker.add_all(report_items(dataset.iterate_unrepaired(), progress, REPORT_EVERY))
    check = checker.summarize()
    kept.write_bytes(orjson.dumps(check.to_dict()))
    return check


def write_repaired(dataset: ConversationDataset, path: Path, progress: ProgressCallback = ignore_progress) -> int:
    """Write the conversations with their repairs to a file, as JSON Lines or as a table, by its extension.

    Returns:
        The number of conversations that a table cannot hold without loss; 0 for JSON Lines.

    Raises:
        DataError: the extension is neither .jsonl nor .tsv.
    """
    if path.suffix not in (".jsonl", ".tsv"):
        raise DataError(f"Conversations are not written as '{path.suffix}'.", advice="Name it .jsonl or .tsv.")

    counted = report_items(dataset.iterate_conversations(), progress, REPORT_EVERY)
    if path.suffix == ".tsv":
        return write_tsv(counted, path)
    write_jsonl(counted, path)
    return 0


def format_value(value: Any) -> str:
    """Format a setting's value for the command line; a float as short as possible."""
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)
