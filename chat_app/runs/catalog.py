"""The catalogue of runs: search, rename, measure, delete. The id of a run never changes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chat_app.errors import RunError
from chat_app.runs.run import ACTIVE, Run

LONGEST_TITLE = 80


def get_title(run: Run) -> str:
    """The title that a person has given to a run; empty without one."""
    try:
        title = run.about().get("title")
    except RunError:
        return ""
    return title if isinstance(title, str) else ""


def rename(run: Run, title: str) -> str:
    """Give a run a title; an empty one takes it away.

    Returns:
        The title as it is kept: on one line.

    Raises:
        RunError: it is too long, or the run cannot be read.
    """
    title = " ".join(title.split())
    if len(title) > LONGEST_TITLE:
        raise RunError("This name is too long.", advice=f"Use at most {LONGEST_TITLE} characters.")
    if run.state().status in ACTIVE:  # Its own process writes the same file.
        raise RunError("A run that is learning cannot be renamed.", advice="Wait for its end, or stop it.")
    run.note(title=title)
    return title


def search(runs: Sequence[Run], text: str) -> list[Run]:
    """The runs that have every word of `text` in their title, id, files, model or state; in the same order."""
    words = text.casefold().split()
    return [run for run in runs if all(word in _searchable_text(run) for word in words)] if words else list(runs)


def _searchable_text(run: Run) -> str:
    try:
        about, model = run.about(), run.config().model
    except RunError:
        about, model = {}, ""
    files = about.get("files")
    names = [str(one) for one in files] if isinstance(files, list) else []
    # Of a folder only its end: a path of this computer is not shown to visitors.
    model = re.split(r"[/\\]", model)[-1]
    return " ".join([run.id, str(about.get("title", "")), model, run.state().status, *names]).casefold()


@dataclass(frozen=True, slots=True)
class Contents:
    """What goes when a run is deleted. Sizes in bytes; `conversations`: how many, to learn and to test on."""

    model_bytes: int
    checkpoints: int
    checkpoint_bytes: int
    conversations: int
    all_bytes: int


def measure_contents(run: Run) -> Contents:
    """What a run folder holds."""
    try:
        about = run.about()
    except RunError:
        about = {}
    counted = (about.get("train_conversations"), about.get("valid_conversations"))
    return Contents(
        model_bytes=_size(run.model) + _size(run.adapter),
        checkpoints=sum(1 for _ in run.checkpoints.glob("checkpoint-*")),
        checkpoint_bytes=_size(run.checkpoints),
        conversations=sum(count for count in counted if isinstance(count, int)),
        all_bytes=_size(run.folder),
    )


def check_deletable(run: Run) -> None:
    """Check that the run is neither training nor queued.

    Raises:
        RunError: it is learning, or waits for its turn.
    """
    status = run.state().status
    if status in (*ACTIVE, "queued"):
        word = "waits for its turn" if status == "queued" else "is learning"
        raise RunError(f"The run '{get_title(run) or run.id}' {word}.", advice="Stop it first.")


def delete(run: Run) -> None:
    """Delete a run with everything in it.

    Raises:
        RunError: it is learning or waits for its turn, or a file cannot be deleted.
    """
    check_deletable(run)
    try:
        run.remove()
    except OSError as error:
        raise RunError(
            f"Not everything of this run could be deleted ({error.strerror or error}).",
            advice="Close what uses its files and try again.",
        ) from error


def _size(folder: Path) -> int:
    """Bytes of the files in a folder. One that is being written may be gone before it is measured."""
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.lstat().st_size if not file.is_dir() else 0
        except OSError:
            continue
    return total
