"""Text corpora for pretraining: running text from files, archives and folders, in chunks, split for validation.

A chunk is a few pages, cut between paragraphs.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import orjson

from chat_app.data.readers import archives
from chat_app.data.readers.archives import Member
from chat_app.data.readers.detect import is_prose
from chat_app.data.readers.text_source import open_source
from chat_app.data.readers.turn_text import replace_unstorable
from chat_app.data.splitting import hash_content, move_validation_share
from chat_app.errors import DataError
from chat_app.system.progress import Progress, ProgressCallback, ignore_progress

CHUNK_CHARACTERS = 16_000
LONGEST_PARAGRAPH = 4 * CHUNK_CHARACTERS


def is_plain_text(path: Path) -> bool:
    """Whether a path holds running text instead of conversations; of an archive or folder, whether any file does."""
    try:
        with archives.open_members(path) as members:
            return any(is_prose(member) for member in members if isinstance(member, Member))
    except DataError:
        return False


def iterate_chunks(path: Path) -> Iterator[str]:
    """The chunks of a file of running text, or of all such files in an archive or a folder.

    Raises:
        DataError: the path cannot be read.
    """
    with archives.open_members(path) as members:
        for member in members:
            if isinstance(member, Member) and is_prose(member):
                yield from _split_chunks(member)


def _split_chunks(member: Member) -> Iterator[str]:
    lines: list[str] = []
    size = 0
    for _, raw in open_source(member.path, member.name).read_lines():
        if raw is None:
            continue  # A line of many megabytes is no prose.
        line = replace_unstorable(raw.decode("utf-8", "replace"))
        lines.append(line)
        size += len(line) + 1
        if (size > CHUNK_CHARACTERS and not line.strip()) or size > LONGEST_PARAGRAPH:
            yield "\n".join(lines).strip()
            lines, size = [], 0
    rest = "\n".join(lines).strip()
    if rest:
        yield rest


def write_chunks(
    folder: Path,
    texts: Iterable[str],
    kept_aside: Iterable[str] | None,
    valid_share: float,
    seed: int,
    progress: ProgressCallback = ignore_progress,
) -> Counter[str]:
    """Write train_text.jsonl and valid_text.jsonl, with one object {"text": chunk} a line.

    Args:
        folder: where to write the files.
        texts: chunks for training.
        kept_aside: chunks for validation; None takes a share of `texts`.
        valid_share: that share, 0 to 1.
        seed: of the split.
        progress: is given the number of chunks written so far.

    Returns:
        The number of chunks of each part: "train_text", "valid_text".
    """
    learned, aside = folder / "train_text.jsonl", folder / "valid_text.jsonl"
    hashes = array("q")
    with learned.open("wb") as file:
        for text in texts:
            file.write(_encode(text))
            hashes.append(hash_content(f"{seed} {text}".encode("utf-8", "replace")))
            progress(Progress(done=len(hashes)))
    given = moved = 0
    with aside.open("wb") as file:
        for text in kept_aside or ():
            file.write(_encode(text))
            given += 1
    if kept_aside is None:
        moved = move_validation_share(learned, aside, hashes, valid_share)
    return Counter(train_text=len(hashes) - moved, valid_text=given + moved)


def read_chunks(file: Path) -> Iterator[str]:
    """The chunks in a file of `write_chunks`; none if there is no such file."""
    if file.exists():
        with file.open("rb") as lines:
            for line in lines:
                yield orjson.loads(line)["text"]


def _encode(text: str) -> bytes:
    return orjson.dumps({"text": text}, option=orjson.OPT_APPEND_NEWLINE)
