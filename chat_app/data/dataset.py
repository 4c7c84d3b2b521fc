"""Conversations gathered from files and kept on disk: read once, found again by content, in bounded memory.

The files that a person brought are never changed; what lies here is what was understood of them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from chat_app.conversation import Conversation, Message
from chat_app.data.quality import repaired
from chat_app.data.readers import Located, Part, Preview, Problem, ReadingOptions, iterate, nothing_usable
from chat_app.data.readers.types import not_opened
from chat_app.data.writers import record_of
from chat_app.errors import DataError
from chat_app.system.disk_cache import Cache, digest_of
from chat_app.system.progress import Progress, ProgressCallback, ignore_progress

VERSION = "1"  # Another one, and everything is read anew.
CONVERSATIONS, PROBLEMS, FACTS = "conversations.jsonl", "problems.jsonl", "facts.json"
SHOWN_PROBLEMS = 1_000
REPORT_EVERY = 2_000


@dataclass(frozen=True)
class Facts:
    """What is known of gathered conversations without going through them.

    Attributes:
        files: names as the person knows them.
        previews: the preview of each file.
        conversations, turns: counts; system texts are no turns.
        parts: conversations by what they are meant for ("train", "valid", "test").
        problems: how many lines or files were left out.
    """

    files: tuple[str, ...]
    previews: tuple[Preview, ...]
    conversations: int
    turns: int
    parts: dict[str, int]
    problems: int


@dataclass(frozen=True)
class Material:
    """A folder of gathered conversations.

    Attributes:
        folder: an entry of the cache.
        facts: read from it.
        repairs: names of repairs that are applied whenever it is gone through.
    """

    folder: Path
    facts: Facts
    repairs: frozenset[str] = field(default_factory=frozenset)

    def located(self) -> Iterator[Located]:
        """The conversations in their order, with the repairs applied, and where each stands in its file."""
        return repaired(_EachTime(self.as_read), self.repairs) if self.repairs else self.as_read()

    def as_read(self) -> Iterator[Located]:
        """The conversations in their order without repairs."""
        names = self.facts.files
        all_train = self.facts.parts.get("train") == self.facts.conversations
        with (self.folder / CONVERSATIONS).open("rb") as file:
            for line in file:
                yield _located(orjson.loads(line), names, all_train)

    def conversations(self) -> Iterator[Conversation]:
        """Only what was said."""
        return (located.conversation for located in self.located())

    def problems(self, most: int = SHOWN_PROBLEMS) -> list[Problem]:
        """The first of the problems."""
        return list(islice(self.all_problems(), most))

    def all_problems(self) -> Iterator[Problem]:
        """Everything that was left out."""
        with (self.folder / PROBLEMS).open("rb") as file:
            for line in file:
                yield Problem(**orjson.loads(line))

    def with_repairs(self, repairs: Collection[str]) -> Material:
        """The same conversations, mended in other ways."""
        return Material(self.folder, self.facts, frozenset(repairs))


class _EachTime(Iterable[Located]):
    """What can be gone through several times, because each time begins anew."""

    def __init__(self, begin: Callable[[], Iterator[Located]]):
        self._begin = begin

    def __iter__(self) -> Iterator[Located]:
        return self._begin()


def gather(
    files: Sequence[Path],
    cache: Cache,
    options: ReadingOptions | None = None,
    *,
    need_reply: bool = True,
    names: Sequence[str] | None = None,
    progress: ProgressCallback = ignore_progress,
) -> Material:
    """Read files, or find what was read from the same ones before.

    Args:
        files: in the order in which they count.
        options: how to understand them.
        need_reply: without it, conversations that nobody has answered are taken too.
        names: what to call the files, if not by their names on disk.
        progress: is given the number of conversations read so far.

    Raises:
        DataError: a file cannot be read, or holds no conversation: better no training than one on half of the data.
    """
    if not files:
        raise DataError("No file was given.", advice="Give at least one file of conversations.")
    options = options or ReadingOptions()
    shown = list(names or [file.name for file in files])

    def read(gathering: _Gathering) -> None:
        for file, name in zip(files, shown, strict=True):
            on_preview = gathering.previews.append
            gathering.take(
                iterate(file, name=name, options=options, need_reply=need_reply, on_preview=on_preview), name
            )

    settings = json.dumps([VERSION, need_reply, shown, asdict(options)], default=list)
    return _gathered(_key([settings], files), cache, progress, read)


def gather_items(
    begin: Callable[[], Iterable[Located | Problem]],
    key_parts: Sequence[str],
    name: str,
    cache: Cache,
    progress: ProgressCallback,
    files: Sequence[Path] = (),
) -> Material:
    """Keep what comes from elsewhere, such as a data set of the Hub, or find what was kept of it before.

    Args:
        begin: begins to fetch it; not called where it was kept before.
        key_parts: tell its content, together with that of `files`.
    """

    def read(gathering: _Gathering) -> None:
        gathering.previews.append(Preview(name, "hub"))
        gathering.take(begin(), name)

    return _gathered(_key([VERSION, name, *key_parts], files), cache, progress, read)


def _gathered(key: str, cache: Cache, progress: ProgressCallback, read: Callable[[_Gathering], None]) -> Material:
    """What is kept under that key; else what `read` lets a gathering take."""

    def make(folder: Path) -> None:
        gathering = _Gathering(folder, progress)
        read(gathering)
        gathering.close()

    found = cache.kept(key, _opened, make)
    if found is None:
        raise DataError("What was read could not be kept.", advice="Free some space on the disk and try again.")
    return found


class _Gathering:
    """Fills the folder of a Material."""

    def __init__(self, folder: Path, progress: ProgressCallback):
        self.folder, self.progress = folder, progress
        self.files: list[str] = []
        self.previews: list[Preview] = []
        self.parts: Counter[str] = Counter()
        self.turns = self.count = self.problems = 0

    def take(self, items: Iterable[Located | Problem], name: str) -> None:
        places = {file: place for place, file in enumerate(self.files)}
        first: list[Problem] = []
        before, missed = self.count, 0
        with (self.folder / CONVERSATIONS).open("ab") as good, (self.folder / PROBLEMS).open("ab") as bad:
            for item in items:
                if isinstance(item, Problem):
                    missed += 1
                    bad.write(orjson.dumps(asdict(item), option=orjson.OPT_APPEND_NEWLINE))
                    if len(first) < SHOWN_PROBLEMS:
                        first.append(item)
                else:
                    place = places.setdefault(item.file or name, len(places))
                    good.write(_line(item, place))
                    self.count += 1
                    self.turns += len(item.conversation.turns)
                    self.parts[item.part] += 1
                if (self.count + missed) % REPORT_EVERY == 0:
                    self.progress(Progress(done=self.count))
        self.files = list(places)
        self.problems += missed
        self.progress(Progress(done=self.count))
        if self.count == before:
            raise nothing_usable(name, first, missed)

    def close(self) -> None:
        parts = dict(self.parts)
        if not parts.get("train"):
            # A file called "test" that comes alone is simply what the person has.
            parts = {"train": self.count}
        facts = Facts(tuple(self.files), tuple(self.previews), self.count, self.turns, parts, self.problems)
        (self.folder / FACTS).write_bytes(orjson.dumps(asdict(facts)))


def _key(parts: Sequence[str], files: Sequence[Path]) -> str:
    try:
        return digest_of([*parts, *_contents(files)])
    except OSError as error:
        closed = not_opened(error)
        where = Path(error.filename or files[0]).name
        raise DataError(closed.reason, where=where, advice=closed.advice) from error


def _contents(files: Sequence[Path]) -> Iterator[Path | str]:
    """The files themselves; of a folder the files in it, with their names."""
    for file in files:
        if file.is_dir():
            for inner in sorted(path for path in file.rglob("*") if path.is_file()):
                yield inner.relative_to(file).as_posix()
                yield inner
        elif file.is_file():
            yield file
        else:
            raise DataError("There is no such file.", where=file.name, advice="Check the name and the folder.")


def _opened(entry: Path) -> Material | None:
    """The entry, or None where it is damaged."""
    try:
        values = orjson.loads((entry / FACTS).read_bytes())
        previews = tuple(_preview_from(one) for one in values.pop("previews"))
        files = tuple(values.pop("files"))
        return Material(entry, Facts(files=files, previews=previews, **values))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _preview_from(values: dict[str, Any]) -> Preview:
    from chat_app.data.readers import Column, Speaker

    columns = tuple(Column(one["name"], one["role"], tuple(one["sample"])) for one in values.pop("columns"))
    speakers = tuple(Speaker(**one) for one in values.pop("speakers"))
    return Preview(columns=columns, speakers=speakers, **values)


def _line(item: Located, place: int) -> bytes:
    record = {**record_of(item.conversation), "file": place, "line": item.line, "part": item.part}
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def _located(record: dict[str, Any], names: Sequence[str], all_train: bool) -> Located:
    messages = tuple(Message(one["role"], one["content"], one.get("weight", 1) != 0) for one in record["messages"])
    part: Part = "train" if all_train else record["part"]
    return Located(Conversation(messages), record["line"], names[record["file"]], part)
