"""Readers: parse files into conversations, with a problem report for each line that cannot be used.

The kind of a file is detected from its content. Each kind has one reader (see `protocol`), which is listed in
`reader_table`; `iterate` and `read_file` choose the reader. Conversations are written in `chat_app.data.writers`.
"""

from chat_app.data.readers import archives, detect, notes, options, split_names, text_source, turn_text, types
from chat_app.data.readers.options import COLUMN_ROLES, ColumnRole, ReadingOptions
from chat_app.data.readers.reading import (
    has_text,
    iterate,
    iterate_conversations,
    iterate_together,
    nothing_usable_error,
    read_file,
    read_files,
)
from chat_app.data.readers.types import (
    Column,
    ConversationSource,
    Located,
    Note,
    Part,
    Preview,
    Problem,
    Reading,
    Speaker,
)

__all__ = [
    "COLUMN_ROLES",
    "Column",
    "ColumnRole",
    "ConversationSource",
    "Located",
    "Note",
    "Part",
    "Preview",
    "Problem",
    "Reading",
    "ReadingOptions",
    "Speaker",
    "archives",
    "detect",
    "has_text",
    "iterate",
    "iterate_conversations",
    "iterate_together",
    "notes",
    "nothing_usable_error",
    "options",
    "read_file",
    "read_files",
    "split_names",
    "text_source",
    "turn_text",
    "types",
]  # fmt: skip
