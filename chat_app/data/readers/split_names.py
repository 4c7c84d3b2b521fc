"""The names of the parts (splits) of data sets: "validation", dialogues_test.txt."""

from __future__ import annotations

import re
from pathlib import PurePath

from chat_app.data.readers.types import Part

PART_NAMES: dict[str, Part] = {
    "train": "train",
    "training": "train",
    "trn": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "development": "valid",
    "eval": "valid",
    "test": "test",
    "testing": "test",
}


def parse_part(name: str) -> Part | None:
    """The part that a name refers to, as in "validation", "train_sft", "Test"; None if it refers to none."""
    for word in re.split(r"[^a-z]+", name.lower()):
        if word in PART_NAMES:
            return PART_NAMES[word]
    return None


def part_from_filename(file: str) -> Part:
    """The part that the name of a file refers to; "train" if it refers to none."""
    return parse_part(PurePath(file.replace("\\", "/")).stem) or "train"
