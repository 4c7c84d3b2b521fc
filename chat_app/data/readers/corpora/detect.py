"""Which dialogue corpus a text file is, and the reader of each."""

from __future__ import annotations

from collections.abc import Iterator

from chat_app.data.readers.corpora import dailydialog
from chat_app.data.readers.corpora import empathetic_dialogues as empathetic
from chat_app.data.readers.options import ReadingOptions
from chat_app.data.readers.text_source import Source
from chat_app.data.readers.types import Kind, Located, Problem


def recognised(source: Source) -> Kind | None:
    """Which corpus a file of text is: "dailydialog" or "empathetic"; None if it is neither. The others are JSON."""
    if dailydialog.recognises(source):
        return "dailydialog"
    return "empathetic" if empathetic.recognises(source) else None


def conversations(
    source: Source, kind: Kind, options: ReadingOptions, need_reply: bool = True
) -> Iterator[Located | Problem]:
    """The conversations of a file that `recognised` knows, with their lines; the file's name says which part it is."""
    if kind == "dailydialog":
        return dailydialog.conversations(source, options, need_reply)
    return empathetic.conversations(source, options, need_reply)
