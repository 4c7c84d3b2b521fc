"""Follow-up runs after a diagnosis: more epochs of the same run, or a new run with half the learning rate."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

from chat_app.config.fields import to_mapping
from chat_app.config.paths import Paths
from chat_app.config.training import TrainConfig
from chat_app.errors import RunError
from chat_app.runs.run import ACTIVE, Run
from chat_app.training.prepare import create_run
from chat_app.training.recipe import copy_recipe
from chat_app.training.small_sets import ABOUT

LOWEST_FACTOR = 0.01
MOST_EPOCHS = 1000.0
_KEPT = (
    *("files", "by", "repairs", "reading", "questions", "title", "from_nothing", "vocabulary"),
    *("train_conversations", "valid_conversations", "test_conversations", "train_texts", "valid_texts", ABOUT),
)


def give_more_epochs(run: Run) -> TrainConfig:
    """Let a run that has ended go on for as long again. It still has to be put into the queue.

    Raises:
        RunError: it is being trained, or has nothing to go on from.
    """
    state = run.state()
    if state.status in (*ACTIVE, "queued"):
        raise RunError("This run has not ended yet.", advice="Wait for its end.")
    if run.newest_checkpoint() is None:
        raise RunError("Nothing is left that this run could go on from.", advice="Start a new one.")
    config = run.config()
    longer = replace(config, epochs=min(2 * config.epochs, MOST_EPOCHS), max_steps=2 * config.max_steps)
    if longer == config:
        raise RunError("This run is as long as a run can be.", advice="Start a new one from its model.")
    run.change(**to_mapping(longer))
    run.set_state("stopped", "More epochs were asked for.")
    return longer


def with_half_the_rate(run: Run, paths: Paths) -> Run:
    """A new run of the same conversations and settings that learns half as fast. It still has to be put into the queue.

    Raises:
        RunError: the rate is as low as it can be, or the old run's data cannot be copied.
    """
    config = run.config()
    if config.rate_factor / 2 < LOWEST_FACTOR:
        raise RunError("The learning rate is as low as it can be.", advice="Try other conversations, or more of them.")
    config = replace(config, rate_factor=config.rate_factor / 2)
    known = run.about()
    about: dict[str, Any] = {name: known[name] for name in _KEPT if name in known}
    try:
        with create_run(config, paths, about={**about, "after": run.id}) as new:
            shutil.copytree(run.data, new.data, dirs_exist_ok=True)
            start = run.folder / "start"
            if start.is_dir() and config.model == str(start):  # A model that knows nothing yet belongs to its run.
                shutil.copytree(start, new.folder / "start")
                new.change(model=str(new.folder / "start"))
            copy_recipe(run, new)
    except OSError as error:
        raise RunError(
            "The conversations of this run cannot be copied.", advice="Free some space on the disk and try again."
        ) from error
    return new
