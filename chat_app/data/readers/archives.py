"""Opens files, gzip files, zip archives and folders, and iterates over the files in them.

Members are unpacked lazily into a private folder, never under a name from the archive, and deleted when the iteration
goes on. Limits on number, size and compression ratio protect against zip bombs.
"""

from __future__ import annotations

import gzip
import os
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from chat_app.data.readers import documents
from chat_app.data.readers.detect_binary import ZIP_HEADS, detect_office, explain_unreadable, is_media
from chat_app.data.readers.documents import DocumentKind
from chat_app.data.readers.text_source import NO_FILE
from chat_app.data.readers.types import Problem, RejectedError, explain_not_opened, make_printable
from chat_app.errors import DataError
from chat_app.formatting import format_bytes

MAX_ENTRIES = 10_000
FREE_BYTES, MAX_RATIO = 50_000_000, 200
PIECE_BYTES = 1 << 20
HEAD_BYTES = 512
LONGEST_NAME = 200
SHOWN_EXTENSIONS = 4
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, gzip.BadGzipFile, NotImplementedError, RuntimeError, ValueError)
DOWNLOAD = "Get it once more, or pack it again."
UNPACK = "Unpack it and give what is inside."
PASSED = "Nothing has to be done."


@dataclass(frozen=True)
class Member:
    """A file to read: its present path on disk, and the name to show ("archive.zip/inside.csv")."""

    path: Path
    name: str


@contextmanager
def open_members(
    path: str | os.PathLike[str], name: str | None = None, *, most_bytes: int = 5 * 10**9
) -> Iterator[Iterator[Member | Problem]]:
    """A context manager with an iterator over the files of a path. An unpacked member exists until the next one.

    Args:
        path: a file, a gzip file, a zip archive or a folder.
        name: the name to show, if it differs from the one on disk.
        most_bytes: the most bytes to unpack in all.

    Raises:
        DataError: on entry for a kind of archive or document that is not supported; during iteration if none of the
            files can be read.
    """
    place = Path(path)
    with tempfile.TemporaryDirectory(prefix="chat_app-", ignore_cleanup_errors=True) as folder:
        yield _Unpacker(Path(folder), most_bytes).read(place, name or place.name or str(path))


@dataclass
class _Unpacker:
    """The state of unpacking: bytes and files so far, and the names of the files that were skipped."""

    folder: Path
    budget: int
    unpacked: int = 0
    kept: int = 0
    count: int = 0
    skipped: list[str] = field(default_factory=list)

    def read(self, path: Path, name: str) -> Iterator[Member | Problem]:
        try:
            if path.is_dir():
                return self._require_member(self._read_folder(path, name), name, "This folder")
            # Only regular files are opened: opening a pipe would block until another process writes to it.
            head = _read_head(path) if path.is_file() else b""
        except (OSError, ValueError):
            head = b""  # the reader reports what is wrong
        if head.startswith(ZIP_HEADS) and not detect_office(path):
            return self._require_member(self._read_zip(path, name), name, "This archive")
        try:
            return self._read_single(path, name, head)
        except RejectedError as rejected:
            raise DataError(rejected.reason, where=name, advice=rejected.advice) from rejected

    def _read_single(self, path: Path, name: str, head: bytes) -> Iterator[Member | Problem]:
        if head.startswith(b"\x1f\x8b"):
            return self._require_member(self._read_gzip(path, name), name, "This file")
        if kind := _find_document(path, head):
            return self._require_member(self._read_document(path, name, kind), name, "This document")
        _check_readable(path, head)
        return iter([Member(path, name)])

    def _require_member(self, items: Iterator[Member | Problem], name: str, what: str) -> Iterator[Member | Problem]:
        """Yield the items; raise the first problem as an error if there are only problems."""
        early: list[Problem] = []
        found = False
        for item in items:
            if isinstance(item, Problem) and not found:
                early.append(item)
                continue
            if not found:
                found = True
                yield from early
            yield item
        if found:
            return
        if not early:
            raise DataError(f"{what} holds no files to read.", where=name, advice="Give a file of conversations.")
        first, more = early[0], f" And {len(early) - 1:,} more." if len(early) > 1 else ""
        if first.advice == PASSED:
            raise DataError(first.reason, where=name, advice=f"Give a file of conversations.{more}")
        inside = first.file.removeprefix(name).lstrip("/")
        where = f"{name}/{inside}" if inside and first.file != name else name
        raise DataError(first.reason, where=where, advice=f"{first.advice}{more}")

    def _read_folder(self, folder: Path, name: str) -> Iterator[Member | Problem]:
        failures: list[str] = []
        for parent, folders, files in os.walk(folder, onerror=lambda error: failures.append(str(error.filename))):
            folders[:] = sorted(one for one in folders if not _is_hidden(one))
            for file in sorted(files):
                path = Path(parent, file)
                shown = f"{name}/{_display_name(path.relative_to(folder).as_posix())}"
                if _is_hidden(file):
                    continue
                if path.is_symlink():
                    yield Problem(shown, None, "This is a link to another place.", "Put the file itself there.")
                elif path.is_file():
                    if is_media(file):
                        self.skipped.append(file)
                        continue
                    if self._exceeds_limit():
                        yield self._limit_problem(name)
                        return
                    yield from self._read_nested(path, shown)
                elif path.exists():
                    yield Problem(shown, None, *NO_FILE)
                else:
                    gone = explain_not_opened(FileNotFoundError())
                    yield Problem(shown, None, gone.reason, gone.advice)
        for failure in failures:
            yield Problem(
                f"{name}/{_display_name(Path(failure).name)}",
                None,
                "Looking into this folder is not allowed.",
                "Allow it, or copy it.",
            )
        yield from self._report_skipped(name)

    def _read_zip(self, path: Path, name: str) -> Iterator[Member | Problem]:
        try:
            archive = zipfile.ZipFile(path)
        except (OSError, *BROKEN):
            yield Problem(name, None, "This archive is damaged.", DOWNLOAD)
            return
        packed = path.stat().st_size
        with archive:
            for entry in archive.infolist():
                if entry.is_dir() or _is_hidden(*entry.filename.replace("\\", "/").split("/")):
                    continue
                shown = f"{name}/{_display_name(entry.filename)}"
                try:
                    _check_entry(entry)
                    if is_media(entry.filename):
                        self.skipped.append(entry.filename)
                        continue
                    if self._exceeds_limit():
                        yield self._limit_problem(name)
                        break
                    with _explain_damage(), archive.open(entry) as source:
                        inside = self._unpack(source.read, min(entry.compress_size, packed), packed)
                except RejectedError as rejected:
                    yield Problem(shown, None, rejected.reason, rejected.advice)
                    continue
                yield from self._read_nested(inside, shown)
                inside.unlink(missing_ok=True)
        yield from self._report_skipped(name)

    def _read_gzip(self, path: Path, name: str) -> Iterator[Member | Problem]:
        shown = name[:-3] if name.lower().endswith(".gz") and len(name) > 3 else name
        try:
            with _explain_damage(), gzip.open(path) as source:
                size = path.stat().st_size
                inside = self._unpack(source.read, size, size)
            head = _read_head(inside)
            if head.startswith((b"\x1f\x8b", *ZIP_HEADS)) and not detect_office(inside):
                raise RejectedError("This is an archive inside a compressed file.", UNPACK)
            _check_readable(inside, head)
        except RejectedError as rejected:
            yield Problem(name, None, rejected.reason, rejected.advice)
            return
        yield Member(inside, shown)
        inside.unlink(missing_ok=True)

    def _read_nested(self, path: Path, name: str) -> Iterator[Member | Problem]:
        """The member for a file in a folder or an archive; a gzip file is unpacked."""
        try:
            head = _read_head(path)
            if head.startswith(ZIP_HEADS) and not detect_office(path):
                raise RejectedError("This is an archive inside another place.", "Unpack it, and give it by itself.")
            if head.startswith(b"\x1f\x8b"):
                yield from self._read_gzip(path, name)
            elif kind := _find_document(path, head):
                yield from self._read_document(path, name, kind)
            elif is_media("", head):
                self.skipped.append(name)
            else:
                _check_readable(path, head)
                yield Member(path, name)
        except OSError as error:
            closed = explain_not_opened(error)
            yield Problem(name, None, closed.reason, closed.advice)
        except RejectedError as rejected:
            yield Problem(name, None, rejected.reason, rejected.advice)

    def _read_document(self, path: Path, name: str, kind: DocumentKind) -> Iterator[Member | Problem]:
        """The text of a Word or OpenDocument file as a member, under the name of the document."""
        self.count += 1
        target = self.folder / f"{self.count}-document"
        try:
            documents.write_text(path, kind, target)
            yield Member(target, name)
        except RejectedError as rejected:
            yield Problem(name, None, rejected.reason, rejected.advice)
        target.unlink(missing_ok=True)

    def _unpack(self, read: Callable[[int], bytes], packed: int, whole: int) -> Path:
        """Write the bytes that `read` returns to a new file, within the limits of size and compression ratio.

        Raises:
            RejectedError: a limit is exceeded.
        """
        target = self.folder / f"{self.count}-{self.unpacked}"
        size = 0
        try:
            with target.open("xb") as file:
                while piece := read(PIECE_BYTES):
                    size += len(piece)
                    self.unpacked += len(piece)
                    if self.unpacked > self.budget:
                        limit = format_bytes(self.budget)
                        raise RejectedError(f"All that is in it has more than {limit}.", "Give it in parts.")
                    if (size > FREE_BYTES and size > MAX_RATIO * packed) or (
                        self.kept + size > 2 * FREE_BYTES and self.kept + size > MAX_RATIO * whole
                    ):
                        raise RejectedError(f"It unpacks to more than {MAX_RATIO} times its size.", UNPACK)
                    file.write(piece)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        self.kept += size
        return target

    def _exceeds_limit(self) -> bool:
        self.count += 1
        return self.count > MAX_ENTRIES

    def _limit_problem(self, name: str) -> Problem:
        return Problem(name, None, f"It holds more than {MAX_ENTRIES:,} files; the rest was left out.", "Give fewer.")

    def _report_skipped(self, name: str) -> Iterator[Problem]:
        if not self.skipped:
            return
        kinds = list(
            dict.fromkeys(Path(one).suffix.lower().lstrip(".") or "without a name's end" for one in self.skipped)
        )
        listed = ", ".join(kinds[:SHOWN_EXTENSIONS]) + (" and others" if len(kinds) > SHOWN_EXTENSIONS else "")
        count = len(self.skipped)
        said = (
            f"{count:,} files are no text ({listed}); they were"
            if count > 1
            else f"1 file is no text ({listed}); it was"
        )
        yield Problem(name, None, f"{said} passed over.", PASSED)
        self.skipped.clear()


def _find_document(path: Path, head: bytes) -> DocumentKind | None:
    kind = detect_office(path) if head.startswith(ZIP_HEADS) else None
    return kind if kind == "docx" or kind == "odt" else None


def _check_readable(path: Path, head: bytes) -> None:
    found = explain_unreadable(path, head)
    if found:
        raise RejectedError(*found)


def _check_entry(entry: zipfile.ZipInfo) -> None:
    parts = entry.filename.replace("\\", "/").split("/")
    if ".." in parts or not parts[0] or (len(parts[0]) > 1 and parts[0][1] == ":"):
        raise RejectedError("Its name leads out of the archive.", "Pack the file again, without a path.")
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise RejectedError("This is a link to another place.", "Pack the file itself.")
    if entry.flag_bits & 0x1:
        raise RejectedError("It is locked with a password.", "Unpack the archive, and give what is inside.")


@contextmanager
def _explain_damage() -> Iterator[None]:
    """A context manager that turns the libraries' exceptions about broken archives into a RejectedError."""
    try:
        yield
    except EOFError as error:
        raise RejectedError("It ends too early: a part of it is missing.", DOWNLOAD) from error
    except NotImplementedError as error:
        raise RejectedError("It is packed in a way that is not known here.", UNPACK) from error
    except BROKEN as error:
        raise RejectedError("It is damaged: what is packed is not what was put in.", DOWNLOAD) from error
    except OSError as error:
        advice = "It may be damaged: get it once more. If not, free some space on the disk."
        raise RejectedError("It cannot be unpacked.", advice) from error


def _read_head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def _is_hidden(*parts: str) -> bool:
    """Whether a path is hidden or is metadata that an operating system adds, such as Thumbs.db."""
    return any(
        part == "__MACOSX" or (part.startswith(".") and part not in (".", "..")) or part in ("Thumbs.db", "desktop.ini")
        for part in parts
    )


def _display_name(name: str) -> str:
    return make_printable(name[-LONGEST_NAME:]).replace("\\", "/")
