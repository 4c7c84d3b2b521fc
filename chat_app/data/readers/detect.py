"""The choice of the reader for a file, from the table of readers, which is imported with the first file."""

from __future__ import annotations

from chat_app.data.readers.archives import Member
from chat_app.data.readers.detect_binary import is_media
from chat_app.data.readers.options import ReadingOptions
from chat_app.data.readers.protocol import InputFile, JoinedReader, OpenedReader, Reader
from chat_app.data.readers.text_source import read_first_lines
from chat_app.errors import DataError


def open_reader(file: InputFile) -> OpenedReader:
    """The first reader in the table that accepts the file.

    Raises:
        DataError: the file is missing, empty, or of an unknown kind.
    """
    reader = _find_reader(file, _list_readers(file.options))
    assert reader is not None
    return reader


def _list_readers(options: ReadingOptions) -> tuple[type[Reader], ...]:
    """The readers to ask: all of them, or those for the layout that the person says."""
    from chat_app.data.readers import reader_table as table

    if options.is_table:
        return table.ParquetReader, table.XlsxReader, table.CsvReader, table.TsvReader
    if options.layout == "lines":
        return table.ParquetReader, table.XlsxReader, table.TsvReader
    if options.layout == "marked":
        return table.TranscriptReader, table.TsvReader
    return table.READERS


def open_folder_reader(file: InputFile) -> OpenedReader | None:
    """The reader that accepts a folder or an archive as a whole; None if its files are read one by one."""
    from chat_app.data.readers.reader_table import FOLDER_READERS

    return _find_reader(file, FOLDER_READERS)


def find_joined(file: InputFile) -> type[JoinedReader] | None:
    """The reader that takes this file together with others of its kind, if one does; found from its beginning."""
    from chat_app.data.readers.reader_table import READERS

    families = (reader for reader in READERS if issubclass(reader, JoinedReader))
    return next((family for family in families if family.sniff(file) is not None), None)


def _find_reader(file: InputFile, readers: tuple[type[Reader], ...]) -> OpenedReader | None:
    return next((found for reader in readers if (found := reader.sniff(file)) is not None), None)


def is_prose(member: Member) -> bool:
    """Whether a file is running text: only the last reader accepts it, and its first lines have no tabs."""
    file = InputFile(member.path, member.name, ReadingOptions())
    try:
        if is_media(member.path.name) or file.layout != "text" or open_reader(file).preview().kind != "tsv":
            return False
    except DataError:
        return False
    return not any(b"\t" in line for line in read_first_lines(file.source))
