"""Exports of which only a few files hold talk, told by the names of the files in a folder or an archive.

An export of Facebook has thousands of files, of which a handful are chats; the others are passed over together.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from chat_app.data.readers.types import Problem, RejectedError

MOST_NAMES = 200_000
NOTHING = "Nothing has to be done."


@dataclass(frozen=True)
class ExportKind:
    """How an export looks from outside. `root` in a pattern is the folder above all that belongs to it.

    Attributes:
        name: what it is an export of.
        marks: each has to match the name of some file, with the same root.
        talk: matches the names of the files with talk, below the root; None if no file has any that can be used.
        advice: what to do if there is none.
    """

    name: str
    marks: tuple[re.Pattern[str], ...]
    talk: re.Pattern[str] | None
    advice: str = ""


def _compile(*patterns: str) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(rf"(?P<root>(?:.*?/)??){pattern}") for pattern in patterns)


CHATS = r"(?:.*/)?messages/(?:.*/)?[^/]+/message_\d+\.json"
KINDS = (
    ExportKind(
        "ChatGPT",
        _compile(
            r"conversations(?:-\d+)?\.json",
            r"(?:(?:user|message_feedback|shared_conversations|model_comparisons|export_manifest)\.json|chat\.html)",
        ),
        re.compile(r"conversations(?:-\d+)?\.json"),
    ),
    ExportKind(
        "Claude",
        _compile(r"conversations\.json", r"(?:users|projects|memories)\.json"),
        re.compile(r"conversations\.json"),
    ),
    ExportKind(
        "Facebook or Instagram",
        _compile(r"(?:your_\w+_activity/|your_activity_across_facebook/)?messages/[a-z0-9_]+/(?:[^/]+/)?message_\d+\.json"),
        re.compile(CHATS),
    ),
    ExportKind(
        "Google Chat",
        _compile(r"Groups/[^/]+/(?:messages|group_info)\.json", r"Groups/[^/]+/group_info\.json"),
        re.compile(r"Groups/[^/]+/messages\.json"),
    ),
    ExportKind(
        "Discord's package of your own data",
        _compile(r"[Mm]essages/c?\d{5,}/channel\.json", r"[Mm]essages/index\.json"),
        None,
        "It holds only what you wrote yourself: nobody answers. Export a channel with DiscordChatExporter, as JSON.",
    ),
    ExportKind(
        "Dialogflow",
        _compile(r"agent\.json", r"intents/[^/]+\.json"),
        re.compile(r"intents/[^/]+\.json"),
    ),
    ExportKind(
        "Cornell Movie-Dialogs",
        _compile(r"movie_lines\.txt", r"movie_conversations\.txt"),
        re.compile(r"movie_(?:lines|conversations)\.txt"),
    ),
)  # fmt: skip


@dataclass
class KnownExports:
    """The exports in one folder or archive, and how many of their files were passed over."""

    found: list[tuple[str, ExportKind]]
    passed: dict[str, int]

    def is_talk(self, name: str) -> bool:
        """Whether a file belongs to no export, or holds talk of one.

        Args:
            name: its name inside the folder or archive.
        """
        for root, kind in self.found:
            if not name.startswith(root):
                continue
            if kind.talk is not None and kind.talk.fullmatch(name[len(root) :]):
                return True
            self.passed[kind.name] = self.passed.get(kind.name, 0) + 1
            return False
        return True

    def summarize(self, place: str) -> Iterable[Problem]:
        """One problem for each export of which files were passed over."""
        for kind in dict.fromkeys(kind for _, kind in self.found):
            count = self.passed.get(kind.name, 0)
            if count and kind.talk is not None:
                files = "1 other file of it holds" if count == 1 else f"{count:,} other files of it hold"
                yield Problem(place, None, f"This is an export of {kind.name}; {files} no talk.", NOTHING)


def find_exports(path: Path) -> KnownExports:
    """The exports in a folder or an archive.

    Raises:
        RejectedError: it is an export without anything to learn.
    """
    names = _list_names(path)
    found: list[tuple[str, ExportKind]] = []
    for kind in KINDS if names else ():
        roots = [{match["root"] for name in names if (match := mark.fullmatch(name))} for mark in kind.marks]
        found += [(root, kind) for root in sorted(set.intersection(*roots))]
    # Where several exports lie inside each other, the deepest one knows its files.
    found.sort(key=lambda one: -len(one[0]))
    for root, kind in found:
        if kind.talk is None and not root:
            raise RejectedError(f"This is {kind.name}.", kind.advice)
    return KnownExports(found, {})


def _list_names(path: Path) -> list[str]:
    try:
        if path.is_dir():
            files = (file.relative_to(path).as_posix() for file in path.rglob("*"))
            return list(islice(files, MOST_NAMES))
        if path.is_file() and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return [name.replace("\\", "/") for name in archive.namelist()[:MOST_NAMES]]
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        pass
    return []
