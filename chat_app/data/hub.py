"""Streams data sets of the Hugging Face Hub, by name or from a downloaded folder, as conversations.

A data set's own code is never run. What a row means is decided in `readers.json.values`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from chat_app.data.readers.json import values
from chat_app.data.readers.options import ReadingOptions
from chat_app.data.readers.split_names import parse_part
from chat_app.data.readers.types import Located, Problem
from chat_app.errors import DataError

HUB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,99}")
# The branch with the Parquet files to which the Hub converts data sets, also those that need a script.
CONVERTED = "refs/convert/parquet"
DATA_FILES = (".parquet", ".jsonl", ".json", ".csv", ".arrow", ".zst", ".gz")
HUB_FILES = ("README.md", ".gitattributes", "dataset_infos.json")
MAX_FOLDER_ENTRIES = 1_000


@dataclass(frozen=True)
class HubName:
    """A data set on the Hub: a repository, and a revision of it that can be read without running its code."""

    repository: str
    revision: str | None = None


SHORT_NAMES = {
    "dailydialog": HubName("li2017dailydialog/daily_dialog", CONVERTED),
    "empathetic": HubName("facebook/empathetic_dialogues", CONVERTED),
    "personachat": HubName("AlekseyKorshuk/persona-chat"),
    "blended_skill_talk": HubName("ParlAI/blended_skill_talk"),
}


def stream_conversations(
    name: str,
    *,
    config: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    options: ReadingOptions | None = None,
    need_reply: bool = True,
    folders: bool = True,
) -> Iterator[Located | Problem]:
    """Stream the conversations of a data set, split by split. A conversation's line is the number of its row, from 1.

    Args:
        name: owner/name on the Hub, one of SHORT_NAMES, or an existing folder with a download of a data set.
        config: the configuration; needed only if the data set has several.
        split: the only split to read; by default all of them, each with the part that its name says.
        revision: a branch, tag or commit.
        options: how to read rows; `columns` gives the roles of their fields.
        need_reply: False also yields conversations without a reply.
        folders: False refuses folders on this computer, and accepts only names on the Hub.

    Raises:
        DataError: on the call if the name is invalid or the data set is not found, gated, in need of a script or
            unreachable; during iteration if the connection breaks.
    """
    options = options or ReadingOptions()
    place, revision = _locate(name, revision, folders)
    shown = Path(place).name if os.path.isabs(place) else name
    splits = _load_splits(place, shown, config, split, revision)
    return _convert_splits(shown, splits, options, need_reply)


def find_download(name: str) -> Path | None:
    """The folder of that name on this computer, if it holds a downloaded data set; else None."""
    try:
        folder = Path(name).expanduser()
    except RuntimeError:  # "~name" of a user that this computer does not have
        return None
    return folder.resolve() if _find_short_name(name) is None and _is_download(folder) else None


def _find_short_name(name: str) -> HubName | None:
    return SHORT_NAMES.get(name.strip().lower().replace("-", "_"))


def _locate(name: str, revision: str | None, folders: bool) -> tuple[str, str | None]:
    """The arguments for `load_dataset`: a repository or a folder, and the revision."""
    if revision is not None and (not REVISION.fullmatch(revision) or ".." in revision):
        raise DataError(f"'{revision[:100]}' is no revision.", where=name[:100], advice="Give a branch, tag or commit.")
    known = _find_short_name(name)
    if known is not None:
        return known.repository, revision or known.revision
    folder = find_download(name) if folders else None
    if folder is not None:
        return str(folder), None
    if not HUB_NAME.fullmatch(name) or ".." in name or "--" in name or name.endswith((".git", ".ipynb")):
        raise DataError(
            f"'{name[:100]}' is no name of a data set, and no folder with a download of one.",
            advice=f"Write owner/name as on the Hub, or one of {', '.join(SHORT_NAMES)}.",
        )
    return name, revision


def _is_download(folder: Path) -> bool:
    """Whether a folder holds a downloaded data set: data files, beside files of the Hub or named after splits."""
    try:
        if not folder.is_dir():
            return False
    except (OSError, ValueError):
        return False
    if any((folder / name).exists() for name in HUB_FILES):
        return any(_is_data(file) for file in islice(folder.rglob("*"), MAX_FOLDER_ENTRIES))
    beside = chain(folder.glob("*"), (folder / "data").glob("*"))
    return any(_is_data(file) and parse_part(file.stem) for file in islice(beside, MAX_FOLDER_ENTRIES))


def _is_data(file: Path) -> bool:
    return file.suffix in DATA_FILES and file.is_file()


def _load_splits(place: str, name: str, config: str | None, split: str | None, revision: str | None) -> dict[str, Any]:
    """The splits by name, each an iterable of rows that are fetched on iteration."""
    from datasets import load_dataset

    expected = _list_loader_errors()

    def load(wanted: str | None) -> Any:
        return load_dataset(place, config, split=split, revision=wanted, streaming=True)

    try:
        try:
            found = load(revision)
        except RuntimeError as error:
            if not _needs_script(error) or revision is not None or os.path.isdir(place):
                raise
            found = load(CONVERTED)
    except expected as error:
        raise _explain(error, name, config, split) from error
    return {split: found} if split is not None else dict(found)


def _convert_splits(
    name: str, splits: dict[str, Any], options: ReadingOptions, need_reply: bool
) -> Iterator[Located | Problem]:
    for split, rows in splits.items():
        sample, numbered = values.peek(_number_rows(rows, name, split))
        schema = values.detect_schema(sample, options, need_reply=need_reply)
        part = parse_part(split) or "train"
        file = f"{name} ({split})"
        yield from values.read_conversations(
            numbered, schema, file, options, need_reply=need_reply, part=part, items=False
        )


def _number_rows(rows: Any, name: str, split: str) -> Iterator[tuple[int, Any]]:
    expected = _list_loader_errors()
    rows = iter(rows)
    number = 0
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except expected as error:
            raise _explain(error, name, None, split) from error
        number += 1
        yield number, row


def _list_loader_errors() -> tuple[type[Exception], ...]:
    """The exceptions that loading and streaming raise: each layer of the library has its own kinds."""
    from datasets.exceptions import DatasetsError
    from httpx import HTTPError
    from yaml import YAMLError

    return (DatasetsError, HTTPError, YAMLError, OSError, ValueError, TypeError, LookupError, RuntimeError)


def _needs_script(error: BaseException) -> bool:
    said = str(error).lower()
    return "scripts are no longer supported" in said or "loading script" in said


def _explain(error: BaseException, name: str, config: str | None, split: str | None) -> DataError:
    """An exception of the library as an error that explains the cause and the remedy to a user."""
    kinds = {kind.__name__ for one in _iterate_causes(error) for kind in type(one).__mro__}
    said = " ".join(str(one) for one in _iterate_causes(error))
    name = name[:100]
    if "OfflineModeIsEnabled" in kinds or "OfflineModeIsEnabled" in said:
        what, advice = "The Hub cannot be asked: this computer is set to work offline.", "Unset HF_HUB_OFFLINE."
    elif kinds & {"GatedRepoError"} or re.search(r"\bgated (?:dataset|repo)", said):
        what = "This data set is given only to people who asked for it on the Hub."
        advice = "Ask on its page, then log in with: hf auth login"
    elif any(map(_needs_script, _iterate_causes(error))):
        what = "This data set can only be read by running its own code, which is never done."
        advice = "Look for a copy of it in Parquet, or download its files and give those."
    elif kinds & {"RevisionNotFoundError"}:
        what, advice = "This revision of the data set does not exist.", "Check the branch, tag or commit."
    elif kinds & {"EmptyDatasetError", "DataFilesNotFoundError"}:
        what, advice = "There is no data in a known form in it.", "Look at its files on the Hub."
    elif kinds & {"DatasetNotFoundError", "RepositoryNotFoundError"}:
        what, advice = "There is no such data set on the Hub, or it is private.", "Check the owner and the name."
    elif kinds & {"ValueError", "KeyError"} and "config" in said.lower():
        what = f"It has no configuration '{config}'." if config else "It has several configurations."
        advice = f"Choose one of {_list_choices(said)}." if _list_choices(said) else "Choose one of those on its page."
    elif split and kinds & {"ValueError", "KeyError"} and "split" in said.lower():
        what = f"It has no split '{split}'."
        advice = f"Choose one of {_list_choices(said)}." if _list_choices(said) else "Choose one of those on its page."
    elif kinds & {"ConnectionError", "Timeout", "TimeoutException", "HTTPError", "HfHubHTTPError", "OSError"}:
        what, advice = "The data set cannot be fetched.", "Check the connection and try again."
    else:
        what, advice = "The rows of this data set cannot be read.", "Download its files and give those."
    return DataError(what, where=name, advice=advice)


def _list_choices(said: str) -> str:
    """The names in a list inside the library's message, joined by commas."""
    listed = re.search(r"\[([^\[\]]{1,500})\]", said)
    return ", ".join(re.findall(r"'([^']+)'", listed.group(1))) if listed else ""


def _iterate_causes(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(8):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__
