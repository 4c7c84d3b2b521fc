"""Running text to learn a language from: files, archives and folders of it -> pieces, kept apart for validation.

A piece is a few pages, cut between paragraphs. Knows nothing of conversations.
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
    """Whether a file, or the first file of an archive or a folder, is running text and no conversations."""
    try:
        with archives.open_members(path) as members:
            return any(is_prose(member) for member in members if isinstance(member, Member))
    except DataError:
        return False


def iterate_chunks(path: Path) -> Iterator[str]:
    """The text of a file, or of all the files of running text in an archive or a folder, in pieces.

    Raises:
        DataError: it cannot be read.
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
            continue  # A line of many megabytes is no text that anybody wrote.
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
    """Write train_text.jsonl and valid_text.jsonl, an object {"text"} a line.

    Args:
        texts: pieces to learn from.
        kept_aside: pieces for validation; None keeps a share of `texts` aside.
        progress: is given the number of pieces written so far.

    Returns:
        How many pieces each part has: "train_text", "valid_text".
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
    """What `write_chunks` wrote; nothing where there is no such file."""
    if file.exists():
        with file.open("rb") as lines:
            for line in lines:
                yield orjson.loads(line)["text"]


def _encode(text: str) -> bytes:
    return orjson.dumps({"text": text}, option=orjson.OPT_APPEND_NEWLINE)
