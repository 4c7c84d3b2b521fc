"""An output file that grows line by line, and goes on where it was interrupted."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from chat_app.errors import DataError


class ResumableOutput:
    """JSON lines, each the result of one item of an input.

    Until all of them are there they stand in NAME.partial; NAME.partial.log says which items are done. So an
    interruption at any moment, a kill included, loses at most the line that was being written.

    Args:
        target: the file that is wanted. It is replaced when everything is done.
        fingerprint: of all that the results depend on.
    """

    def __init__(self, target: Path, fingerprint: str):
        self.target = target
        self.partial = target.with_name(f"{target.name}.partial")
        self.done: set[int] = set()
        self._log_path = target.with_name(f"{target.name}.partial.log")
        self._fingerprint = fingerprint
        self._lines: BinaryIO
        self._log: BinaryIO

    def __enter__(self) -> ResumableOutput:
        """Open the files, and find out what was done before.

        Raises:
            DataError: they cannot be written, or hold the results of another input or of other settings.
        """
        try:
            end, log_end = self._read_log()
            self._lines = self.partial.open("r+b" if log_end else "w+b")
            self._lines.truncate(end)
            self._lines.seek(end)
            self._log = self._log_path.open("r+b" if log_end else "wb")
            self._log.truncate(log_end)
            self._log.seek(log_end)
            if not log_end:
                self._add_to_log({"fingerprint": self._fingerprint})
        except OSError as error:
            raise DataError(f"{self.target} cannot be written: {error.strerror or error}.") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lines.close()
        self._log.close()
        if not self.done:
            self._remove()

    def write(self, item: int, record: dict[str, Any]) -> None:
        """Keep the result of an item of the input, which is named by its number."""
        self._lines.write(json.dumps(record, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
        self._lines.flush()
        self.done.add(item)
        self._add_to_log({"item": item, "end": self._lines.tell()})

    def finish(self) -> None:
        """Put the file where it is wanted."""
        self._lines.flush()
        os.fsync(self._lines.fileno())
        self._lines.close()
        os.replace(self.partial, self.target)
        self._log_path.unlink(missing_ok=True)

    def _add_to_log(self, entry: dict[str, Any]) -> None:
        self._log.write(json.dumps(entry).encode() + b"\n")
        self._log.flush()

    def _read_log(self) -> tuple[int, int]:
        """The ends of what is whole, in bytes: of the lines, and of the log. 0 and 0: nothing was begun."""
        try:
            data, size = self._log_path.read_bytes(), self.partial.stat().st_size
        except FileNotFoundError:
            return 0, 0
        end = log_end = 0
        for raw in data.splitlines(keepends=True):
            try:
                entry = json.loads(raw)
                whole = entry["end"] <= size if log_end else bool(entry["fingerprint"])
            except (ValueError, TypeError, KeyError):  # The last line, which a kill has cut.
                break
            if not whole:
                break
            if log_end:
                end = entry["end"]
                self.done.add(entry["item"])
            elif entry["fingerprint"] != self._fingerprint:
                raise DataError(
                    f"{self.partial} holds replies to another file, of another model or with other settings.",
                    advice="Delete it, or give another --output.",
                )
            log_end += len(raw)
        return end, log_end

    def _remove(self) -> None:
        for path in (self.partial, self._log_path):
            path.unlink(missing_ok=True)
