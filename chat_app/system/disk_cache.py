"""Things on disk that can be made again: found by a key that tells their content, the least used go first.

An entry is a folder. It appears whole or not at all, so several processes can share one cache.
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


def digest_of(parts: Iterable[bytes | str | Path]) -> str:
    """A key of 32 letters for contents: texts as they are, files by what they hold, each apart from the next."""
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
        folder: made when it is needed.
        most_bytes: when more is kept, the entries that were not used for longest are removed.
        keep_seconds: an entry not used for so long is removed.
    """

    def __init__(self, folder: Path, most_bytes: int, keep_seconds: float):
        self.folder, self.most_bytes, self.keep_seconds = folder, most_bytes, keep_seconds

    def find(self, key: str) -> Path | None:
        """The entry of that key, which counts as used now, or None."""
        entry = self.folder / key
        try:
            os.utime(entry)
        except OSError:
            return None
        return entry

    def drop(self, key: str) -> None:
        """Remove the entry of that key, which turned out to be damaged."""
        shutil.rmtree(self.folder / key, ignore_errors=True)

    def kept(self, key: str, opened: Callable[[Path], T | None], make: Callable[[Path], object]) -> T | None:
        """What the entry of that key holds; where there is none, or a damaged one, it is made first.

        Args:
            opened: what an entry holds, None if it is damaged.
            make: fills an empty folder.

        Returns:
            None if even what was made cannot be opened, or was removed at once: the disk is too full for it.
        """
        entry = self.find(key)
        found = opened(entry) if entry else None
        if found is None:
            if entry:
                self.drop(key)
            with self.making(key) as folder:
                make(folder)
            entry = self.find(key)
            found = opened(entry) if entry else None
        return found

    @contextlib.contextmanager
    def making(self, key: str) -> Iterator[Path]:
        """An empty folder to fill; it becomes the entry when the block ends well, and is removed when it does not."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.tidy()
        temporary = self.folder / f".{key}.{secrets.token_hex(4)}"
        temporary.mkdir()
        try:
            yield temporary
            # Whoever made the same meanwhile has made the same.
            with contextlib.suppress(OSError):
                os.replace(temporary, self.folder / key)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def tidy(self) -> None:
        """Remove what is too old or too much, and what a process that ended left half made."""
        now = time.time()
        kept: list[tuple[float, Path]] = []
        for entry in self._entries():
            used = _used(entry)
            keep = ABANDONED_SECONDS if entry.name.startswith(".") else self.keep_seconds
            if now - used > keep:
                shutil.rmtree(entry, ignore_errors=True)
            elif not entry.name.startswith("."):
                kept.append((used, entry))
        room = self.most_bytes
        for _, entry in sorted(kept, reverse=True):
            room -= _size(entry)
            if room < 0:
                shutil.rmtree(entry, ignore_errors=True)

    def _entries(self) -> list[Path]:
        try:
            return [entry for entry in self.folder.iterdir() if entry.is_dir()]
        except OSError:
            return []


def _used(entry: Path) -> float:
    try:
        return entry.stat().st_mtime
    except OSError:
        return 0.0


def _size(entry: Path) -> int:
    total = 0
    for file in entry.rglob("*"):
        with contextlib.suppress(OSError):
            total += file.stat().st_size
    return total
