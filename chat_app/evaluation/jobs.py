"""Evaluations in a child process of their own: the calls of `runner`, without what they import."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from chat_app.config.paths import Paths
from chat_app.config.sampling import SamplingConfig
from chat_app.conversation import Conversation
from chat_app.evaluation.evaluation import Evaluation
from chat_app.system.child_job import run_in_child
from chat_app.system.progress import ProgressCallback

_RUNNER = "chat_app.evaluation.runner"


def evaluate_in_child(
    names: Sequence[str],
    conversations: Sequence[Conversation],
    paths: Paths,
    most_replies: int,
    progress: ProgressCallback,
) -> list[Evaluation]:
    """As `runner.evaluate_models`.

    Raises:
        ChildProcessDiedError: the process ended, crashed or ran out of memory.
    """
    found = run_in_child(
        f"{_RUNNER}.evaluate_models", names, conversations, paths, most_replies=most_replies, progress=progress
    )
    return cast("list[Evaluation]", found)


def generate_in_child(
    name: str,
    prompts: Sequence[Conversation],
    paths: Paths,
    sampling: SamplingConfig | None,
    progress: ProgressCallback,
) -> list[str]:
    """As `runner.generate_replies`.

    Raises:
        ChildProcessDiedError: the process ended, crashed or ran out of memory.
    """
    found = run_in_child(f"{_RUNNER}.generate_replies", name, prompts, paths, sampling, progress=progress)
    return cast("list[str]", found)
