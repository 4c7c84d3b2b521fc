"""What a person has to decide before a run goes on: its data have changed, or its checkpoints are lost.

Going on by itself would end with other weights than the run began to learn, and nobody would know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chat_app.config.training import TrainConfig
from chat_app.errors import DecisionNeededError, RunError
from chat_app.runs.checkpoints import remove_after
from chat_app.runs.data_manifest import describe_changes, has_manifest, seal_data
from chat_app.runs.run import ACTIVE, Run
from chat_app.runs.state import Decision
from chat_app.system.disk_cache import digest_content
from chat_app.training import distributed

if TYPE_CHECKING:
    from chat_app.models.resolver import ModelFiles

_ALLOW = "Put it back, start a new run, or allow it to go on with what is there now (--accept-changes)."
_OTHER_ROWS = (
    "The rows that this run learns are others than those it began with: its settings have changed, or the tokenizer or "
    "the format of the model that it starts from."
)
_DIGESTS = "digests"


def allow(run: Run, decision: Decision) -> None:
    """Carry out what a person has allowed. The run still has to be put into the queue, or trained.

    Raises:
        RunError: a process is training it.
    """
    if run.state().status in ACTIVE:
        raise RunError(f"The run {run.id} is being trained.", advice="Stop it first.")
    if decision == "changed-data":
        seal_data(run.data)
        run.note(digests=None)
    elif decision == "restart":
        remove_after(run.checkpoints, -1)
        run.forget_after(-1)
        run.note(digests=None)
    run.replace_state(run.state(), "stopped", "It was allowed to go on.")


def check_data(run: Run) -> None:
    """Check that the conversations are those that the run was prepared with.

    Raises:
        DecisionNeededError: they are not.
    """
    changes = describe_changes(run.data)
    if changes:
        raise DecisionNeededError(
            "changed-data",
            f"The conversations of this run have changed since it was prepared: {', '.join(changes)}.",
            advice=_ALLOW,
        )
    if distributed.is_main_process() and not has_manifest(run.data):
        seal_data(run.data)  # An older version has prepared this run.


def check_rows(run: Run, train_rows: Any, valid_rows: Any, *, is_resumed: bool) -> None:
    """Check that a resumed run learns the rows that it began with, and note them where it begins.

    Raises:
        DecisionNeededError: the same conversations give other rows, since the tokenizer or the format has changed.
    """
    now = {"train_rows": train_rows.digest(), "valid_rows": valid_rows.digest()}
    _compare(run, now, is_resumed, _OTHER_ROWS)


def check_base(run: Run, config: TrainConfig, files: ModelFiles, *, is_resumed: bool) -> None:
    """Check that a resumed run adds to the weights that it began with. Where every weight is learned, the checkpoint
    has them all.

    Raises:
        DecisionNeededError: the base model has changed.
    """
    if config.method == "full" or files.folder is None:
        return
    weights = sorted(path for path in files.folder.iterdir() if path.suffix in (".safetensors", ".gguf"))
    now = {"base": digest_content(weights)}
    _compare(run, now, is_resumed, "The weights of the model that this run adds to have changed since it began.")


def _compare(run: Run, now: dict[str, str], is_resumed: bool, sentence: str) -> None:
    known = run.about().get(_DIGESTS) or {}
    if is_resumed and any(name in known and known[name] != digest for name, digest in now.items()):
        raise DecisionNeededError("changed-data", sentence, advice=_ALLOW)
    distributed.barrier()
    if distributed.is_main_process():
        run.note(**{_DIGESTS: {**known, **now}})
