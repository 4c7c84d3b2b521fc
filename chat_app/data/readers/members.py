"""The files of an archive or a folder, one after the other; those that are understood together come last, as one.

What several files have in common (the same reason why they are not read) is said once.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

from chat_app.data.readers.archives import Member
from chat_app.data.readers.detect import open_reader
from chat_app.data.readers.known_exports import find_exports
from chat_app.data.readers.notes import note_encoding
from chat_app.data.readers.options import ReadingOptions
from chat_app.data.readers.protocol import InputFile, JoinedReader, OpenedReader
from chat_app.data.readers.split_names import part_from_filename
from chat_app.data.readers.types import Located, Part, Preview, Problem
from chat_app.errors import DataError

MOST_PREVIEWS = 50
# So many files may each say the same reason; the others are counted.
SAID_EACH = 3


def read_members(
    stack: ExitStack,
    place: Path,
    name: str,
    first: Member | Problem,
    rest: Iterator[Member | Problem],
    options: ReadingOptions,
    need_reply: bool,
    on_preview: Callable[[Preview], object] | None,
) -> Iterator[Located | Problem]:
    """The conversations of the files of an archive or a folder, each file with what it is meant for.

    Args:
        stack: is closed at the end.
        place: the archive or the folder, and `name` what the person calls it.
        first: of the members, and `rest` the others.
    """
    with stack:
        exports = find_exports(place)
        kept = _KeptFiles(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chat_app-"))))
        refused = _Refusals()
        for number, member in enumerate(chain([first], rest)):
            if isinstance(member, Problem):
                yield member
                continue
            if not exports.is_talk(member.name.removeprefix(f"{name}/")):
                continue
            try:
                file = InputFile(member.path, member.name, options)
                reader = open_reader(file)
                if isinstance(reader, JoinedReader):
                    kept.add(type(reader), member, options)
                    continue
                if on_preview and number < MOST_PREVIEWS:
                    on_preview(reader.preview())
                found = read_noted(reader, file, need_reply)
                yield from label(found, member.name, part_from_filename(member.name))
            except DataError as error:
                yield from refused.add(member.name, error)
        for family, files in kept.files.items():
            yield from _read_joined(family, files, need_reply, on_preview, refused)
        yield from refused.summarize()
        yield from exports.summarize(name)


def read_noted(reader: OpenedReader, file: InputFile, need_reply: bool) -> Iterator[Located | Problem]:
    """What a reader gives, after a note where the encoding of the file is only a guess."""
    items = reader.read(need_reply=need_reply)
    return chain(note_encoding(file.source), items) if file.is_text else items


def label(items: Iterator[Located | Problem], file: str, part: Part) -> Iterator[Located | Problem]:
    """The same, with the file's name and its part where they do not say another."""
    for item in items:
        if isinstance(item, Located):
            own = part if item.part == "train" else item.part
            yield Located(item.conversation, item.line, item.file or file, own)
        else:
            yield item


def _read_joined(
    family: type[JoinedReader],
    files: list[InputFile],
    need_reply: bool,
    on_preview: Callable[[Preview], object] | None,
    refused: _Refusals,
) -> Iterator[Located | Problem]:
    try:
        readers: list[OpenedReader] = list(family.join(files))
        for reader in readers:
            preview = reader.preview()
            if on_preview:
                on_preview(preview)
            yield from label(reader.read(need_reply=need_reply), preview.file, part_from_filename(preview.file))
    except DataError as error:
        yield from refused.add(error.where or files[0].name, error)


class _KeptFiles:
    """Files that are read when all others have been; what was unpacked would be gone by then, and is kept."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._count = 0
        self.files: dict[type[JoinedReader], list[InputFile]] = {}

    def add(self, family: type[JoinedReader], member: Member, options: ReadingOptions) -> None:
        self._count += 1
        path = self._folder / str(self._count)
        try:
            os.link(member.path, path)
        except OSError:
            shutil.copyfile(member.path, path)
        self.files.setdefault(family, []).append(InputFile(path, member.name, options))


class _Refusals:
    """Why files are not read."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._last: dict[tuple[str, str], str] = {}

    def add(self, name: str, error: DataError) -> Iterator[Problem]:
        """A problem for the first files that are refused for one reason."""
        said = (error.what, error.advice or "")
        self._counts[said] += 1
        self._last[said] = name
        if self._counts[said] <= SAID_EACH:
            yield Problem(name, None, *said)

    def summarize(self) -> Iterator[Problem]:
        """A problem for all the others of each reason."""
        for (reason, advice), count in self._counts.items():
            more = count - SAID_EACH
            name = self._last[reason, advice]
            if more == 1:
                yield Problem(name, None, reason, advice)
            elif more > 1:
                yield Problem(name, None, f"{reason} So it is with {more - 1:,} more files.", advice)
