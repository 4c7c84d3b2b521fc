"""The manifest of a run's data: what it was prepared with, so that a change is noticed before it is learned."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from chat_app.runs.files import MANIFEST, read_json, write_json

_NOT_LEARNED = ("problems.jsonl", "test.jsonl")


def seal_data(folder: Path) -> None:
    """Write the manifest of the data of a run as they are now.

    Args:
        folder: the run's folder of data.
    """
    write_json(folder / MANIFEST, {"files": _describe_files(folder)})


def describe_changes(folder: Path) -> list[str]:
    """In what the data differ from their manifest, a few words for each file; empty if in nothing.

    Data without a manifest, as older versions have left them, count as unchanged.
    """
    manifest = read_json(folder / MANIFEST)
    sealed = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(sealed, dict):
        return []
    now = _describe_files(folder)
    return [
        words
        for name in sorted(sealed.keys() | now.keys())
        if (words := _compare(name, sealed.get(name), now.get(name)))
    ]


def has_manifest(folder: Path) -> bool:
    """Whether the data were sealed."""
    return isinstance(read_json(folder / MANIFEST), dict)


def _describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    files = sorted(path for path in folder.glob("*.jsonl") if path.is_file() and path.name not in _NOT_LEARNED)
    return {path.name: _describe_file(path) for path in files}


def _describe_file(path: Path) -> dict[str, Any]:
    digest, lines = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            lines += block.count(b"\n")
    return {"sha256": digest.hexdigest(), "lines": lines}


def _compare(name: str, before: Any, now: dict[str, Any] | None) -> str:
    if before == now:
        return ""
    if now is None:
        return f"{name} is missing"
    if not isinstance(before, dict):
        return f"{name} was not there before"
    if before.get("lines") != now["lines"]:
        return f"{name} has {now['lines']:,} lines and had {before.get('lines')}"
    return f"{name} has other lines"
