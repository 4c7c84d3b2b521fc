"""The entry points of reading: a file, an archive or a folder as a stream, or files as a whole in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from chat_app.conversation import Conversation
from chat_app.data.readers import archives
from chat_app.data.readers.archives import Member
from chat_app.data.readers.detect import find_joined, open_folder_reader, open_reader
from chat_app.data.readers.members import label, read_members, read_noted
from chat_app.data.readers.notes import Counts
from chat_app.data.readers.options import ReadingOptions
from chat_app.data.readers.protocol import InputFile, JoinedReader
from chat_app.data.readers.split_names import part_from_filename
from chat_app.data.readers.types import Located, Note, Part, Preview, Problem, Reading, make_printable
from chat_app.errors import DataError

MAX_PROBLEMS = 100_000
SHOWN_PROBLEMS = 3
AnyPath = str | os.PathLike[str]


def iterate(
    path: AnyPath,
    *,
    name: str | None = None,
    options: ReadingOptions | None = None,
    need_reply: bool = True,
    on_preview: Callable[[Preview], object] | None = None,
) -> Iterator[Located | Problem]:
    """Iterate over the conversations and problems of a file, an archive or a folder, in order and in bounded memory.

    Args:
        path: the file, archive or folder.
        name: the name to show in problems, if it differs from the one on disk.
        options: what cannot be detected.
        need_reply: False also yields conversations without a reply (prompts for `generate`).
        on_preview: is called with the preview of a file before the iteration; for an archive or a folder, with that of
            each of the first files in it when it is reached.

    Raises:
        DataError: on the call for a file that is missing, empty or of an unknown kind; during iteration for one that
            is damaged further on.
    """
    place, options = Path(path), options or ReadingOptions()
    name = make_printable(name or place.name or str(path))
    whole = open_folder_reader(InputFile(place, name, options))
    if whole is not None:
        if on_preview:
            on_preview(whole.preview())
        return whole.read(need_reply=need_reply)
    with ExitStack() as stack:
        members = stack.enter_context(archives.open_members(place, name))
        first = next(members)
        if isinstance(first, Member) and first.path == place:
            file = InputFile(first.path, first.name, options)
            reader = open_reader(file)
            if on_preview:
                on_preview(reader.preview())
            return _label_part(read_noted(reader, file, need_reply), part_from_filename(name))
        return read_members(stack.pop_all(), place, name, first, members, options, need_reply, on_preview)


def iterate_together(
    paths: Sequence[AnyPath],
    *,
    names: Sequence[str] | None = None,
    options: ReadingOptions | None = None,
    need_reply: bool = True,
    on_preview: Callable[[Preview], object] | None = None,
) -> Iterator[tuple[str, Iterator[Located | Problem]]]:
    """Several files in their order, each with its name; those that are understood together are read as one.

    Args:
        paths: what to read.
        names: what to call each of them, if not by the names that they have on disk.
        options: as for `iterate`, as the others.

    Raises:
        DataError: as `iterate`.
    """
    options = options or ReadingOptions()
    shown = [make_printable(name) for name in names or [Path(path).name for path in paths]]
    groups: dict[type[JoinedReader], list[InputFile]] = {}
    files = [InputFile(Path(path), name, options) for path, name in zip(paths, shown, strict=True)]
    for file in files if len(files) > 1 else ():
        if family := find_joined(file):
            groups.setdefault(family, []).append(file)
    together = {id(file): family for family, group in groups.items() if len(group) > 1 for file in group}
    for file in files:
        family = together.get(id(file))
        if family is None:
            found = iterate(file.path, name=file.name, options=options, need_reply=need_reply, on_preview=on_preview)
            yield file.name, found
        elif file is groups[family][0]:
            for reader in family.join(groups[family]):
                if on_preview:
                    on_preview(reader.preview())
                yield reader.preview().file, reader.read(need_reply=need_reply)


def iterate_conversations(path: AnyPath, *, need_reply: bool = False) -> Iterator[Conversation]:
    """Iterate over the conversations of a file, without problems and lines.

    Raises:
        DataError: as `iterate`, during iteration.
    """
    for item in iterate(path, need_reply=need_reply):
        if not isinstance(item, Problem):
            yield item.conversation


def has_text(path: Path) -> bool:
    """Whether a file exists and is not empty."""
    return path.is_file() and path.stat().st_size > 0


def read_file(
    path: AnyPath, *, name: str | None = None, options: ReadingOptions | None = None, need_reply: bool = True
) -> Reading:
    """Read a whole file into memory.

    Raises:
        DataError: the file cannot be read, or has no usable conversation.
    """
    return _read_all([path], [name or Path(path).name], options, need_reply)[0]


def _read_all(
    paths: Sequence[AnyPath], names: Sequence[str] | None, options: ReadingOptions | None, need_reply: bool
) -> list[Reading]:
    """A reading of every file, or of every group of files that are understood together."""
    previews: list[Preview] = []
    readings = []
    found = iterate_together(paths, names=names, options=options, need_reply=need_reply, on_preview=previews.append)
    for name, items in found:
        readings.append(_collect(name, items, previews))
        previews.clear()
    return readings


def _collect(name: str, items: Iterator[Located | Problem], previews: list[Preview]) -> Reading:
    """All that was read; `previews` is filled while it is."""
    conversations: list[Conversation] = []
    lines: list[int] = []
    problems: list[Problem] = []
    notes: list[Note] = []
    counts = Counts()
    total = 0
    for item in items:
        if isinstance(item, Located):
            conversations.append(item.conversation)
            lines.append(item.line)
            counts.add(item.conversation)
        elif isinstance(item, Note):
            notes.append(item)
        else:
            total += 1
            if len(problems) < MAX_PROBLEMS:
                problems.append(item)
    if not conversations:
        raise nothing_usable_error(name, [*problems, *notes], total + len(notes))
    notes += counts.iterate_notes(name)
    encodings = ", ".join(dict.fromkeys(preview.encoding for preview in previews if preview.encoding))
    kind = previews[0].kind if previews else "text"
    return Reading(conversations, problems, lines, kind, encodings, total, tuple(notes))


def read_files(paths: Sequence[AnyPath], *, options: ReadingOptions | None = None, need_reply: bool = True) -> Reading:
    """Read several files into memory as one, in their order. The kind is that of the first.

    Raises:
        DataError: there is no file, or any of them has no usable conversation.
    """
    if not paths:
        raise DataError("No file was given.", advice="Give at least one file of conversations.")
    readings = _read_all(paths, None, options, need_reply)
    return Reading(
        conversations=[conversation for reading in readings for conversation in reading.conversations],
        problems=[problem for reading in readings for problem in reading.problems][:MAX_PROBLEMS],
        lines=[line for reading in readings for line in reading.lines],
        kind=readings[0].kind,
        encoding=", ".join(dict.fromkeys(reading.encoding for reading in readings)),
        problems_total=sum(reading.problems_total for reading in readings),
        notes=tuple(note for reading in readings for note in reading.notes),
    )


def nothing_usable_error(name: str, problems: Sequence[Problem], total: int) -> DataError:
    """The error for a file without usable conversations, with the first problems of different kinds."""
    name = make_printable(name)
    if not problems:
        return DataError("The file holds no conversation.", where=name, advice="Write one conversation a line.")
    # One of each kind, because the same mistake is often in every line.
    kinds: dict[tuple[str, str], Problem] = {}
    for problem in problems:
        kinds.setdefault((problem.reason, problem.advice), problem)
    shown = list(kinds.values())[:SHOWN_PROBLEMS]
    listed = " ".join(f"{_describe_place(problem, name)}{problem.reason} {problem.advice}" for problem in shown)
    more = f" And {total - len(shown):,} more." if total > len(shown) else ""
    return DataError(f"Nothing in this file can be used. {listed}{more}", where=name)


def _describe_place(problem: Problem, name: str) -> str:
    inside = problem.file.removeprefix(name).lstrip("/")
    if problem.line is None:
        return f"{inside}: " if inside else ""
    return f"{inside}, line {problem.line}: " if inside else f"Line {problem.line}: "


def _label_part(items: Iterator[Located | Problem], part: Part) -> Iterator[Located | Problem]:
    return items if part == "train" else label(items, "", part)
