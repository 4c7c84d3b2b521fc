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
# What file managers leave in every folder that they show, besides macOS's "._" files.
_JUNK = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})


@contextlib.contextmanager
def hold(path: Path, busy: str, seconds: float = 0.5) -> Iterator[None]:
    """Hold a lock file for the length of a block; the system lets go of it when the process dies.

    Args:
        seconds: how long to wait for another holder.

    Raises:
        RunError: another process or thread holds it; `busy` is the sentence.
    """
    import filelock  # It imports asyncio, which `--help` does not need.

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=seconds)
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
    except OSError:  # On a disk that cannot be written to, or a folder in its place: no process can hold it.
        return False


def seal(folder: Path) -> None:
    """Write the manifest of a finished folder, last: with it, the folder counts as whole."""
    digests = {}
    for name, path in _list_files(folder).items():
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
        digests[name] = _digest(path)
    write_json(folder / MANIFEST, {"sha256": digests})


def verify(folder: Path) -> bool:
    """Whether a folder is exactly what its manifest says."""
    return not explain_damage(folder)


def explain_damage(folder: Path) -> str:
    """In what a folder differs from its manifest, in words such as "optimizer.pt has changed"; empty if in nothing."""
    manifest = read_json(folder / MANIFEST)
    digests = manifest.get("sha256") if isinstance(manifest, dict) else None
    if not isinstance(digests, dict) or not digests:
        return "its manifest is missing or damaged"
    present = _list_files(folder)
    for name in sorted(digests.keys() | present.keys()):
        if name not in present:
            return f"{name} is missing"
        if name not in digests:
            return f"{name} does not belong to it"
        try:
            if _digest(present[name]) != digests[name]:
                return f"{name} has changed"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror or error})"
    return ""


def _list_files(folder: Path) -> dict[str, Path]:
    """The files in a folder by their relative names, without the manifest and what file managers leave."""
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.name not in _JUNK and not path.name.startswith("._") and path.name != MANIFEST and path.is_file()
    }


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
