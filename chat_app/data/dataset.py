"""A conversation dataset: conversations that were read once, stored in the disk cache and keyed by their source.

They are read and written as a stream, so memory use does not grow with the size of the files.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from chat_app.conversation import Conversation, Message
from chat_app.data.quality import apply_repairs
from chat_app.data.readers import (
    Located,
    Part,
    Preview,
    Problem,
    ReadingOptions,
    iterate_together,
    nothing_usable_error,
)
from chat_app.data.readers.notes import PLACEHOLDERS, Counts
from chat_app.data.readers.types import Note, explain_not_opened
from chat_app.data.writers import to_record
from chat_app.errors import DataError
from chat_app.system.disk_cache import Cache, digest_content
from chat_app.system.progress import Progress, ProgressCallback, ignore_progress

VERSION = "3"  # Part of every key: raise it when reading changes, so that cached datasets are rebuilt.
CONVERSATIONS, PROBLEMS, FACTS = "conversations.jsonl", "problems.jsonl", "facts.json"
SHOWN_PROBLEMS = 1_000
REPORT_EVERY = 2_000
MOST_NOTES = 100
# How a message that is not learned is written; inside a text the quotes would have backslashes before them.
NOT_LEARNED = b'"weight":0'
PLACEHOLDER = re.compile("|".join(map(re.escape, PLACEHOLDERS)).encode())


@dataclass(frozen=True)
class DatasetFacts:
    """Counts and previews of a dataset, known without reading the conversations.

    Attributes:
        files: the names of the files, as the user knows them.
        previews: the preview of each file.
        conversations: the number of conversations.
        turns: the number of their turns; system texts are no turns.
        parts: the number of conversations of each part ("train", "valid", "test").
        problems: how many lines or files were left out.
        notes: what a person should look at, in sentences.
    """

    files: tuple[str, ...]
    previews: tuple[Preview, ...]
    conversations: int
    turns: int
    parts: dict[str, int]
    problems: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ConversationDataset:
    """Conversations on disk, read as a stream.

    Attributes:
        folder: an entry of the disk cache.
        facts: the counts and previews stored there.
        repairs: names of the repairs to apply when the conversations are iterated over.
    """

    folder: Path
    facts: DatasetFacts
    repairs: frozenset[str] = field(default_factory=frozenset)

    def iterate_located(self) -> Iterator[Located]:
        """The conversations in their order, with the repairs applied, each with its file and line."""
        return (
            apply_repairs(_Restartable(self.iterate_unrepaired), self.repairs)
            if self.repairs
            else self.iterate_unrepaired()
        )

    def iterate_unrepaired(self) -> Iterator[Located]:
        """The conversations in their order, without repairs."""
        names = self.facts.files
        all_train = self.facts.parts.get("train") == self.facts.conversations
        with (self.folder / CONVERSATIONS).open("rb") as file:
            for line in file:
                yield _decode(orjson.loads(line), names, all_train)

    def iterate_conversations(self) -> Iterator[Conversation]:
        """The conversations alone, with the repairs applied."""
        return (located.conversation for located in self.iterate_located())

    def list_problems(self, most: int = SHOWN_PROBLEMS) -> list[Problem]:
        """The first problems, at most `most` of them."""
        return list(islice(self.iterate_problems(), most))

    def iterate_problems(self) -> Iterator[Problem]:
        """A problem for each line, item or file that was left out."""
        with (self.folder / PROBLEMS).open("rb") as file:
            for line in file:
                yield Problem(**orjson.loads(line))

    def with_repairs(self, repairs: Collection[str]) -> ConversationDataset:
        """The same dataset with other repairs."""
        return ConversationDataset(self.folder, self.facts, frozenset(repairs))


class _Restartable(Iterable[Located]):
    """An iterable that begins a new pass each time it is iterated."""

    def __init__(self, begin: Callable[[], Iterator[Located]]):
        self._begin = begin

    def __iter__(self) -> Iterator[Located]:
        return self._begin()


def load_files(
    files: Sequence[Path],
    cache: Cache,
    options: ReadingOptions | None = None,
    *,
    need_reply: bool = True,
    names: Sequence[str] | None = None,
    progress: ProgressCallback = ignore_progress,
) -> ConversationDataset:
    """Read files into a dataset, or find the dataset of the same files and options in the cache.

    Args:
        files: the files, folders and archives, in their order.
        cache: where the dataset is kept.
        options: how to read them, where reading cannot detect it.
        need_reply: False also takes conversations without a reply.
        names: the names to show for the files, if they differ from those on disk.
        progress: is given the number of conversations read so far.

    Raises:
        DataError: any of the files cannot be read or holds no usable conversation, or the disk is full.
    """
    if not files:
        raise DataError("No file was given.", advice="Give at least one file of conversations.")
    options = options or ReadingOptions()
    shown = list(names or [file.name for file in files])

    def read(writer: _DatasetWriter) -> None:
        found = iterate_together(
            files, names=shown, options=options, need_reply=need_reply, on_preview=writer.previews.append
        )
        for name, items in found:
            writer.take(items, name)

    settings = json.dumps([VERSION, need_reply, shown, asdict(options)], default=list)
    return _find_or_make(_compute_key([settings], files), cache, progress, read)


def load_items(
    begin: Callable[[], Iterable[Located | Problem]],
    key_parts: Sequence[str],
    name: str,
    cache: Cache,
    progress: ProgressCallback,
    files: Sequence[Path] = (),
) -> ConversationDataset:
    """Store conversations from a stream, such as a data set of the Hub, or find their dataset in the cache.

    Args:
        begin: opens the stream; it is not called if the cache has the dataset.
        key_parts: texts that identify the content, together with the content of `files`.
        name: the name to show for the data.
        cache: where the dataset is kept.
        progress: is given the number of conversations read so far.
        files: files whose content is part of the key.

    Raises:
        DataError: the stream holds no usable conversation, or the disk is full.
    """

    def read(writer: _DatasetWriter) -> None:
        writer.previews.append(Preview(name, "hub"))
        writer.take(begin(), name)

    return _find_or_make(_compute_key([VERSION, name, *key_parts], files), cache, progress, read)


def _find_or_make(
    key: str, cache: Cache, progress: ProgressCallback, read: Callable[[_DatasetWriter], None]
) -> ConversationDataset:
    """The dataset of that key from the cache; if it is not there, `read` fills a new one."""

    def make(folder: Path) -> None:
        writer = _DatasetWriter(folder, progress)
        read(writer)
        writer.close()

    found = cache.find_or_make(key, _open_dataset, make)
    if found is None:
        raise DataError("What was read could not be kept.", advice="Free some space on the disk and try again.")
    return found


class _DatasetWriter:
    """Writes the files of a dataset into a folder, and counts."""

    def __init__(self, folder: Path, progress: ProgressCallback):
        self.folder, self.progress = folder, progress
        self.files: list[str] = []
        self.previews: list[Preview] = []
        self.notes: list[str] = []
        self.parts: Counter[str] = Counter()
        self.turns = self.count = self.problems = 0

    def take(self, items: Iterable[Located | Problem], name: str) -> None:
        indices = {file: index for index, file in enumerate(self.files)}
        first: list[Problem] = []
        counts = Counts()
        before, missed = self.count, 0
        with (self.folder / CONVERSATIONS).open("ab") as good, (self.folder / PROBLEMS).open("ab") as bad:
            for item in items:
                if isinstance(item, Located):  # Nearly all are, so it is asked first.
                    index = indices.setdefault(item.file or name, len(indices))
                    line = _encode(item, index)
                    if NOT_LEARNED in line or (b"<" in line and PLACEHOLDER.search(line)):
                        counts.add(item.conversation)
                    good.write(line)
                    self.count += 1
                    self.turns += len(item.conversation.turns)
                    self.parts[item.part] += 1
                elif isinstance(item, Note):
                    self._note(item)
                    first.append(item)
                else:
                    missed += 1
                    bad.write(orjson.dumps(asdict(item), option=orjson.OPT_APPEND_NEWLINE))
                    if len(first) < SHOWN_PROBLEMS:
                        first.append(item)
                if (self.count + missed) % REPORT_EVERY == 0:
                    self.progress(Progress(done=self.count))
        self.files = list(indices)
        self.problems += missed
        self.progress(Progress(done=self.count))
        if self.count == before:
            raise nothing_usable_error(name, first, max(missed, len(first)))
        for note in counts.iterate_notes(name):
            self._note(note)

    def _note(self, note: Note) -> None:
        if len(self.notes) < MOST_NOTES:
            self.notes.append(note.sentence())

    def close(self) -> None:
        parts = dict(self.parts)
        if not parts.get("train"):
            # Without a training part, as with a single file named "test", all conversations are training data.
            parts = {"train": self.count}
        files, previews = tuple(self.files), tuple(self.previews)
        facts = DatasetFacts(files, previews, self.count, self.turns, parts, self.problems, tuple(self.notes))
        (self.folder / FACTS).write_bytes(orjson.dumps(asdict(facts)))


def _compute_key(parts: Sequence[str], files: Sequence[Path]) -> str:
    try:
        return digest_content([*parts, *_list_parts(files)])
    except OSError as error:
        closed = explain_not_opened(error)
        where = Path(error.filename or files[0]).name
        raise DataError(closed.reason, where=where, advice=closed.advice) from error


def _list_parts(files: Sequence[Path]) -> Iterator[Path | str]:
    """The parts of a cache key: the files, and for a folder the files in it with their relative paths."""
    for file in files:
        if file.is_dir():
            for inner in sorted(path for path in file.rglob("*") if path.is_file()):
                yield inner.relative_to(file).as_posix()
                yield inner
        elif file.is_file():
            yield file
        else:
            raise DataError("There is no such file.", where=file.name, advice="Check the name and the folder.")


def _open_dataset(entry: Path) -> ConversationDataset | None:
    """The dataset of a cache entry, or None if the entry is damaged."""
    try:
        values = orjson.loads((entry / FACTS).read_bytes())
        previews = tuple(_parse_preview(one) for one in values.pop("previews"))
        files, notes = tuple(values.pop("files")), tuple(values.pop("notes"))
        return ConversationDataset(entry, DatasetFacts(files=files, previews=previews, notes=notes, **values))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _parse_preview(values: dict[str, Any]) -> Preview:
    from chat_app.data.readers import Column, Speaker

    columns = tuple(Column(one["name"], one["role"], tuple(one["sample"])) for one in values.pop("columns"))
    speakers = tuple(Speaker(**one) for one in values.pop("speakers"))
    return Preview(columns=columns, speakers=speakers, **values)


def _encode(item: Located, file_index: int) -> bytes:
    record = {**to_record(item.conversation), "file": file_index, "line": item.line, "part": item.part}
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def _decode(record: dict[str, Any], names: Sequence[str], all_train: bool) -> Located:
    messages = tuple(Message(one["role"], one["content"], one.get("weight", 1) != 0) for one in record["messages"])
    part: Part = "train" if all_train else record["part"]
    return Located(Conversation(messages), record["line"], names[record["file"]], part)
