"""The folder of a training run: its settings, its state, its history. What is on disk is the truth.

Everything is written to a temporary file and renamed, or appended a line at a time; a torn last line is read past.
A process that works on a run holds a lock, which the system releases when that process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from chat_app.config.fields import from_mapping, to_mapping
from chat_app.config.training import TrainConfig
from chat_app.errors import RunError, SettingError
from chat_app.runs.files import MANIFEST, hold, is_held, read_json, read_lines, verify, write_json, write_text

Status = Literal["queued", "running", "stopping", "stopped", "interrupted", "failed", "done"]
STATUSES: tuple[Status, ...] = ("queued", "running", "stopping", "stopped", "interrupted", "failed", "done")
ACTIVE: tuple[Status, ...] = ("running", "stopping")
RESUMABLE: tuple[Status, ...] = ("stopped", "interrupted", "failed")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class State:
    """Where a run stands. `reason` is one sentence for a person; `time` is seconds since 1970."""

    status: Status
    reason: str = ""
    step: int = 0
    total_steps: int = 0
    time: float = 0.0


class Run:
    """One run folder.

    Args:
        folder: exists, or is made by `create`.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    @classmethod
    def create(cls, folder: Path, config: TrainConfig, about: Mapping[str, Any] | None = None) -> Run:
        """A new folder with its settings, queued. `about` are facts to keep beside the settings.

        Raises:
            RunError: the folder is in use.
        """
        run = cls(folder)
        if (folder / "config.json").exists():
            raise RunError(f"There is a run in {folder} already.", advice="Resume it, or choose another folder.")
        for part in (run.data, run.checkpoints):
            part.mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", {**to_mapping(config), "about": {"created": time.time(), **(about or {})}})
        run.set_state("queued")
        return run

    @property
    def id(self) -> str:
        """The name of the folder."""
        return self.folder.name

    @property
    def data(self) -> Path:
        """The accepted conversations, the split, the problems."""
        return self.folder / "data"

    @property
    def checkpoints(self) -> Path:
        """The checkpoints: everything that is needed to resume."""
        return self.folder / "checkpoints"

    @property
    def model(self) -> Path:
        """The best model so far, as an ordinary model folder."""
        return self.folder / "model"

    @property
    def adapter(self) -> Path:
        """The LoRA adapter, where the run trains one."""
        return self.folder / "adapter"

    @property
    def log(self) -> Path:
        """What the training process printed."""
        return self.folder / "log.txt"

    @property
    def has_model(self) -> bool:
        """Whether there is something to chat with."""
        return (self.model / "config.json").is_file()

    def config(self) -> TrainConfig:
        """The settings.

        Raises:
            RunError: they cannot be read.
        """
        try:
            values = {name: value for name, value in self._config().items() if name != "about"}
            return from_mapping(TrainConfig, values)
        except SettingError as error:
            raise RunError(f"The settings of the run {self.id} cannot be used: {error}") from error

    def about(self) -> dict[str, Any]:
        """Facts kept beside the settings: when it was made, from which files, by whom."""
        return cast("dict[str, Any]", self._config().get("about", {}))

    def change(self, **settings: Any) -> None:
        """Replace settings of a run that has not begun."""
        write_json(self.folder / "config.json", {**self._config(), **settings})

    def note(self, **facts: Any) -> None:
        """Add facts to those beside the settings."""
        values = self._config()
        values["about"] = {**values.get("about", {}), **facts}
        write_json(self.folder / "config.json", values)

    def _config(self) -> dict[str, Any]:
        values = read_json(self.folder / "config.json")
        if not isinstance(values, dict):
            raise RunError(f"There is no run in {self.folder}, or its settings are damaged.")
        return values

    def state(self) -> State:
        """The state. A run that should be active but whose lock is free becomes interrupted: its process has died."""
        values = read_json(self.folder / "state.json")
        if not isinstance(values, dict) or values.get("status") not in STATUSES:
            return State("failed", "The state of this run cannot be read.")
        state = State(
            values["status"],
            str(values.get("reason", "")),
            int(values.get("step", 0)),
            int(values.get("total_steps", 0)),
            float(values.get("time", 0.0)),
        )
        # A child that was just started has not taken the lock yet; the supervisor tells if it never does.
        if state.status in ACTIVE and not self.is_locked():
            again = read_json(self.folder / "state.json")
            if again != values:
                return self.state()
            self.set_state(
                "interrupted", "The training process ended without a word. It can go on from its last checkpoint."
            )
            return self.state()
        return state

    def set_state(
        self, status: Status, reason: str = "", step: int | None = None, total_steps: int | None = None
    ) -> None:
        """Write the state; steps that are not given stay."""
        before = read_json(self.folder / "state.json")
        before = before if isinstance(before, dict) else {}
        write_json(
            self.folder / "state.json",
            {
                "status": status,
                "reason": reason,
                "step": before.get("step", 0) if step is None else step,
                "total_steps": before.get("total_steps", 0) if total_steps is None else total_steps,
                "time": time.time(),
            },
        )

    def request_stop(self) -> None:
        """Ask the training process to stop after the step it is in."""
        (self.folder / "stop").touch()

    def stop_requested(self) -> bool:
        """Whether a stop was requested."""
        return (self.folder / "stop").exists()

    def clear_stop(self) -> None:
        """Forget the wish to stop."""
        (self.folder / "stop").unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run while working on it.

        Raises:
            RunError: another process works on it.
        """
        with hold(self.folder / "lock", f"Another process is training the run {self.id}."):
            yield

    def is_locked(self) -> bool:
        """Whether a process works on this run."""
        return is_held(self.folder / "lock")

    def append(self, name: str, values: Mapping[str, Any]) -> None:
        """Add one line to metrics.jsonl or samples.jsonl."""
        line = json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n"
        with open(self.folder / name, "a", encoding="utf-8") as file:
            file.write(line)

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, oldest first."""
        return read_lines(self.folder / "metrics.jsonl")

    def samples(self) -> list[dict[str, Any]]:
        """The lines of samples.jsonl, oldest first."""
        return read_lines(self.folder / "samples.jsonl")

    def forget_after(self, step: int) -> None:
        """Drop history after a step: what a resumed run is about to do again."""
        for name in ("metrics.jsonl", "samples.jsonl"):
            kept = [line for line in read_lines(self.folder / name) if line.get("step", 0) <= step]
            write_text(self.folder / name, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept))

    def newest_checkpoint(self) -> Path | None:
        """The newest checkpoint whose files are all there and unchanged."""
        folders = (self.checkpoints / f"checkpoint-{step}" for step in reversed(self.checkpoint_steps()))
        return next((folder for folder in folders if verify(folder)), None)

    def checkpoint_steps(self) -> list[int]:
        """The steps of the checkpoints that were finished, oldest first. Whether they are unchanged, `verify` tells."""
        folders = [folder for folder in self.checkpoints.glob("checkpoint-*") if (folder / MANIFEST).is_file()]
        numbers = [folder.name.rpartition("-")[2] for folder in folders]
        return sorted(int(number) for number in numbers if number.isdigit())

    def remove(self) -> None:
        """Delete the run with its model.

        Raises:
            RunError: it is being trained.
        """
        if self.is_locked():
            raise RunError(f"The run {self.id} is being trained.", advice="Stop it first.")
        shutil.rmtree(self.folder)


def new_id(home: Path, model: str) -> str:
    """A name for a new run that no folder in `home` has: the day, the model and four letters."""
    stem = re.sub(r"[^A-Za-z0-9]+", "-", Path(model).name).strip("-").lower()[:24] or "model"
    while True:
        name = f"{time.strftime('%Y%m%d-%H%M')}-{stem}-{secrets.token_hex(2)}"
        if not (home / name).exists():
            return name


def split_name(name: str) -> tuple[str, int | None]:
    """The run and the step in a name such as RUN@120; the name as it is, and None, where it is not of that kind."""
    run, mark, step = name.partition("@")
    if mark and NAME.fullmatch(run) and re.fullmatch(r"[0-9]{1,12}", step):
        return run, int(step)
    return name, None


def find_run(home: Path, name: str) -> Run:
    """The run of that name.

    Raises:
        RunError: the name is not a run's, or there is no such run.
    """
    folder = home / name
    if not NAME.fullmatch(name) or not (folder / "config.json").is_file():
        raise RunError(f"There is no run '{name}'.", advice="The command 'runs' lists them.")
    return Run(folder)


def list_runs(home: Path) -> list[Run]:
    """All runs, the newest first."""
    if not home.is_dir():
        return []
    runs = [Run(folder) for folder in home.iterdir() if (folder / "config.json").is_file()]
    return sorted(runs, key=lambda run: (run.folder / "config.json").stat().st_ctime, reverse=True)
