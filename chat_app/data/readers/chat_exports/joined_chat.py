"""A base for readers of chats whose export is a file for each: given together they are one export with one bot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import ClassVar

from chat_app.data.readers.chat_exports.chat_reader import ChatReader
from chat_app.data.readers.chat_exports.threading import ChatMessage
from chat_app.data.readers.protocol import InputFile, JoinedReader, OpenedReader
from chat_app.data.readers.types import Kind, Problem


class JoinedChatReader(JoinedReader):
    """Reads one chat or all chats of an export. A subclass adds `sniff` and `read_chats`."""

    kind: ClassVar[Kind]

    @classmethod
    def join(cls, files: Sequence[InputFile]) -> Sequence[OpenedReader]:
        """One reader of all files."""
        first = files[0]
        name = first.name
        if len(files) > 1:
            name = first.name.partition("/")[0] if "/" in first.name else f"{first.name} and others"
        read = partial(cls.read_chats, files)
        return [ChatReader.survey(cls.kind, name, first.source.encoding, first.options, read)]

    @classmethod
    def read_chats(cls, files: Sequence[InputFile]) -> Iterator[ChatMessage | Problem]:
        """The messages of all files, one chat after the other."""
        raise NotImplementedError
