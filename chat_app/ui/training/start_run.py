"""Starting a run from the page: it is prepared in a background task and submitted to the queue."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

from chat_app.errors import RunError
from chat_app.runs.run import Run
from chat_app.services import Services
from chat_app.system.progress import ProgressCallback
from chat_app.training.job_queue import Jobs
from chat_app.ui.components.background_task import follow_task

Outputs = TypeVar("Outputs")


def require_jobs(services: Services) -> Jobs:
    """Return the training queue.

    Raises:
        RunError: this server does not train.
    """
    if services.jobs is None:
        raise RunError("Training is switched off on this server.")
    return services.jobs


def start_run(
    services: Services, prepare: Callable[[ProgressCallback], Run], show: Callable[[str], Outputs]
) -> Generator[Outputs, None, Run | None]:
    """Prepare a run, submit it to the queue, and yield updates that show the progress.

    Args:
        prepare: makes the run folder. show: as for `followed`.

    Returns:
        The run. None: there is none, and the person was told why.
    """

    def do(progress: ProgressCallback) -> Run:
        jobs = require_jobs(services)
        run = prepare(progress)
        jobs.submit(run)
        return run

    return follow_task(do, lambda text: show(text or "Preparing."), "The run could not be written")
