"""A model in a process of its own, as the app sees it: a `ReplyBackend` whose process is replaced when it dies."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace

from chat_app.config.loading import LoadConfig
from chat_app.config.paths import Paths
from chat_app.errors import ChatAppError, ChildProcessDiedError
from chat_app.inference.backend import ModelDescription, ReplyEnd, ReplyEvent, ReplyRequest
from chat_app.inference.worker.child import run_worker
from chat_app.inference.worker.process import CANCEL_POLL_SECONDS, Run, WorkerProcess

MAX_DEATHS, DEATHS_WITHIN_SECONDS = 3, 300.0
RETRY_ADVICE = "It is being loaded again; send your message again."
GIVEN_UP_ADVICE = "Load it again on the Models page, or choose another one."


class WorkerModel:
    """A model in a process of its own.

    When the process dies, the replies under way end with a sentence, the model is loaded again at once, and messages
    wait for that. After MAX_DEATHS within DEATHS_WITHIN_SECONDS it stays unloaded; every message is told why.

    Args:
        name: by which it is found.
        config: how it is loaded.
        paths: the home folder.
        taken: what the app's other models take on each device, asked before each load.
        run: what its process runs.
        clock: tells the time, in seconds.
    """

    def __init__(
        self,
        name: str,
        config: LoadConfig,
        paths: Paths,
        taken: Callable[[], Mapping[str, int]] = dict,
        run: Run = run_worker,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.name, self.config = name, config
        self._paths, self._taken, self._run, self._clock = paths, taken, run, clock
        self._changed = threading.Condition()  # Guards all that follows.
        self._process: WorkerProcess | None = None  # Also while it is loading.
        self._is_ready = False
        self._is_closed = False
        self._generation = 0  # Counts `suspend` and `close`: a thread that loads it again ends if one came meanwhile.
        self._problem: ChatAppError | None = None  # Why it stays unloaded.
        self._deaths: deque[float] = deque()
        self._description = ModelDescription(name, "folder", is_ready=False, window=0)

    @property
    def pid(self) -> int | None:
        """The id of its process; None while there is none."""
        with self._changed:
            return self._process.pid if self._process is not None else None

    @property
    def description(self) -> ModelDescription:
        """What is known about it; `problem` says why it stays unloaded."""
        with self._changed:
            problem = self._problem.sentence() if self._problem is not None else ""
            return replace(self._description, is_ready=self._is_ready, problem=problem)

    def load(self) -> None:
        """Start its process and load it.

        Raises:
            ModelError, FormatError, SettingError: as `loaded_model.load`.
            ChildProcessDiedError: the process died meanwhile.
            ChatAppError: it was closed meanwhile.
        """
        with self._changed:
            self._check_open()
            process = self._process = WorkerProcess(self._on_death, self._run)
            self._is_ready, self._problem = False, None
        try:
            description = process.load(self.name, self.config, self._paths, self._taken())
        except ChatAppError:
            process.close()
            with self._changed:
                if self._process is process:
                    self._process = None
            raise
        with self._changed:
            self._check_open()
            if self._process is not process:
                raise ChildProcessDiedError("The model's process ended as soon as the model was loaded.")
            self._description, self._is_ready = description, True
            self._changed.notify_all()

    def connect(self) -> None:
        """Wait until it can reply.

        Raises:
            ChatAppError: it stays unloaded, or was closed.
        """
        self._wait_ready(None)

    def stream(
        self, request: ReplyRequest, cancel_event: threading.Event | None = None
    ) -> Generator[ReplyEvent, None, None]:
        """A reply, as `ReplyBackend.stream` describes it."""
        started = time.perf_counter()
        process = self._wait_ready(cancel_event)
        if process is None:
            seconds = time.perf_counter() - started
            yield ReplyEnd("", "cancelled", 0, 0, self._description.window, seconds, seconds)
            return
        try:
            yield from process.stream(request, cancel_event)
        except ChildProcessDiedError as error:
            raise self._add_advice(error) from None

    def suspend(self) -> None:
        """End its process to make room. Replies under way end, messages wait for `resume` or `close`."""
        with self._changed:
            self._generation += 1
            process, self._process, self._is_ready = self._process, None, False
        if process is not None:
            process.close()

    def resume(self) -> None:
        """Load it again after `suspend`, in a thread."""
        with self._changed:
            arguments = (self._generation,)
        threading.Thread(target=self._reload, args=arguments, name="model reload", daemon=True).start()

    def close(self, reason: ChatAppError | None = None) -> None:
        """End its process. Replies under way end with an error, as do all later messages.

        Args:
            reason: what who waits for them is told.
        """
        with self._changed:
            self._is_closed, self._is_ready = True, False
            self._generation += 1
            process, self._process = self._process, None
            self._changed.notify_all()
        if process is not None:
            process.close(reason)

    def _check_open(self) -> None:
        if self._is_closed:
            raise ChatAppError("The model is no longer loaded.", advice="Ask again.")

    def _wait_ready(self, cancel_event: threading.Event | None) -> WorkerProcess | None:
        """The process, once the model is loaded; None if the caller cancelled meanwhile."""
        with self._changed:
            while True:
                self._check_open()
                if self._problem is not None:
                    raise ChildProcessDiedError(self._problem.what, advice=self._problem.advice)
                if self._is_ready and self._process is not None:
                    return self._process
                if cancel_event is not None and cancel_event.is_set():
                    return None
                self._changed.wait(CANCEL_POLL_SECONDS)

    def _on_death(self, process: WorkerProcess, error: ChatAppError) -> None:
        """Called by the reading thread of a process that has died."""
        with self._changed:
            if self._process is not process or self._is_closed:
                return
            was_ready, self._process, self._is_ready = self._is_ready, None, False
            if not was_ready:
                return  # `load` raises the error, and its caller decides.
            self._count_death(error)
            if self._problem is None:
                self.resume()

    def _count_death(self, error: ChatAppError) -> None:
        """Remember that the process died now; give the model up if that happens too often."""
        now = self._clock()
        self._deaths.append(now)
        while now - self._deaths[0] > DEATHS_WITHIN_SECONDS:
            self._deaths.popleft()
        if len(self._deaths) >= MAX_DEATHS:
            minutes = round(DEATHS_WITHIN_SECONDS / 60)
            what = f"{error.what} That was {len(self._deaths)} times within {minutes} minutes, so it stays unloaded."
            self._give_up(ChildProcessDiedError(what, advice=GIVEN_UP_ADVICE))

    def _give_up(self, problem: ChatAppError) -> None:
        with self._changed:
            self._problem = problem
            self._changed.notify_all()

    def _reload(self, generation: int) -> None:
        """The thread: load the model again until it is there, or has died too often."""
        while True:
            try:
                return self.load()
            except ChatAppError as error:
                with self._changed:
                    if self._generation != generation:
                        return  # It was suspended or closed.
                    if isinstance(error, ChildProcessDiedError):
                        self._count_death(error)
                    else:
                        what = f"The model could not be loaded again: {error.what}"
                        self._give_up(ChatAppError(what, advice=GIVEN_UP_ADVICE))
                    if self._problem is not None:
                        return

    def _add_advice(self, error: ChatAppError) -> ChatAppError:
        """The error with what happens next."""
        with self._changed:
            if self._is_closed:
                return error
            if self._problem is not None:
                return ChildProcessDiedError(self._problem.what, advice=self._problem.advice)
        return ChildProcessDiedError(error.what, advice=RETRY_ADVICE)
