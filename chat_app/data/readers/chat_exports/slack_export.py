"""A whole Slack export, as a folder or a .zip -> conversations. Its files belong together, unlike those of others."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from chat_app.data.readers import archives as containers
from chat_app.data.readers.archives import Member
from chat_app.data.readers.chat_exports import slack
from chat_app.data.readers.chat_exports import threading as chats
from chat_app.data.readers.options import ReadingOptions
from chat_app.data.readers.types import Located, Problem

MOST_NAMES = 100_000


def is_slack_export(path: Path) -> bool:
    """Whether a folder or an archive holds channels with a file a day, beside the list of people."""
    try:
        if path.is_dir():
            names = [file.relative_to(path).as_posix() for file in path.rglob("*.json")]
        elif path.is_file() and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        else:
            return False
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return False
    return slack.is_export(names[:MOST_NAMES])


def slack_export(path: Path, name: str, options: ReadingOptions) -> Iterator[Located | Problem]:
    """The conversations of an export.

    Raises:
        DataError: nobody or only one person writes in it, or nobody is called as the bot should be.
    """
    with tempfile.TemporaryDirectory(prefix="chat_app-", ignore_cleanup_errors=True) as folder, ExitStack() as stack:
        files: list[tuple[Path, str]] = []
        problems: list[Problem] = []
        for member in stack.enter_context(containers.opened(path, name)):
            if isinstance(member, Problem):
                problems.append(member)
                continue
            # A member of an archive lies on the disk only until the next one is asked for.
            kept = Path(folder) / str(len(files)) if not path.is_dir() else member.path
            if kept != member.path:
                shutil.copyfile(member.path, kept)
            files.append((kept, _inside(member, name)))
        yield from problems
        found = chats.survey(slack.messages_of_files(files), options)
        bot = chats.guess_bot(found, options, name)
        yield from chats.conversations(slack.messages_of_files(files), name, options, bot, found.speakers)


def _inside(member: Member, name: str) -> str:
    return member.name.removeprefix(name).lstrip("/")
