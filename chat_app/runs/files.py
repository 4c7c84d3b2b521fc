"""Files of a run folder: written whole or not at all, sealed with SHA-256, locked while a process works on them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chat_app.errors import RunError

MANIFEST = "manifest.json"


@contextlib.contextmanager
def hold(path: Path, busy: str) -> Iterator[None]:
    """Hold a lock file for the length of a block; the system lets go of it when the process dies.

    Raises:
        RunError: another process or thread holds it; `busy` is the sentence.
    """
    import filelock  # It imports asyncio, which `--help` does not need.

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0.5)
    except filelock.Timeout as error:
        raise RunError(busy, advice="Wait until it has ended, or stop it.") from error
    try:
        yield
    finally:
        lock.release()


def is_held(path: Path) -> bool:
    """Whether another process or thread holds this lock file."""
    import filelock

    if not path.exists():
        return False
    lock = filelock.FileLock(path)
    try:
        with lock.acquire(timeout=0):
            return False
    except filelock.Timeout:
        return True


def seal(folder: Path) -> None:
    """Write the manifest of a finished folder, last: with it, the folder counts as whole."""
    digests = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != MANIFEST:
            with open(path, "rb+") as file:
                os.fsync(file.fileno())
            digests[path.relative_to(folder).as_posix()] = _digest(path)
    write_json(folder / MANIFEST, {"sha256": digests})


def verify(folder: Path) -> bool:
    """Whether a folder is exactly what its manifest says."""
    manifest = read_json(folder / MANIFEST)
    digests = manifest.get("sha256") if isinstance(manifest, dict) else None
    if not isinstance(digests, dict) or not digests:
        return False
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if present - {MANIFEST} != set(digests):
        return False
    return all(_digest(folder / name) == digest for name, digest in digests.items())


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a file atomically: a reader never sees half of it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, whole or not at all."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """A value, or None where the file is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file; what is torn or no object is read past."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    values = []
    for line in text.split("\n"):
        with contextlib.suppress(ValueError):
            value = json.loads(line)
            if isinstance(value, dict):
                values.append(value)
    return values
