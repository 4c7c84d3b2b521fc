"""The split of conversations into training and validation: deterministic by a hash of the content and the seed.

Copies of a conversation have the same hash, so none is in both parts.
"""

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
MOST_VALID = 5_000  # More would make evaluations slower, and the loss hardly more precise.


def hash_conversation(conversation: Conversation, seed: int) -> int:
    """A hash of 63 bits of a conversation's roles and texts and the seed."""
    said = json.dumps([seed, *[[message.role, message.text] for message in conversation.messages]])
    return hash_content(said.encode("utf-8", "surrogatepass"))


def hash_content(content: bytes) -> int:
    """A hash of 63 bits: the first bytes of SHA-256."""
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") >> 1


def find_validation_limit(hashes: Iterable[int], valid_share: float) -> int:
    """The highest hash that belongs to validation, or -1 if nothing does.

    Args:
        hashes: the hashes of the conversations, copies included.
        valid_share: the share of different conversations to keep for validation, 0 to 1.

    Returns:
        The limit. It is -1 with fewer than five different conversations, which are all needed for training, and it
        keeps at most 5,000 of them for validation.
    """
    import numpy as np

    different = np.unique(np.fromiter(hashes, np.int64))
    if valid_share <= 0 or len(different) < FEWEST:
        return -1
    count = min(max(round(len(different) * valid_share), 1), MOST_VALID)
    return int(different[count - 1])


def explain_no_validation(valid_share: float, conversations: int) -> str:
    """Why none of so many conversations are kept aside for validation, as a part of a sentence."""
    if valid_share <= 0:
        return "the share for validation is 0"
    if conversations < FEWEST:
        return f"of fewer than {FEWEST} conversations none are kept aside"
    return f"fewer than {FEWEST} of the conversations are different"


def write_split(
    folder: Path,
    valid_share: float,
    seed: int,
    train: ConversationSource,
    valid: ConversationSource | None,
    progress: ProgressCallback = ignore_progress,
) -> Counter[str]:
    """Write train.jsonl, valid.jsonl and, if there is a test part, test.jsonl; in bounded memory.

    Args:
        folder: where to write the files.
        valid_share: the share of `train` for validation, 0 to 1, if there are no other conversations for it.
        seed: of the split.
        train: conversations for training; those of the parts "valid" and "test" go into these files.
        valid: conversations for validation, whatever their part.
        progress: is given the number of conversations written so far.

    Returns:
        The number of conversations of each part.
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
    """Move a share of the lines of a file to another file, which is overwritten.

    Args:
        source, target: the files.
        hashes: one hash for each line of `source`; the lines with the lowest are moved.
        valid_share: the share of different lines to move, 0 to 1.

    Returns:
        The number of lines moved.
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
    """A line of JSON with the conversation and the file and line that it came from."""
    record = {**to_record(item.conversation), "file": item.file, "line": item.line}
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
