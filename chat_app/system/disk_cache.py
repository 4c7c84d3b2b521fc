"""A disk cache of folders, keyed by a digest of their source; the least recently used entries are evicted first.

An entry is written under a temporary name and then renamed, so it is visible only when it is complete, and several
processes can share one cache. Every entry can be computed again.
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
    """A cache key of 32 hexadecimal digits: a BLAKE2b digest of texts, bytes and the contents of files.

    Each part is hashed by itself first, so ["ab", "c"] and ["a", "bc"] have different keys.

    Raises:
        OSError: a file cannot be read.
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
    """A folder of cache entries, each of them a folder named by its key.

    Args:
        folder: the folder of the entries; it is created with the first entry.
        most_bytes: the size in bytes above which the least recently used entries are evicted.
        keep_seconds: an entry that was not used for this many seconds is evicted.
    """

    def __init__(self, folder: Path, most_bytes: int, keep_seconds: float):
        self.folder, self.most_bytes, self.keep_seconds = folder, most_bytes, keep_seconds

    def find(self, key: str) -> Path | None:
        """The folder of a key's entry, or None. The entry counts as used now."""
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
        """Open a key's entry; if it is missing or damaged, create it first.

        Args:
            key: from `digest_content`.
            open_entry: opens an entry, and returns None if it is damaged.
            make: writes the entry's files into an empty folder.

        Returns:
            The opened entry; None if the new entry cannot be opened or was evicted at once, because the disk is full.
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
        """A context manager: an empty folder that becomes the key's entry on exit, and is removed on an exception."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.tidy()
        temporary = self.folder / f".{key}.{secrets.token_hex(4)}"
        temporary.mkdir()
        try:
            yield temporary
            # If another process has created the same entry meanwhile, its content is equal and this one is discarded.
            with contextlib.suppress(OSError):
                os.replace(temporary, self.folder / key)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def tidy(self) -> None:
        """Evict entries by age and total size, and temporary folders that a crashed process left behind."""
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
