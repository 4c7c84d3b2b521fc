"""One file -> what kind it is, and a reader for it. Knows all the kinds and the order in which they are tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from chat_app.data.readers.archives import Member
from chat_app.data.readers.chat_exports import detect as exports
from chat_app.data.readers.chat_exports import threading as chats
from chat_app.data.readers.chat_exports import whatsapp
from chat_app.data.readers.chat_exports.threading import ChatMessage
from chat_app.data.readers.corpora import detect as corpora
from chat_app.data.readers.corpora import dialogpt
from chat_app.data.readers.detect_binary import ZIP_HEADS, media
from chat_app.data.readers.detect_text import layout
from chat_app.data.readers.json import document as whole
from chat_app.data.readers.json import jsonl, records, values
from chat_app.data.readers.options import ReadingOptions
from chat_app.data.readers.tables import csv as delimited
from chat_app.data.readers.tables import tsv
from chat_app.data.readers.text import transcript as marked
from chat_app.data.readers.text_source import MAX_LINE_BYTES, Source, first_lines, open_source
from chat_app.data.readers.types import Column, Kind, Located, Look, Problem
from chat_app.errors import DataError

HEAD_BYTES = 8

Items = Iterator[Located | Problem]


@dataclass(frozen=True)
class Readable:
    """A file of a known kind. Both functions begin anew each time they are called."""

    look: Callable[[], Look]
    items: Callable[[], Items]


def readable(member: Member, options: ReadingOptions, need_reply: bool) -> Readable:
    """The kind of a file, found by what stands in it.

    Raises:
        DataError: it is missing, empty, or of no kind that is read.
    """
    table = _binary_table(member)
    if table is not None:
        return _of_table(table, member, options, need_reply)
    source = open_source(member.path, member.name)
    how = layout(source)
    parsed = cache(partial(whole.parsed, source))
    if how == "json" or (how == "jsonl" and _is_one_value(source, parsed, options)):
        return _of_whole(source, parsed, options, need_reply)
    if how == "jsonl":
        read = partial(jsonl.conversations, file=source.name, options=options, need_reply=need_reply)
        return _plain("jsonl", source, lambda: read(source.lines()))
    return _of_text(source, options, need_reply)


def is_prose(member: Member) -> bool:
    """Whether a file is running text: none of the kinds, and without the tabs of the simplest one."""
    try:
        if media(member.path.name) or _binary_table(member) is not None:
            return False
        source = open_source(member.path, member.name)
        if layout(source) != "tsv" or readable(member, ReadingOptions(), False).look().kind != "tsv":
            return False
    except DataError:
        return False
    return not any(b"\t" in line for line in first_lines(source))


def _binary_table(member: Member) -> Kind | None:
    from chat_app.data.readers.tables import parquet, xlsx

    try:
        if not member.path.is_file():
            return None
        with member.path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except (OSError, ValueError):
        return None
    if parquet.is_parquet(head):
        return "parquet"
    is_zip = head.startswith(ZIP_HEADS)  # An archive that is no document never comes here.
    return "xlsx" if is_zip or xlsx.is_workbook(head) else None


def _of_table(kind: Kind, member: Member, options: ReadingOptions, need_reply: bool) -> Readable:
    from chat_app.data.readers.tables import parquet, xlsx

    reader: Any = parquet if kind == "parquet" else xlsx
    path, name = member.path, member.name
    return Readable(
        lambda: Look(name, kind, columns=reader.look(path, name, options)),
        lambda: reader.conversations(path, name, options, need_reply=need_reply),
    )


def _of_text(source: Source, options: ReadingOptions, need_reply: bool) -> Readable:
    """What is not JSON."""
    if whatsapp.recognises(source):
        style = whatsapp.style_of(source)
        messages = partial(whatsapp.messages, source, style)
        return _of_chat("whatsapp", source.name, source.encoding, messages, options)
    if dialogpt.recognises(source):
        return _plain("dialogpt", source, lambda: dialogpt.conversations(source, options, need_reply))
    corpus = None if options.columns else corpora.recognised(source)
    if corpus is not None:
        return _plain(corpus, source, lambda: corpora.conversations(source, corpus, options, need_reply))
    dialect = delimited.dialect_of(source)
    if dialect is not None:
        return _plain(
            "tsv" if dialect.delimiter == "\t" else "csv",
            source,
            lambda: delimited.conversations(source, dialect, options, need_reply=need_reply),
            lambda: delimited.look(source, dialect, options),
        )
    if marked.recognises(source):
        return _plain("marked", source, lambda: marked.conversations(source, options, need_reply))
    return _plain(
        "tsv",
        source,
        lambda: tsv.conversations(source.lines(), source.name, options, need_reply=need_reply),
        lambda: tsv.look(source.lines(), source.name, options),
    )


def _of_whole(source: Source, parsed: Callable[[], Any], options: ReadingOptions, need_reply: bool) -> Readable:
    """A file that is one JSON value. It is parsed once, when it is first needed, if it is not too large for that."""
    if whole.is_streamed(source):
        return _plain("json", source, lambda: whole.conversations(source, options, need_reply))
    value = parsed()
    program = exports.kind_of(value)
    if program is not None:
        messages = partial(exports.messages_of, value, program, source.name)
        return _of_chat(program, source.name, source.encoding, messages, options)
    return _plain("json", source, lambda: whole.conversations_of_value(value, source.name, options, need_reply))


def _of_chat(
    kind: Kind,
    name: str,
    encoding: str,
    messages: Callable[[], Iterator[ChatMessage | Problem]],
    options: ReadingOptions,
) -> Readable:
    found = chats.survey(messages(), options)
    bot = chats.guess_bot(found, options, name)
    return Readable(
        lambda: Look(name, kind, encoding, speakers=found.speakers, bot=bot),
        lambda: chats.conversations(messages(), name, options, bot, found.speakers),
    )


def _plain(
    kind: Kind, source: Source, items: Callable[[], Items], columns: Callable[[], tuple[Column, ...]] = lambda: ()
) -> Readable:
    return Readable(lambda: Look(source.name, kind, source.encoding, columns()), items)


def _is_one_value(source: Source, parsed: Callable[[], Any], options: ReadingOptions) -> bool:
    """Whether the only line is more than a conversation or a list of them: an exported chat, a data set in parts, a
    well-known corpus, a table, or so long that it is no line any more."""
    if not _is_one_line(source):
        return False
    if source.path.stat().st_size > MAX_LINE_BYTES:
        return True
    try:
        value = parsed()
    except DataError:
        return False  # What is wrong with it is said by its line.
    if isinstance(value, list):
        rows = bool(value) and records.is_record(value[0])
        special = rows and values.way_of(value[: values.SAMPLE_VALUES], options) != "records"
        return special or exports.kind_of(value) is not None
    return exports.kind_of(value) is not None or (isinstance(value, dict) and whole.has_sections(value))


def _is_one_line(source: Source) -> bool:
    """Whether nothing but spaces follows the first line, however long it is."""
    seen_end = False
    chunks = source.chunks()
    try:
        for chunk in chunks:
            if not seen_end:
                _, end, chunk = chunk.lstrip().partition(b"\n") if b"\n" in chunk else chunk.lstrip().partition(b"\r")
                seen_end = bool(end)
                if not seen_end:
                    continue
            if chunk.strip():
                return False
    finally:
        chunks.close()
    return True
