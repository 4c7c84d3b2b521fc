"""Which conversations are kept aside for validation: whole ones, the same every time, and never one that is also
learned."""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import orjson

from chat_app.conversation import Conversation
from chat_app.data.readers import ConversationSource, Located
from chat_app.data.writers import to_record
from chat_app.system.progress import Progress, ProgressCallback, ignore_progress

FEWEST = 5
REPORT_EVERY = 2_000
MOST_VALID = 5_000  # More would make an evaluation long, and a loss no truer.


def hash_conversation(conversation: Conversation, seed: int) -> int:
    """A number of 63 bits that only what is said and the seed decide."""
    said = json.dumps([seed, *[[message.role, message.text] for message in conversation.messages]])
    return hash_content(said.encode("utf-8", "surrogatepass"))


def hash_content(content: bytes) -> int:
    """A number of 63 bits that only the content decides."""
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") >> 1


def find_validation_limit(hashes: Iterable[int], valid_share: float) -> int:
    """Conversations with this mark or a lower one are for validation; -1 if none is."""
    import numpy as np

    different = np.unique(np.fromiter(hashes, np.int64))
    if valid_share <= 0 or len(different) < FEWEST:
        return -1
    count = min(max(round(len(different) * valid_share), 1), MOST_VALID)
    return int(different[count - 1])


def write_split(
    folder: Path,
    valid_share: float,
    seed: int,
    train: ConversationSource,
    valid: ConversationSource | None,
    progress: ProgressCallback = ignore_progress,
) -> Counter[str]:
    """Write train.jsonl, valid.jsonl and, where something is meant for it, test.jsonl; in bounded memory.

    Args:
        train: what to learn from; parts of it that are meant for validation or a test go there.
        valid: more for validation, whatever it was meant for. Without any, a share of `train` is kept aside.
        progress: is given the number of conversations written so far.

    Returns:
        How many conversations each part has.
    """
    hashes, counts = array("q"), Counter(train=0, valid=0)
    files = {part: (folder / f".{part}.tmp").open("wb") for part in ("train", "valid", "test")}
    try:
        for item in train.iterate_located():
            files[item.part].write(_encode(item))
            counts[item.part] += 1
            if item.part == "train":
                hashes.append(hash_conversation(item.conversation, seed))
            if counts.total() % REPORT_EVERY == 0:
                progress(Progress(done=counts.total()))
        for item in valid.iterate_located() if valid else ():
            files["valid"].write(_encode(item))
            counts["valid"] += 1
    finally:
        for file in files.values():
            file.close()
    if not counts["valid"]:
        kept = move_validation_share(folder / ".train.tmp", folder / ".valid.tmp", hashes, valid_share)
        counts.update(train=-kept, valid=kept)
    for part in files:
        if part == "test" and not counts["test"]:
            (folder / ".test.tmp").unlink()
        else:
            os.replace(folder / f".{part}.tmp", folder / f"{part}.jsonl")
    return counts


def move_validation_share(source: Path, target: Path, hashes: Sequence[int], valid_share: float) -> int:
    """Move a share of the lines of a file to another one, which then holds nothing else.

    Args:
        hashes: of the lines.

    Returns:
        How many were moved.
    """
    last = find_validation_limit(hashes, valid_share)
    if last < 0:
        return 0
    kept = 0
    rest = source.with_name(f".{source.name}.rest")
    with source.open("rb") as lines, rest.open("wb") as learned, target.open("wb") as aside:
        for line, own in zip(lines, hashes, strict=True):
            (aside if own <= last else learned).write(line)
            kept += own <= last
    os.replace(rest, source)
    return kept


def _encode(item: Located) -> bytes:
    """A conversation as it is read back, and where it stood, for people who look for it."""
    record = {**to_record(item.conversation), "file": item.file, "line": item.line}
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
