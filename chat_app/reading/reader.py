"""Reads files of conversations: as a stream, as a whole, or several as one. Knows which part reads which kind."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from chat_app.conversation import Conversation
from chat_app.errors import DataError
from chat_app.reading import jsonl, tsv
from chat_app.reading.kinds import Layout, layout
from chat_app.reading.report import Kind, Located, Problem, Reading
from chat_app.reading.source import Source, open_source

MAX_WHOLE_MEGABYTES = 200
MAX_PROBLEMS = 100_000
SHOWN_PROBLEMS = 3

AnyPath = str | os.PathLike[str]


def iterate(path: AnyPath, *, name: str | None = None, need_reply: bool = True) -> Iterator[Located | Problem]:
    """The conversations and the problems of a file in their order, in bounded memory.

    Args:
        path: the file.
        name: what to call it in problems, if not by the name it has on disk.
        need_reply: without it, conversations that nobody has answered are taken too (prompts for `generate`).

    Raises:
        DataError: at once for a file that is missing, empty or no text; later for broken JSON over several lines.
    """
    source = open_source(path, name)
    return _items(source, layout(source), need_reply)


def read_file(path: AnyPath, *, name: str | None = None, need_reply: bool = True) -> Reading:
    """A whole file.

    Raises:
        DataError: it cannot be read, or holds no conversation that can be used.
    """
    source = open_source(path, name)
    how = layout(source)
    conversations: list[Conversation] = []
    lines: list[int] = []
    problems: list[Problem] = []
    total = 0
    for item in _items(source, how, need_reply):
        if isinstance(item, Located):
            conversations.append(item.conversation)
            lines.append(item.line)
        else:
            total += 1
            if len(problems) < MAX_PROBLEMS:
                problems.append(item)
    if not conversations:
        raise _nothing_usable(source.name, problems, total)
    kind: Kind = "tsv" if how == "tsv" else "jsonl"
    return Reading(conversations, problems, lines, kind, source.encoding, total)


def read_files(paths: Sequence[AnyPath], *, need_reply: bool = True) -> Reading:
    """Several files as one, in their order. The kind is the first one's.

    Raises:
        DataError: there is no file, or one of them is of no use: better no training than one on half of the data.
    """
    if not paths:
        raise DataError("No file was given.", advice="Give at least one file of conversations.")
    readings = [read_file(path, need_reply=need_reply) for path in paths]
    return Reading(
        conversations=[conversation for reading in readings for conversation in reading.conversations],
        problems=[problem for reading in readings for problem in reading.problems][:MAX_PROBLEMS],
        lines=[line for reading in readings for line in reading.lines],
        kind=readings[0].kind,
        encoding=", ".join(dict.fromkeys(reading.encoding for reading in readings)),
        problems_total=sum(reading.problems_total for reading in readings),
    )


def _items(source: Source, how: Layout, need_reply: bool) -> Iterator[Located | Problem]:
    if how == "tsv":
        return tsv.conversations(source.lines(), source.name)
    if how == "jsonl":
        return jsonl.conversations(source.lines(), source.name, need_reply=need_reply)
    return jsonl.conversations_of_whole(_whole(source), source.name, need_reply=need_reply)


def _whole(source: Source) -> bytes:
    size = source.path.stat().st_size
    if size > MAX_WHOLE_MEGABYTES * 1_000_000:
        raise DataError(
            f"This file is one JSON value of {size / 1e6:,.0f} MB; at most {MAX_WHOLE_MEGABYTES} MB are read at once.",
            where=source.name,
            advice="Save it as JSON Lines: one conversation a line.",
        )
    return b"".join(source.chunks())


def _nothing_usable(name: str, problems: list[Problem], total: int) -> DataError:
    if not problems:
        return DataError("The file holds no conversation.", where=name, advice="Write one conversation a line.")
    shown = problems[:SHOWN_PROBLEMS]
    reasons = [f"{problem.reason} {problem.advice}" for problem in shown]
    listed = " ".join(f"Line {problem.line}: {reason}" for problem, reason in zip(shown, reasons, strict=True))
    more = f" And {total - len(shown):,} more." if total > len(shown) else ""
    return DataError(f"Nothing in this file can be used. {listed}{more}", where=name)
