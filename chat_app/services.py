"""The services that the user interfaces share: the model in use, the training queue, and the rules of this server.

Built once, closed once.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from chat_app.config.loading import LoadConfig
from chat_app.config.paths import STARTER, Paths
from chat_app.errors import RunError
from chat_app.runs.run import Run, find_run, list_runs, split_name
from chat_app.training.job_queue import Jobs

if TYPE_CHECKING:
    from chat_app.inference.backend import ReplyBackend
    from chat_app.inference.model_manager import ModelManager

LOOPBACK = ("127.0.0.1", "localhost", "::1")
LOCAL_VISITOR = "local"
SHARED_KEEP_SECONDS = 6 * 3600.0
UPLOAD_BYTES = 5 * 10**9
SHARED_UPLOAD_BYTES = 200 * 10**6


@dataclass(frozen=True)
class ServerRules:
    """What this server allows.

    Attributes:
        host, port: where it listens.
        auth_file: a file of `name:password` lines, or None.
        training: whether visitors may train.
        upload_bytes: the largest upload; 0 suits it to who may come.
        origins: other addresses whose pages may call this server.
        share: whether Gradio makes a public link.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    auth_file: Path | None = None
    training: bool = True
    upload_bytes: int = 0
    origins: tuple[str, ...] = ()
    share: bool = False

    @property
    def upload_limit(self) -> int:
        """The most bytes of one upload: more than that is refused before it is read."""
        return self.upload_bytes or (SHARED_UPLOAD_BYTES if self.is_shared else UPLOAD_BYTES)

    @property
    def on_space(self) -> bool:
        """Whether this is a Hugging Face Space."""
        return bool(os.environ.get("SPACE_ID"))

    @property
    def is_shared(self) -> bool:
        """Whether strangers may come: then visitors see only their own runs, and none changes the model for all."""
        return self.on_space or self.share or self.auth_file is not None or self.host not in LOOPBACK


class Services:
    """The model manager, the training queue and the rules, without any user interface.

    Args:
        paths: the home folder.
        rules: of the server.
        model: the name of the model to begin with.
        remote: another server's model that answers while none is in use here; none is loaded to begin with then.
    """

    def __init__(
        self,
        paths: Paths,
        rules: ServerRules | None = None,
        model: str = STARTER,
        remote: ReplyBackend | None = None,
    ):
        from chat_app.inference.model_manager import ModelManager  # Brings torch: only where a model is used.

        self.rules = rules or ServerRules()
        # Strangers' conversations are not kept beside the runs that they made of them.
        self.paths = replace(paths, keep_seconds=SHARED_KEEP_SECONDS) if self.rules.is_shared else paths
        self.first_model = model
        self.remote = remote
        self.models: ModelManager = ModelManager(self.paths)
        self.jobs: Jobs | None = Jobs(self.paths) if self.rules.training else None
        self.paths.runs.mkdir(parents=True, exist_ok=True)

    def load_first_model(self) -> None:
        """Load the model to begin with, or find out whether the other server answers.

        Raises:
            ModelError: it cannot be loaded.
            RemoteEngineError, BusyError: the other server does not answer.
        """
        if self.remote is not None:
            self.remote.connect()
        else:
            self.models.use(self.first_model, LoadConfig())

    def find_backend(self, guest: str | None = None) -> ReplyBackend | None:
        """The backend that replies now: the guest of that name if it is loaded; for None the model in use, or the other
        server's."""
        return self.models.here(guest) or (self.remote if guest is None else None)

    def list_runs(self, visitor: str) -> list[Run]:
        """The runs that this visitor may see, the newest first. On one's own computer that is all of them."""
        runs = list_runs(self.paths.runs)
        return [run for run in runs if self.may_see(run, visitor)]

    def find_run(self, visitor: str, name: str) -> Run:
        """A run that this visitor may see.

        Raises:
            RunError: there is none of that name for this visitor.
        """
        run = find_run(self.paths.runs, name)
        if not self.may_see(run, visitor):
            raise RunError(f"There is no run '{name}'.")
        return run

    def find_model(self, visitor: str, name: str) -> str:
        """The name of a run's model, or of one of its checkpoints (RUN@STEP), if this visitor may see that run.

        Raises:
            RunError: there is none of that name for this visitor.
        """
        run, step = split_name(name)
        found = self.find_run(visitor, run).id
        return found if step is None else f"{found}@{step}"

    def may_see(self, run: Run, visitor: str) -> bool:
        """Whether a run is this visitor's own."""
        if not self.rules.is_shared:
            return True
        try:
            return run.about().get("by") == visitor
        except RunError:
            return False

    def close(self) -> None:
        """End the training queue and free the model."""
        if self.jobs is not None:
            self.jobs.close()
        self.end_replies()
        self.models.unload()

    def end_replies(self) -> None:
        """End all replies under way: the server shuts down."""
        if self.remote is not None:
            self.remote.close()
        if self.models.current is not None:
            self.models.current.close()
