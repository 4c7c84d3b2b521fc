"""A file of conversations -> conversations, and what was wrong with the rest, by line.

What kind a file is, is told by what stands in it. Knows files and their mistakes; knows nothing of prompts, tokens or
pages.
"""

from chat_app.data.readers import archives, detect, options, split_names, text_source, turn_text, types
from chat_app.data.readers.options import COLUMN_ROLES, ColumnRole, ReadingOptions
from chat_app.data.readers.reader import conversations_of, has_text, iterate, nothing_usable, read_file, read_files
from chat_app.data.readers.types import Column, Located, Look, Part, Problem, Reading, Speaker
from chat_app.data.writers import record_of, write_jsonl, write_tsv

__all__ = [
    "COLUMN_ROLES", "Column", "ColumnRole", "Located", "Look", "Part", "Problem", "Reading", "ReadingOptions",
    "Speaker", "archives", "conversations_of", "detect", "has_text", "iterate", "nothing_usable", "options",
    "read_file", "read_files", "record_of", "split_names", "text_source", "turn_text", "types",
    "write_jsonl", "write_tsv",
]  # fmt: skip
