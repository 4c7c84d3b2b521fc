"""The interface of readers, and the input file that they are given.

A reader is a class with three methods: `sniff` detects whether a file is of its kind, `preview` returns what a user can
choose about it, `read` iterates over its conversations. To add one, write the class and list it in `reader_table`.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from chat_app.data.readers.detect_text import Layout, detect_layout
from chat_app.data.readers.options import ReadingOptions
from chat_app.data.readers.text_source import Source, open_source
from chat_app.data.readers.types import Column, Kind, Located, Preview, Problem

HEAD_BYTES = 8
BEGINNING_BYTES = 1 << 16
Result = TypeVar("Result")
AnyJoinedReader = TypeVar("AnyJoinedReader", bound="JoinedReader")


class OpenedReader(Protocol):
    """Reads the files that it was made for."""

    def preview(self) -> Preview:
        """The kind of the file with its columns or its speakers, found without reading all of it."""
        ...

    def read(self, *, need_reply: bool = True) -> Iterator[Located | Problem]:
        """The conversations and the problems of the file in their order. Every call reads the file anew.

        Args:
            need_reply: False also yields conversations without a reply (prompts for `generate`).

        Raises:
            DataError: the file breaks off, or nothing in it can be used.
        """
        ...


class Reader(OpenedReader, Protocol):
    """Reads one kind of file. The class detects the kind; an instance reads one file."""

    @classmethod
    def sniff(cls, file: InputFile) -> OpenedReader | None:
        """A reader for the file, or None if the file is of another kind.

        Readers are asked in the order of their table, so this may rely on those before it having refused the file.

        Raises:
            DataError: the file is missing, empty or broken, so that no reader can read it.
        """
        ...


class JoinedReader:
    """A base for readers of files that are understood together: lines here and who says them there, or one chat in
    several files. `sniff` is asked of many files at once and looks at a file's beginning only.

    Args:
        file: the file.
    """

    def __init__(self, file: InputFile):
        self.file = file

    @classmethod
    def sniff(cls: type[AnyJoinedReader], file: InputFile) -> AnyJoinedReader | None:
        """A reader for the file, or None if the file is of another kind."""
        raise NotImplementedError

    @classmethod
    def join(cls, files: Sequence[InputFile]) -> Sequence[OpenedReader]:
        """Readers of what the files of this kind are together.

        Raises:
            DataError: what they need beside them is missing.
        """
        raise NotImplementedError

    def preview(self) -> Preview:
        """The preview of this file alone."""
        return self.join([self.file])[0].preview()

    def read(self, *, need_reply: bool = True) -> Iterator[Located | Problem]:
        """What this file alone gives."""
        return self.join([self.file])[0].read(need_reply=need_reply)


class InputFile:
    """A file to read. What several readers need (encoding, layout, JSON value) is computed once, on first use.

    Args:
        path: the path on disk.
        name: the name to show in problems and errors ("archive.zip/inside.csv").
        options: the options of reading.
    """

    def __init__(self, path: Path, name: str, options: ReadingOptions):
        self.path, self.name, self.options = path, name, options
        self._results: dict[Callable[[InputFile], Any], Any] = {}

    @cached_property
    def head(self) -> bytes:
        """The first bytes; empty if the file cannot be opened, which `source` then explains."""
        try:
            if not self.path.is_file():
                return b""
            with self.path.open("rb") as file:
                return file.read(HEAD_BYTES)
        except (OSError, ValueError):
            return b""

    @cached_property
    def beginning(self) -> str:
        """The first 64 KB as text, whatever their encoding is; empty if there are none. Nothing is checked."""
        try:
            if not self.path.is_file():
                return ""
            with self.path.open("rb") as file:
                head = file.read(BEGINNING_BYTES)
            wide = "utf-16" if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8"
            return head.decode(wide, "replace").removeprefix("\ufeff")
        except (OSError, ValueError):
            return ""

    @cached_property
    def source(self) -> Source:
        """The file as text.

        Raises:
            DataError: the file is missing, empty, unreadable or no text.
        """
        return open_source(self.path, self.name, self.options.encoding)

    @property
    def is_text(self) -> bool:
        """Whether a reader has looked at the file as text."""
        return "source" in self.__dict__

    @cached_property
    def layout(self) -> Layout:
        """The layout of the text: one JSON value, JSON Lines, or other text.

        Raises:
            DataError: as `source`.
        """
        return detect_layout(self.source, self.options)

    def once(self, compute: Callable[[InputFile], Result]) -> Result:
        """The result of a function of this file, cached after the first call."""
        if compute not in self._results:
            self._results[compute] = compute(self)
        result: Result = self._results[compute]
        return result


@dataclass(frozen=True)
class TextReader:
    """A base class for readers of text, with a preview without columns and speakers.

    It does not keep the `InputFile`, whose cached results may be large.
    """

    source: Source
    options: ReadingOptions
    kind: ClassVar[Kind]

    def preview(self) -> Preview:
        """The kind and the encoding."""
        return self._preview(self.kind)

    def _preview(self, kind: Kind, columns: tuple[Column, ...] = ()) -> Preview:
        return Preview(self.source.name, kind, self.source.encoding, columns)
