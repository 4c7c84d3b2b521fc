"""Memorization: whether a reply of a trained model is copied, and from which line of the person's own files.

The memorization index of what a run learned is kept in the cache, with the place of each conversation in the file
that it came from. Knows no model.
"""

from __future__ import annotations

import json
from array import array
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from chat_app.config.paths import Paths
from chat_app.errors import DataError
from chat_app.evaluation.memorization_index import Kind, Match, MemorizationIndex, classify
from chat_app.runs.run import Run
from chat_app.system.disk_cache import digest_content
from chat_app.system.progress import Progress, ProgressCallback, add_prefix, ignore_progress

VERSION = "1"
INDEX, LINES, OWNERS, FILES = "index", "lines-of-files", "files-of-lines", "files.json"
REPORT_EVERY = 10_000


@dataclass(frozen=True, slots=True)
class CopyFinding:
    """What was found out about one reply.

    Attributes:
        kind: "copied", "partly copied" or "new".
        label: the kind with its place, in a few words.
        sentence: why.
        file, line: where the longest common run of words stands; None where there is none.
    """

    kind: Kind
    label: str
    sentence: str
    file: str | None
    line: int | None


class RunMemorizationIndex:
    """The memorization index of a run, with the origin of each line in the person's own files.

    Args:
        folder: an entry of the cache, made by `open`.
    """

    def __init__(self, folder: Path):
        import numpy as np

        self._index = MemorizationIndex(folder / INDEX)
        self._lines = np.fromfile(folder / LINES, dtype="<u8")
        self._owners = np.fromfile(folder / OWNERS, dtype="<u4")
        self._files: list[str] = json.loads((folder / FILES).read_text(encoding="utf-8"))

    @classmethod
    def open(cls, run: Run, paths: Paths, progress: ProgressCallback = ignore_progress) -> RunMemorizationIndex:
        """The index of a run; it is built the first time.

        Args:
            progress: is given a sentence about how far the index is.

        Raises:
            DataError: the run's conversations are gone, or the disk has no room for the index.
        """
        path, cache = run.data / "train.jsonl", paths.open_cache("sources")
        try:
            about = path.stat()
        except OSError as error:
            raise DataError("The conversations that this model learned from are no longer there.") from error
        if not about.st_size:
            raise DataError("This model learned from running text, which is not searched for copies.")
        key = digest_content([VERSION, str(path), str(about.st_size), str(about.st_mtime_ns)])
        entry = cache.find(key)
        if entry is None:
            with cache.create_entry(key) as folder:
                _write_places(path, folder, progress)
                MemorizationIndex.build(path, folder / INDEX, add_prefix("Looking through what it learned: ", progress))
            entry = cache.find(key)
        try:
            if entry is None:
                raise OSError("it was removed at once")
            return cls(entry)
        except (OSError, ValueError) as error:
            cache.drop(key)
            raise DataError("The search for copies could not be prepared.", advice="Try once more.") from error

    def classify_reply(self, reply: str) -> CopyFinding:
        """What a reply has in common with what was learned."""
        return self.describe_match(self._index.find_longest_match(reply))

    def describe_match(self, match: Match) -> CopyFinding:
        """A match in the words of a person, with the line of their own file."""
        file, line = self._place(match.line)
        kind, sentence = classify(replace(match, line=line))
        label: str = kind
        if file:
            sentence = sentence.replace("of the training data", f"of {file}", 1)
        if line is not None and kind != "new":
            where = f"line {line:,}" if len(self._files) == 1 else f"line {line:,} of {file}"
            label = f"{kind} ({where})"
        elif kind == "new":
            file = line = None
        return CopyFinding(kind, label, sentence, file, line)

    def _place(self, line: int | None) -> tuple[str | None, int | None]:
        """A line of the run's data -> the file it came from, and the line there."""
        if line is None or not 0 < line <= len(self._lines):
            return None, line
        return self._files[int(self._owners[line - 1])], int(self._lines[line - 1])


def _write_places(path: Path, folder: Path, progress: ProgressCallback) -> None:
    """For each line of the run's data: the file and the line that it had there."""
    files: dict[str, int] = {}
    with path.open("rb") as rows, (folder / LINES).open("wb") as lines, (folder / OWNERS).open("wb") as owners:
        numbers, names = array("Q"), array("I")
        for number, row in enumerate(rows, start=1):
            file, line = _origin(row, number)
            numbers.append(line)
            names.append(files.setdefault(file, len(files)))
            if number % REPORT_EVERY == 0:
                progress(Progress(f"Looking through what it learned: {number:,} conversations."))
        numbers.tofile(lines)
        names.tofile(owners)
    (folder / FILES).write_text(json.dumps(list(files)), encoding="utf-8")


def _origin(row: bytes, number: int) -> tuple[str, int]:
    """Where a row of the run's data stood; its own place where that is not known."""
    try:
        record: Any = orjson.loads(row)
        file, line = record["file"], record["line"]
    except (ValueError, KeyError, TypeError):
        return "", number
    known = isinstance(file, str) and isinstance(line, int) and 0 < line < 2**63
    return (file, line) if known else ("", number)
