"""The app's models, each in a process of its own: the one in use, and on a shared server a few guests beside it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from chat_app.config.loading import LoadConfig
from chat_app.config.paths import Paths
from chat_app.errors import ChatAppError, ModelError, NotEnoughMemoryError
from chat_app.inference.worker.child import run_worker
from chat_app.inference.worker.model import WorkerModel
from chat_app.inference.worker.process import Run

MAX_GUESTS = 2
CANCELLED = "Loading it was cancelled."


class ModelManager:
    """The model in use, and on a shared server a few guests beside it: models that visitors trained for themselves.

    It may be used from any thread; loading a model does not disturb chats with those that are loaded.

    Args:
        paths: the home folder.
        run: what a model's process runs.
    """

    def __init__(self, paths: Paths, run: Run = run_worker):
        self._paths, self._run = paths, run
        self._one_load = threading.Lock()  # One load at a time.
        self._new: WorkerModel | None = None  # What is being loaded.
        self._current: WorkerModel | None = None
        self._guests: dict[str, WorkerModel] = {}  # Least recently used first. Replaced, never changed.

    @property
    def current(self) -> WorkerModel | None:
        """The model in use, or None."""
        return self._current

    @property
    def loading(self) -> str | None:
        """The name of the model that is being loaded, or None."""
        new = self._new
        return new.name if new is not None else None

    def use(self, name: str, config: LoadConfig | Mapping[str, Any] | None = None) -> WorkerModel:
        """Load a model and replace the one in use, whose chats end. If loading fails, nothing changes.

        Where both do not fit into the memory together, the one in use is ended first, and comes back if the new one
        cannot be loaded.

        Raises:
            ModelError, FormatError, SettingError: as `loaded_model.load`; or it was cancelled.
            ChildProcessDiedError: its process died.
        """
        settings = config if isinstance(config, LoadConfig) else LoadConfig(**(config or {}))
        with self._one_load:
            old = self._current
            try:
                new = self._load(name, settings)
            except NotEnoughMemoryError as error:
                if old is None or error.needed > error.free + old.description.memory_bytes:
                    raise
                new = self._load_in_place_of(old, name, settings)
            self._current = new
            if old is not None:
                old.close()
            return new

    def guest(self, name: str) -> WorkerModel:
        """A guest beside the model in use, loaded if it is not there. The least recently used guest is closed for it.

        Raises:
            ModelError, FormatError: as `loaded_model.load`.
            ChildProcessDiedError: its process died.
        """
        with self._one_load:
            guests = dict(self._guests)
            found = guests.pop(name, None)
            while found is None:
                try:
                    found = self._load(name, LoadConfig())
                except NotEnoughMemoryError:
                    if not guests:
                        raise
                    guests.pop(next(iter(guests))).close()
                    self._guests = dict(guests)
            for leaving in list(guests)[: max(len(guests) - MAX_GUESTS + 1, 0)]:
                guests.pop(leaving).close()
            self._guests = {**guests, name: found}
            return found

    def here(self, name: str | None) -> WorkerModel | None:
        """The guest of that name if it is loaded; the model in use for None."""
        return self._current if name is None else self._guests.get(name)

    def cancel_loading(self) -> None:
        """End the load under way: who waits for it gets a ModelError, and the model in use stays."""
        new = self._new
        if new is not None:
            new.close(ModelError(CANCELLED))

    def unload(self) -> None:
        """End the model in use and all guests; their memory is free afterwards. Chats with them end with an error."""
        with self._one_load:
            leaving = [*self._guests.values(), *([self._current] if self._current is not None else [])]
            self._current, self._guests = None, {}
            for one in leaving:
                one.close()

    def close(self) -> None:
        """End everything, a load under way included."""
        self.cancel_loading()
        self.unload()

    def _load(self, name: str, config: LoadConfig) -> WorkerModel:
        new = self._new = WorkerModel(name, config, self._paths, self._memory_taken, self._run)
        try:
            new.load()
        except ChatAppError:
            new.close()
            raise
        finally:
            self._new = None
        return new

    def _load_in_place_of(self, old: WorkerModel, name: str, config: LoadConfig) -> WorkerModel:
        """Load a model after the old one was ended for it; the old one comes back if that fails."""
        old.suspend()
        try:
            return self._load(name, config)
        except ChatAppError:
            old.resume()
            raise

    def _memory_taken(self) -> dict[str, int]:
        """Device -> bytes that the loaded models take there."""
        taken: dict[str, int] = {}
        for one in (self._current, *self._guests.values()):
            if one is not None and (device := one.description.device) is not None:
                taken[device] = taken.get(device, 0) + one.description.memory_bytes
        return taken
