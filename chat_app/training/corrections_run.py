"""A training run from corrected replies, mixed with conversations that the model learned before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from chat_app.config.fields import from_mapping
from chat_app.config.paths import Paths
from chat_app.config.training import TrainConfig
from chat_app.conversation import Conversation
from chat_app.data.readers import Located, Problem, has_text, iterate_conversations
from chat_app.errors import DataError, RunError
from chat_app.runs.run import Run, find_run
from chat_app.system.progress import ProgressCallback, ignore_progress
from chat_app.training.corrections_store import TEACHING_SETTINGS, Correction, Corrections, mix_conversations
from chat_app.training.prepare import write_run

CORRECTIONS, EARLIER = "your corrections", "earlier conversations"


def open_corrections(paths: Paths, visitor: str) -> Corrections:
    """A visitor's own set. The folder's name tells nothing about them, and no name leads out of it."""
    name = hashlib.sha256(visitor.encode("utf-8", "replace")).hexdigest()[:24]
    return Corrections(paths.home / "corrections" / name)


def prepare_corrections_run(
    model: str,
    corrections: Sequence[Correction],
    paths: Paths,
    *,
    about: dict[str, Any] | None = None,
    progress: ProgressCallback = ignore_progress,
) -> Run:
    """A run that teaches a model these corrections and keeps what it knew.

    Args:
        model: the one whose replies were corrected.
        about: facts to keep beside the settings, such as whose it is.
        progress: is given the number of conversations written so far.

    Raises:
        DataError: there are no corrections.
        SettingError: the settings cannot be.
    """
    config = from_mapping(TrainConfig, {**TEACHING_SETTINGS, "model": model})
    mixture = _Mixture(list(mix_conversations(corrections, _read_earlier(model, paths), seed=config.seed)), corrections)
    name = f"{len(corrections)} correction{'' if len(corrections) == 1 else 's'}"
    return write_run(config, mixture, paths, about={"files": [name], **(about or {})}, progress=progress)


class _Mixture:
    """The mixed conversations, each with an origin: the correction's number, or its own number among the rest."""

    def __init__(self, rows: Sequence[Conversation], corrections: Sequence[Correction]):
        self._rows = rows
        self._numbers = {one.good: number for number, one in enumerate(corrections, start=1)}

    def iterate_located(self) -> Iterator[Located]:
        """The conversations, each time from the beginning."""
        others = 0
        for row in self._rows:
            number = self._numbers.get(row.turns[-1].text)
            others += number is None
            yield Located(row, number or others, CORRECTIONS if number else EARLIER)

    def iterate_problems(self) -> Iterator[Problem]:
        """Nothing was left out."""
        return iter(())


def _read_earlier(model: str, paths: Paths) -> Iterator[Conversation]:
    """What the model learned before: a run's own conversations; for others a sample of what the starter learned."""
    path = paths.assets / "starter_earlier.jsonl"
    try:
        learned = find_run(paths.runs, model).data / "train.jsonl"
        path = learned if has_text(learned) else path
    except RunError:
        pass  # It is not a run.
    try:
        yield from iterate_conversations(path)
    except DataError:  # Without earlier conversations the corrections can be taught all the same.
        return
