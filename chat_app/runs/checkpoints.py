"""The checkpoints of a run: which can be gone on from, and what is wrong with the others."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from chat_app.runs.files import MANIFEST, explain_damage, seal, write_text

_UNFINISHED = ".unfinished"


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """What there is to go on from.

    Attributes:
        newest: the newest checkpoint whose files are all there and unchanged.
        damaged: the step of each newer one, the newest first, and what is wrong with it.
    """

    newest: Path | None
    damaged: dict[int, str]


def find_checkpoints(folder: Path) -> Checkpoints:
    """The newest checkpoint whose files are all there and unchanged, and the damaged ones after it.

    One that was being written when the process was killed does not count as damaged: it never was a checkpoint.

    Args:
        folder: of the checkpoints.
    """
    damaged: dict[int, str] = {}
    unfinished = _read_unfinished(folder)
    for step in reversed(list_checkpoints(folder)):
        damage = explain_damage(folder / f"checkpoint-{step}")
        if not damage:
            return Checkpoints(folder / f"checkpoint-{step}", damaged)
        if step != unfinished:
            damaged[step] = damage
    return Checkpoints(None, damaged)


def list_checkpoints(folder: Path, *, only_sealed: bool = False) -> list[int]:
    """The steps of the checkpoints, oldest first; of those that were finished, if only sealed ones are wanted."""
    folders = [one for one in folder.glob("checkpoint-*") if one.is_dir()]
    numbers = [one.name.rpartition("-")[2] for one in folders if not only_sealed or (one / MANIFEST).is_file()]
    return sorted(int(number) for number in numbers if number.isdecimal())


def read_step(checkpoint: Path) -> int:
    """The step of a checkpoint, by the name of its folder; -1 where that has none."""
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def begin_checkpoint(folder: Path, step: int) -> None:
    """Note that a checkpoint is being written, so that half of one is known for what it is."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / _UNFINISHED, str(step))


def finish_checkpoint(folder: Path, step: int) -> None:
    """Seal a checkpoint: it counts from now on."""
    seal(folder / f"checkpoint-{step}")
    (folder / _UNFINISHED).unlink(missing_ok=True)


def remove_after(folder: Path, step: int) -> None:
    """Remove the checkpoints after a step, and those that are not sealed: a resumed run writes them again, and the
    Trainer would count them."""
    sealed = list_checkpoints(folder, only_sealed=True)
    for one in list_checkpoints(folder):
        if one > step or one not in sealed:
            shutil.rmtree(folder / f"checkpoint-{one}", ignore_errors=True)
    with contextlib.suppress(OSError):
        (folder / _UNFINISHED).unlink(missing_ok=True)


def _read_unfinished(folder: Path) -> int | None:
    try:
        text = (folder / _UNFINISHED).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    return int(text) if text.isdecimal() else None
