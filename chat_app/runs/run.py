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
from pathlib import Path
from typing import Any, cast

from chat_app.config.fields import from_mapping, to_mapping
from chat_app.config.training import TrainConfig
from chat_app.errors import RunError, SettingError
from chat_app.runs import settings_file
from chat_app.runs.checkpoints import Checkpoints, find_checkpoints, list_checkpoints
from chat_app.runs.files import hold, is_held
from chat_app.runs.history import forget_after, read_metrics, read_samples
from chat_app.runs.owner import find_owner_elsewhere, keep_heartbeat
from chat_app.runs.settings_file import SettingsFile
from chat_app.runs.state import ACTIVE, RESUMABLE, STATUSES, Decision, State, StateFile, Status

__all__ = [
    "ACTIVE", "ENDED_SILENTLY", "NAME", "PREPARE_AGAIN", "RESUMABLE", "STATUSES", "UNPREPARED", "Run", "State",
    "Status", "find_run", "is_run_folder", "list_runs", "new_id", "open_run", "split_name",
]  # fmt: skip

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
ENDED_SILENTLY = "The training process ended without a word. It can go on from its last checkpoint."
UNPREPARED = "The program ended while it prepared this run."
PREPARE_AGAIN = "Prepare it again with the same command and --run, or delete it and start anew."
_PREPARING = ".preparing"
_FILES = ("state.json", "metrics.jsonl", "samples.jsonl", "log.txt")
_FOLDERS = ("data", "checkpoints", "model", "adapter")


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
        if is_run_folder(folder):
            raise RunError(f"There is a run in {folder} already.", advice="Resume it, or choose another folder.")
        for part in (run.data, run.checkpoints):
            part.mkdir(parents=True, exist_ok=True)
        values = {**to_mapping(config), "about": {"created": time.time(), **(about or {})}}
        SettingsFile(folder).write(values)
        StateFile(folder).keep_space()
        run.set_state("queued")
        return run

    @contextlib.contextmanager
    def preparing(self) -> Iterator[None]:
        """Mark the run as one that is being prepared. The mark stays if this process is killed.

        Raises:
            RunError: another process prepares it.
        """
        mark = self.folder / _PREPARING
        with hold(mark, f"Another process is preparing the run {self.id}."):
            yield
        with contextlib.suppress(OSError):
            mark.unlink(missing_ok=True)

    @property
    def is_being_prepared(self) -> bool:
        """Whether a process prepares this run now."""
        return is_held(self.folder / _PREPARING)

    @property
    def is_unprepared(self) -> bool:
        """Whether the process that prepared this run has died before it was ready."""
        return (self.folder / _PREPARING).exists() and not self.is_being_prepared

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
            values = {name: value for name, value in SettingsFile(self.folder).read().items() if name != "about"}
            return from_mapping(TrainConfig, values)
        except SettingError as error:
            raise RunError(f"The settings of the run {self.id} cannot be used: {error}") from error

    def about(self) -> dict[str, Any]:
        """Facts kept beside the settings: when it was made, from which files, by whom.

        Raises:
            RunError: they cannot be read.
        """
        return cast("dict[str, Any]", SettingsFile(self.folder).read()["about"])

    def change(self, **settings: Any) -> None:
        """Replace settings of a run that has not begun."""
        SettingsFile(self.folder).update(lambda values: {**values, **settings})

    def note(self, **facts: Any) -> None:
        """Add facts to those beside the settings."""
        SettingsFile(self.folder).update(lambda values: {**values, "about": {**values["about"], **facts}})

    def state(self) -> State:
        """The state. A run that should be active but whose lock is free becomes interrupted: its process has died.
        One that cannot be used is shown as failed, with what is wrong."""
        state = StateFile(self.folder).read()
        if state is not None and state.status in ACTIVE:
            return self._check_alive(state)
        if (self.folder / _PREPARING).exists():
            if self.is_being_prepared:
                return State("queued", "Its conversations are being read.")
            return State("failed", f"{UNPREPARED} {PREPARE_AGAIN}")
        fault = self.find_fault()
        if fault:
            return State("failed", fault)
        return state or State("failed", "The state of this run cannot be read.")

    def _check_alive(self, state: State) -> State:
        if self.is_locked() or find_owner_elsewhere(self.folder):
            return state
        try:
            # Under the state's lock, so that a run that was queued again meanwhile stays queued.
            if not StateFile(self.folder).replace(state, "interrupted", ENDED_SILENTLY):
                return self.state()
        except (OSError, RunError):  # A disk that is full or read-only: what is shown is true all the same.
            return State("interrupted", ENDED_SILENTLY, state.step, state.total_steps, state.time)
        return self.state()

    def find_fault(self) -> str:
        """What is wrong with the files of this run, so that it cannot be used; empty if nothing is."""
        try:
            self.config()
        except RunError as error:
            return error.sentence()
        wrong = [name for name in _FILES if (self.folder / name).is_dir()]
        if wrong:
            return f"This run is damaged: {wrong[0]} is a folder and should be a file. Remove it, or delete the run."
        wrong = [name for name in _FOLDERS if (self.folder / name).is_file()]
        if wrong:
            return f"This run is damaged: {wrong[0]} is a file and should be a folder. Remove it, or delete the run."
        return ""

    def set_state(
        self,
        status: Status,
        reason: str = "",
        step: int | None = None,
        total_steps: int | None = None,
        decision: Decision = "",
    ) -> None:
        """Write the state; steps that are not given stay."""
        StateFile(self.folder).write(status, reason, step, total_steps, decision)

    def replace_state(self, seen: State | tuple[Status, ...], status: Status, reason: str = "") -> bool:
        """Write the state only while it is still the one that was seen, or has one of these statuses.

        Returns:
            Whether it was written.
        """
        return StateFile(self.folder).replace(seen, status, reason)

    def stop_active(self, reason: str) -> bool:
        """Ask the training process to stop after the step it is in, and say so in the state.

        Returns:
            Whether there is one.
        """
        with StateFile(self.folder).locked():
            state = StateFile(self.folder).read()
            if state is None or state.status not in ACTIVE:
                return False
            self.request_stop()
            StateFile(self.folder).write_locked("stopping", reason)
            return True

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

    @contextlib.contextmanager
    def claim(self, *, only_queued: bool = False) -> Iterator[None]:
        """Take the run over in one piece, and hold it for the length of a block: it is running then.

        Args:
            only_queued: take it only while it waits in the queue, and so not after it was stopped, or when another
                process has taken it.

        Raises:
            RunError: another process works on it, or it does not wait any more, or it was never prepared.
        """
        if (self.folder / _PREPARING).exists():
            raise RunError(UNPREPARED, where=str(self.folder), advice=PREPARE_AGAIN)
        if host := find_owner_elsewhere(self.folder):
            raise RunError(f"The computer {host} is training the run {self.id}.", advice="Wait until it has ended.")
        file = StateFile(self.folder)
        with self.lock():
            with file.locked():
                state = file.read()
                if only_queued and (state is None or state.status != "queued"):
                    is_now = "damaged" if state is None else state.status
                    raise RunError(f"The run {self.id} does not wait any more: it is {is_now}.")
                self.clear_stop()
                file.keep_space()
                file.write_locked("running", "Getting ready.")
            with keep_heartbeat(self.folder):
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
        return read_metrics(self.folder / "metrics.jsonl")

    def samples(self) -> list[dict[str, Any]]:
        """The lines of samples.jsonl, oldest first."""
        return read_samples(self.folder / "samples.jsonl")

    def forget_after(self, step: int) -> None:
        """Drop history after a step: what a resumed run is about to do again."""
        forget_after(self.folder / "metrics.jsonl", self.metrics(), step)
        forget_after(self.folder / "samples.jsonl", self.samples(), step)

    def newest_checkpoint(self) -> Path | None:
        """The newest checkpoint whose files are all there and unchanged."""
        return self.find_checkpoints().newest

    def find_checkpoints(self) -> Checkpoints:
        """The newest checkpoint whose files are all there and unchanged, and what is wrong with those after it."""
        return find_checkpoints(self.checkpoints)

    def checkpoint_steps(self) -> list[int]:
        """The steps of the checkpoints that were finished, oldest first. Whether they are unchanged, `verify` tells."""
        return list_checkpoints(self.checkpoints, only_sealed=True)

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


def is_run_folder(folder: Path) -> bool:
    """Whether a folder is a run's, however damaged. (A model's folder has a config.json, too.)"""
    has_settings = any((folder / name).exists() for name in (settings_file.NAME, settings_file.COPY))
    return (folder / "state.json").exists() or (has_settings and (folder / "checkpoints").exists())


def find_run(home: Path, name: str) -> Run:
    """The run of that name.

    Raises:
        RunError: the name is not a run's, or there is no such run.
    """
    folder = home / name
    if not NAME.fullmatch(name) or not is_run_folder(folder):
        raise RunError(f"There is no run '{name}'.", advice="The command 'runs' lists them.")
    return Run(folder)


def open_run(home: Path, name: str) -> Run:
    """The run in a folder, or the one of that name.

    Raises:
        RunError: there is neither.
    """
    return Run(Path(name).resolve()) if is_run_folder(Path(name)) else find_run(home, name)


def list_runs(home: Path) -> list[Run]:
    """All runs, the newest first, and damaged ones among them."""
    try:
        folders = [folder for folder in home.iterdir() if NAME.fullmatch(folder.name) and is_run_folder(folder)]
    except OSError:
        return []
    return sorted(map(Run, folders), key=_find_change_time, reverse=True)


def _find_change_time(run: Run) -> float:
    for path in (run.folder / settings_file.NAME, run.folder):
        with contextlib.suppress(OSError):  # It may be deleted at this moment.
            return path.stat().st_ctime
    return 0.0
