"""What publishers call the parts of a data set: "validation", dialogues_test.txt. Knows names only."""

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
    """The part that a name stands for: "validation", "train_sft", "Test"; None if it stands for none."""
    for word in re.split(r"[^a-z]+", name.lower()):
        if word in PART_NAMES:
            return PART_NAMES[word]
    return None


def part_from_filename(file: str) -> Part:
    """The part that a file of a well-known corpus is, by its name; "train" where that says nothing."""
    return parse_part(PurePath(file.replace("\\", "/")).stem) or "train"
