"""The services that the page, the HTTP API and the command `serve` share: models, training queue, rules of the server.

One `Services` object is created for a process and closed when it ends.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from chat_app.config.loading import LoadConfig
from chat_app.config.paths import STARTER, Paths
from chat_app.config.server import ServerRules
from chat_app.errors import RunError
from chat_app.inference.quoting import AnswerLists
from chat_app.inference.worker.manager import ModelManager
from chat_app.runs.run import Run, find_run, list_runs, split_name
from chat_app.training.job_queue import Jobs

if TYPE_CHECKING:
    from chat_app.inference.backend import ReplyBackend

LOCAL_VISITOR = "local"
SHARED_KEEP_SECONDS = 6 * 3600.0


class Services:
    """The model manager, the training queue and the rules, without any user interface.

    Args:
        paths: the home folder.
        rules: what the server allows.
        model: the name of the model that `load_first_model` loads.
        remote: the backend of another server, which replies while no model is loaded here. With it,
            `load_first_model` loads none.
    """

    def __init__(
        self,
        paths: Paths,
        rules: ServerRules | None = None,
        model: str = STARTER,
        remote: ReplyBackend | None = None,
    ):
        self.rules = rules or ServerRules()
        # On a shared server, cached conversations of visitors expire soon; only their runs keep a copy.
        self.paths = replace(paths, keep_seconds=SHARED_KEEP_SECONDS) if self.rules.is_shared else paths
        self.first_model = model
        self.remote = remote
        self.models = ModelManager(self.paths)
        self.answers = AnswerLists(self.paths.runs)
        self.jobs: Jobs | None = Jobs(self.paths) if self.rules.training else None
        self.paths.runs.mkdir(parents=True, exist_ok=True)

    def load_first_model(self) -> None:
        """Load the first model; with `remote`, check instead that the other server answers.

        Raises:
            ModelError: it cannot be loaded.
            RemoteEngineError, BusyError: the other server does not answer.
        """
        if self.remote is not None:
            self.remote.connect()
        else:
            self.models.use(self.first_model, LoadConfig())

    def find_backend(self, guest: str | None = None) -> ReplyBackend | None:
        """The backend that replies now, or None if there is none.

        Args:
            guest: the name of a guest model, which is found only if it is loaded; None for the shared model, or for
                `remote` where no model is loaded.
        """
        return self.models.here(guest) or (self.remote if guest is None else None)

    def list_runs(self, visitor: str) -> list[Run]:
        """The runs that this visitor may see, the newest first; all of them unless the server is shared."""
        runs = list_runs(self.paths.runs)
        return [run for run in runs if self.may_see(run, visitor)]

    def find_run(self, visitor: str, name: str) -> Run:
        """The run of that name, if this visitor may see it.

        Raises:
            RunError: there is none of that name for this visitor.
        """
        run = find_run(self.paths.runs, name)
        if not self.may_see(run, visitor):
            raise RunError(f"There is no run '{name}'.")
        return run

    def find_model(self, visitor: str, name: str) -> str:
        """The full name of a run's model, or of one of its checkpoints (RUN@STEP), if this visitor may see that run.

        Raises:
            RunError: there is none of that name for this visitor.
        """
        run, step = split_name(name)
        found = self.find_run(visitor, run).id
        return found if step is None else f"{found}@{step}"

    def may_see(self, run: Run, visitor: str) -> bool:
        """Whether a visitor may see a run: always, unless the server is shared and the run is another visitor's."""
        if not self.rules.is_shared:
            return True
        try:
            return run.about().get("by") == visitor
        except RunError:
            return False

    def close(self) -> None:
        """Stop the training queue, end all replies and unload the models."""
        if self.jobs is not None:
            self.jobs.close()
        self.end_replies()
        self.models.close()

    def end_replies(self) -> None:
        """Cancel all replies in progress, because the server shuts down."""
        if self.remote is not None:
            self.remote.close()
        if self.models.current is not None:
            self.models.current.close()
