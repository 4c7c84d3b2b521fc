"""A file of conversations -> conversations, and what was wrong with the rest, by line.

Tab-separated text and JSON Lines are told apart by what stands in the file. Knows files and their mistakes; knows
nothing of prompts, tokens or pages.
"""

from chat_app.reading.reader import iterate, read_file, read_files
from chat_app.reading.report import Located, Problem, Reading
from chat_app.reading.writer import write_jsonl

__all__ = ["Located", "Problem", "Reading", "iterate", "read_file", "read_files", "write_jsonl"]
