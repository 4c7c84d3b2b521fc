"""The readers of Slack exports: a whole export (a folder of channels with one file a day), or a single day.

They read messages of people and apps in the order of time, also those in threads, and skip notices (joined, left, topic
changed) and messages without text.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import zipfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import orjson

from chat_app.data.readers import archives
from chat_app.data.readers.archives import Member
from chat_app.data.readers.chat_exports import threading
from chat_app.data.readers.chat_exports.chat_reader import ChatReader
from chat_app.data.readers.chat_exports.fields import (
    ADVICE,
    convert_messages,
    get_name,
    get_record,
    get_text,
    parse_time,
)
from chat_app.data.readers.chat_exports.threading import ChatMessage
from chat_app.data.readers.json.document import parse_document
from chat_app.data.readers.options import ReadingOptions
from chat_app.data.readers.protocol import InputFile
from chat_app.data.readers.types import Located, Preview, Problem, RejectedError, explain_not_opened
from chat_app.formatting import format_bytes

DAY_FILE = re.compile(r"(?:.*/)?[^/]+/\d{4}-\d{2}-\d{2}\.json")
PEOPLE_FILE = "users.json"
CHANNEL_FILES = ("channels.json", "groups.json")
MAX_FILE_MEGABYTES = 200
SPOKEN = frozenset((None, "", "bot_message", "me_message", "thread_broadcast", "file_share"))
# <@U1>, <@U1|anna>, <#C1>, <#C1|general>, <!here>, <!subteam^S1|@team>, <http://x>, <http://x|label>.
MARKUP = re.compile(r"<([@#!]?)([^<>|\n]{1,4000})(?:\|([^<>\n]{0,4000}))?>")
FIRST_ITEMS = 20
# Stands between a channel and the time that names a thread in it; no name of a channel holds it.
THREAD = "\x1f"


@dataclass(frozen=True)
class Directory:
    """The names of the users and channels of an export, by id."""

    people: Mapping[str, str] = field(default_factory=dict)
    channels: Mapping[str, str] = field(default_factory=dict)


def is_export(names: Sequence[str]) -> bool:
    """Whether file names are those of an export: days inside channels, beside the lists of users or channels."""
    paths = [name.replace("\\", "/") for name in names]
    lists = {path.rpartition("/")[0] for path in paths if _base_name(path) in (PEOPLE_FILE, "channels.json")}
    return any(DAY_FILE.fullmatch(path) and path.rpartition("/")[0].rpartition("/")[0] in lists for path in paths)


def read_export_messages(files: Sequence[tuple[Path, str]]) -> Iterator[ChatMessage | Problem]:
    """Parse the messages of a whole export, channel by channel and day by day, with one file in memory at a time.

    Args:
        files: the path of each file, and its name inside the export ("general/2024-01-01.json").
    """
    directory = yield from _read_directory(files)
    days = sorted(
        (name.replace("\\", "/").rpartition("/"), path, name)
        for path, name in files
        if DAY_FILE.fullmatch(name.replace("\\", "/"))
    )
    for _, channel_days in groupby(days, key=lambda day: day[0][0]):
        yield from _join_threads(_read_channel(list(channel_days), directory))


def _read_channel(
    days: Sequence[tuple[tuple[str, str, str], Path, str]], directory: Directory
) -> Iterator[ChatMessage | Problem]:
    """The messages of one channel, day after day, threads among the rest."""
    for (channel, _, _), path, name in days:
        value = yield from _load_json(path, name)
        if isinstance(value, list):
            yield from _read_day(value, name, directory, channel)
        elif value is not None:
            yield Problem(name, None, "This file is not a list of messages.", "Export the workspace again.")


def _join_threads(messages: Iterator[ChatMessage | Problem]) -> Iterator[ChatMessage | Problem]:
    """The messages of a channel, then each of its threads by itself: an answer belongs to what was asked.

    The threads are kept in memory until the channel ends, since an answer may come days later. A thread has no times:
    it is one conversation, however long the silences in it are.
    """
    threads: dict[str, list[ChatMessage]] = {}
    for message in messages:
        if isinstance(message, Problem) or THREAD not in message.chat:
            yield message
        else:
            threads.setdefault(message.chat, []).append(message)
    for thread in threads.values():
        for message in sorted(thread, key=lambda one: one.time or 0.0):
            yield replace(message, time=None)


class SlackDayReader(ChatReader):
    """Reads one day of one channel of a Slack export."""

    @classmethod
    def sniff(cls, file: InputFile) -> SlackDayReader | None:
        """A reader if the file is JSON as this program writes it."""
        value = parse_document(file)
        if not is_slack_day(value):
            return None
        name, source = file.name, file.source
        return cls.survey("slack", name, source.encoding, file.options, partial(read_messages, value, name))


def is_slack_day(value: Any) -> bool:
    """Whether a JSON value is the file of a day: a list of messages with Slack's times (`ts`)."""
    if not isinstance(value, list):
        return False
    items = [item for item in value[:FIRST_ITEMS] if isinstance(item, dict)]
    return any(item.get("type") == "message" and isinstance(item.get("ts"), str) for item in items)


def read_messages(
    value: list[Any], file: str, directory: Directory | None = None, channel: str = ""
) -> Iterator[ChatMessage | Problem]:
    """Parse the messages of a day, in the order of time, and then its threads. A message's line is its number in the
    file.

    Problems come before the messages.
    """
    yield from _join_threads(_read_day(value, file, directory or Directory(), channel))


def _read_day(value: list[Any], file: str, known: Directory, channel: str) -> Iterator[ChatMessage | Problem]:
    """The messages of a day in the order of time, after what cannot be read of it."""

    def read(item: dict[str, Any], number: int) -> ChatMessage | None:
        return _parse_message(item, number, known, channel, file)

    found = list(convert_messages(value, file, read))
    yield from (one for one in found if isinstance(one, Problem))
    said = [one for one in found if isinstance(one, ChatMessage)]
    yield from sorted(said, key=lambda message: message.time or 0.0)


def _parse_message(item: dict[str, Any], number: int, known: Directory, channel: str, file: str) -> ChatMessage | None:
    subtype = item.get("subtype")
    if item.get("type") != "message" or item.get("hidden") is True:
        return None
    if not (subtype is None or isinstance(subtype, str)):
        raise RejectedError('"subtype" is not text.', ADVICE)
    if subtype not in SPOKEN:
        return None
    text = render_markup(get_text(item, "text"), known).strip()
    if not text:
        return None
    time = parse_time(item, "ts")
    if time is None:
        raise RejectedError('It has no time ("ts").', ADVICE)
    by_bot = subtype == "bot_message" or bool(item.get("bot_id"))
    thread = get_name(item, "thread_ts")
    chat = f"{channel}{THREAD}{thread}" if thread else channel
    return ChatMessage(time, _find_author(item, known), text, number, chat, by_bot, file)


def _find_author(item: dict[str, Any], known: Directory) -> str:
    account = get_name(item, "user")
    if account in known.people:
        return known.people[account]
    profile, bot = get_record(item, "user_profile"), get_record(item, "bot_profile")
    name = (
        get_name(profile, "display_name", "real_name", "name")
        or get_name(bot, "name")
        or get_name(item, "username")
        or account
        or get_name(item, "bot_id")
    )
    if not name:
        raise RejectedError("It has no author.", ADVICE)
    return name


def render_markup(text: str, known: Directory) -> str:
    """The text with mentions, channels and links as Slack displays them."""

    def shown(match: re.Match[str]) -> str:
        kind, target, label = match.groups()
        if kind == "@":
            return "@" + (known.people.get(target) or label or target)
        if kind == "#":
            return "#" + (label or known.channels.get(target) or target)
        if kind == "!":
            return label or "@" + target.partition("^")[0]
        return label or target

    if "<" in text:
        text = MARKUP.sub(shown, text)
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") if "&" in text else text


def _read_directory(files: Sequence[tuple[Path, str]]) -> Generator[Problem, None, Directory]:
    """Parse the lists of users and channels; yields problems and returns the directory."""
    people: dict[str, str] = {}
    channels: dict[str, str] = {}
    for path, name in files:
        base = _base_name(name.replace("\\", "/"))
        if base != PEOPLE_FILE and base not in CHANNEL_FILES:
            continue
        value = yield from _load_json(path, name)
        for record in value if isinstance(value, list) else []:
            if not isinstance(record, dict) or not (account := get_name(record, "id")):
                continue
            if base == PEOPLE_FILE:
                people[account] = _find_display_name(record, account)
            else:
                channels[account] = get_name(record, "name") or account
    return Directory(_disambiguate(people), channels)


def _find_display_name(record: dict[str, Any], account: str) -> str:
    profile = record.get("profile")
    shown = get_name(profile, "display_name", "real_name") if isinstance(profile, dict) else ""
    return shown or get_name(record, "real_name", "name") or account


def _disambiguate(people: dict[str, str]) -> dict[str, str]:
    """Append the account to the names of namesakes, which must not become one speaker."""
    owners: dict[str, str] = {}
    for account, name in people.items():
        owners.setdefault(name, account)
    return {account: name if owners[name] == account else f"{name} ({account})" for account, name in people.items()}


def _load_json(path: Path, name: str) -> Generator[Problem, None, Any]:
    """The JSON value of a file; if it cannot be read, yields a problem and returns None."""
    try:
        size = path.stat().st_size
        if size > MAX_FILE_MEGABYTES * 1_000_000:
            yield Problem(
                name, None, f"This file has {format_bytes(size)}.", f"At most {MAX_FILE_MEGABYTES} MB are read."
            )
            return None
        return orjson.loads(path.read_bytes())
    except OSError as error:
        closed = explain_not_opened(error)
        yield Problem(name, None, closed.reason, closed.advice)
    except orjson.JSONDecodeError as error:
        yield Problem(name, error.lineno, "This file is not JSON.", "Export the workspace again.")
    return None


def _base_name(path: str) -> str:
    return path.rpartition("/")[2]


MOST_NAMES = 100_000


@dataclass(frozen=True)
class SlackExportReader:
    """Reads a whole Slack export, a folder or a zip archive."""

    path: Path
    name: str
    options: ReadingOptions

    @classmethod
    def sniff(cls, file: InputFile) -> SlackExportReader | None:
        """A reader if the folder or the archive holds channels with a file a day, beside the list of people."""
        return cls(file.path, file.name, file.options) if is_slack_export(file.path) else None

    def preview(self) -> Preview:
        """Only the kind, because listing the speakers would need all files unpacked."""
        return Preview(self.name, "slack")

    def read(self, *, need_reply: bool = True) -> Iterator[Located | Problem]:
        """The conversations. Messages without any reply of the bot are skipped, also if `need_reply` is False.

        Raises:
            DataError: fewer than two people write, or none of them has the name that the options give the bot.
        """
        return read_export(self.path, self.name, self.options)


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
    return is_export(names[:MOST_NAMES])


def read_export(path: Path, name: str, options: ReadingOptions) -> Iterator[Located | Problem]:
    """Read the conversations of an export.

    Raises:
        DataError: fewer than two people write, or none of them has the name that the options give the bot.
    """
    with tempfile.TemporaryDirectory(prefix="chat_app-", ignore_cleanup_errors=True) as folder, ExitStack() as stack:
        files: list[tuple[Path, str]] = []
        problems: list[Problem] = []
        for member in stack.enter_context(archives.open_members(path, name)):
            if isinstance(member, Problem):
                problems.append(member)
                continue
            # An unpacked member exists only until the next one, and two passes need all files, so they are copied.
            kept = Path(folder) / str(len(files)) if not path.is_dir() else member.path
            if kept != member.path:
                shutil.copyfile(member.path, kept)
            files.append((kept, _name_inside(member, name)))
        yield from problems
        found = threading.survey(read_export_messages(files), options)
        bot = threading.guess_bot(found, options, name)
        yield from threading.read_conversations(read_export_messages(files), name, options, bot, found.speakers)


def _name_inside(member: Member, name: str) -> str:
    return member.name.removeprefix(name).lstrip("/")
