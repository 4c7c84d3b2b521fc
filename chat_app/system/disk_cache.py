"""A cache of folders on disk, found by a key of their content; the least recently used entries are evicted first.

An entry appears whole or not at all, because it is filled under another name and then renamed. So several processes
can share one cache. Everything in it can be made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

CHUNK_BYTES = 1 << 20
ABANDONED_SECONDS = 6 * 3600.0
T = TypeVar("T")


def digest_content(parts: Iterable[bytes | str | Path]) -> str:
    """A key of 32 hexadecimal digits for texts, bytes and the contents of files.

    Each part is hashed by itself, so ["ab", "c"] and ["a", "bc"] have different keys.
    """
    whole = hashlib.blake2b(digest_size=16)
    for part in parts:
        own = hashlib.blake2b(digest_size=16)
        if isinstance(part, Path):
            with part.open("rb") as file:
                while piece := file.read(CHUNK_BYTES):
                    own.update(piece)
        else:
            own.update(part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part)
        whole.update(own.digest())
    return whole.hexdigest()


class Cache:
    """A folder of entries.

    Args:
        folder: where the entries lie; it is made when the first entry is.
        most_bytes: with more than this, the least recently used entries are removed.
        keep_seconds: an entry that was not used for this long is removed.
    """

    def __init__(self, folder: Path, most_bytes: int, keep_seconds: float):
        self.folder, self.most_bytes, self.keep_seconds = folder, most_bytes, keep_seconds

    def find(self, key: str) -> Path | None:
        """The entry of a key, or None. It counts as used now."""
        entry = self.folder / key
        try:
            os.utime(entry)
        except OSError:
            return None
        return entry

    def drop(self, key: str) -> None:
        """Remove the entry of a key, because it is damaged."""
        shutil.rmtree(self.folder / key, ignore_errors=True)

    def find_or_make(
        self, key: str, open_entry: Callable[[Path], T | None], make: Callable[[Path], object]
    ) -> T | None:
        """The content of a key's entry, which is made first if it is missing or damaged.

        Args:
            key: from `digest_content`.
            open_entry: opens an entry; gives None if the entry is damaged.
            make: fills an empty folder.

        Returns:
            The content; None if the new entry cannot be opened or was evicted at once, because the disk is too full.
        """
        entry = self.find(key)
        found = open_entry(entry) if entry else None
        if found is None:
            if entry:
                self.drop(key)
            with self.create_entry(key) as folder:
                make(folder)
            entry = self.find(key)
            found = open_entry(entry) if entry else None
        return found

    @contextlib.contextmanager
    def create_entry(self, key: str) -> Iterator[Path]:
        """An empty folder, which becomes the entry of the key at the end of the block; an exception removes it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.tidy()
        temporary = self.folder / f".{key}.{secrets.token_hex(4)}"
        temporary.mkdir()
        try:
            yield temporary
            # Another process may have made the same entry meanwhile. Its content is equal, so this one is dropped.
            with contextlib.suppress(OSError):
                os.replace(temporary, self.folder / key)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def tidy(self) -> None:
        """Evict entries that are too old or too many, and folders that a crashed process left half filled."""
        now = time.time()
        kept: list[tuple[float, Path]] = []
        for entry in self._list_entries():
            used = _find_last_use(entry)
            keep = ABANDONED_SECONDS if entry.name.startswith(".") else self.keep_seconds
            if now - used > keep:
                shutil.rmtree(entry, ignore_errors=True)
            elif not entry.name.startswith("."):
                kept.append((used, entry))
        room = self.most_bytes
        for _, entry in sorted(kept, reverse=True):
            room -= _measure_bytes(entry)
            if room < 0:
                shutil.rmtree(entry, ignore_errors=True)

    def _list_entries(self) -> list[Path]:
        try:
            return [entry for entry in self.folder.iterdir() if entry.is_dir()]
        except OSError:
            return []


def _find_last_use(entry: Path) -> float:
    try:
        return entry.stat().st_mtime
    except OSError:
        return 0.0


def _measure_bytes(entry: Path) -> int:
    total = 0
    for file in entry.rglob("*"):
        with contextlib.suppress(OSError):
            total += file.stat().st_size
    return total
