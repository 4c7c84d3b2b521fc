"""The job queue of training runs: a thread that starts one child process after the other and supervises it.

The child writes the run folder; this file starts it, asks it to stop, and explains an end that the child could not
explain itself. Nothing here is needed to know the state of a run: that is on the disk.
"""

from __future__ import annotations

import logging
import math
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from chat_app.config.paths import Paths
from chat_app.errors import RunError
from chat_app.runs.files import hold, read_json, write_json
from chat_app.runs.run import ACTIVE, ENDED_SILENTLY, RESUMABLE, Run, State, list_runs
from chat_app.system.installation import child_environment

log = logging.getLogger(__name__)

LOOK_EVERY = 0.5
SHUTDOWN_SECONDS = 20.0
PLACE, QUEUE_LOCK = "place.json", "queue.lock"


class Jobs:
    """The queue of this program's training runs; one is trained at a time in a home folder.

    Args:
        paths: the home whose queued runs are trained. Runs wait on the disk, so a restart forgets none.
    """

    def __init__(self, paths: Paths):
        self._paths = paths
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._child_lock = threading.Lock()
        self._order_lock = threading.Lock()  # Held while the order changes.
        self._child: subprocess.Popen[bytes] | None = None
        self._child_run: Run | None = None
        self._queued = State("queued")  # The state in which the child's run was found.
        self._refused: set[tuple[str, float]] = set()  # Runs whose folder takes neither a child nor a reason.
        self._thread = threading.Thread(target=self._work, name="training queue", daemon=True)
        self._thread.start()

    def submit(self, run: Run) -> None:
        """Put a prepared run, or one that stopped, at the end of the queue.

        Raises:
            RunError: it is being trained, or it is done.
        """
        state, fault = run.state(), run.find_fault()
        if state.status not in ("queued", *RESUMABLE):
            raise RunError(f"The run {run.id} is {state.status}.", advice="Start a new one.")
        if fault or run.is_unprepared:
            raise RunError(fault or state.reason)
        with self._order_lock:  # Without its place it would stand where it was made: before those that wait already.
            _set_place(run, time.time())
            if not run.replace_state(("queued", *RESUMABLE), "queued", "Waiting for its turn."):
                raise RunError(f"Another process has begun to train the run {run.id}.")
            run.note(queued=True)
        self._wake.set()

    def stop(self, run: Run) -> None:
        """Ask a run to stop: within one step if it is being trained, at once if it waits.

        Raises:
            RunError: there is nothing to stop.
        """
        # Either before its child claims it or after: the state is changed in one piece.
        if run.replace_state(("queued",), "stopped", "Stopped before it began."):
            run.note(queued=False)
        elif not run.stop_active("Finishing the step it is in."):
            raise RunError(f"The run {run.id} is {run.state().status} already.")

    def waiting(self) -> list[Run]:
        """The runs that wait for their turn, the next one first. Read from the disk."""
        found = []
        for run in list_runs(self._paths.runs):
            try:
                is_ours = run.state().status == "queued" and run.about().get("queued") is True
            except RunError:
                continue
            if is_ours:
                found.append((_place(run), run.id, run))
        return [run for _, _, run in sorted(found, key=lambda one: one[:2])]

    def move(self, run: Run, by: int, among: Sequence[Run] | None = None) -> None:
        """Let a waiting run change places with the one before it (by=-1) or after it (by=1).

        Args:
            among: the runs whose places may change, such as those of one person; default all. The others keep theirs.

        Raises:
            RunError: it does not wait.
        """
        with self._order_lock:
            allowed = None if among is None else {one.id for one in among}
            waiting = [one for one in self.waiting() if allowed is None or one.id in allowed]
            at = next((at for at, one in enumerate(waiting) if one.id == run.id), None)
            if at is None:
                raise RunError("This run does not wait any more.")
            other = at + (1 if by > 0 else -1)
            if not 0 <= other < len(waiting):
                return
            places = [_place(one) for one in (run, waiting[other])]
            if places[0] == places[1]:
                places[1] += math.copysign(1e-3, by)
            _set_place(run, places[1])
            _set_place(waiting[other], places[0])

    def close(self) -> None:
        """End the queue. A run that is being trained saves a checkpoint and shows as interrupted."""
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout=SHUTDOWN_SECONDS + 5)

    def _work(self) -> None:
        while not self._closing.is_set():
            self._wake.wait(timeout=LOOK_EVERY * 10)
            self._wake.clear()
            try:
                with hold(self._paths.home / QUEUE_LOCK, "Another program trains the queue of this home.", 0):
                    while not self._closing.is_set() and (run := self._next()) is not None:
                        self._train(run)
            except RunError:
                continue  # That program trains what waits here, too.
            except Exception:  # The queue must outlive a broken run folder.
                log.exception("the training queue met an error")
        self._end_child()

    def _next(self) -> Run | None:
        """The first that waits, unless a process trains in this home already."""
        if any(run.state().status in ACTIVE for run in list_runs(self._paths.runs)):
            return None
        with self._order_lock:
            return next((run for run in self.waiting() if (run.id, run.state().time) not in self._refused), None)

    def _train(self, run: Run) -> None:
        """Start the child and wait until it, or this program, ends."""
        queued = run.state()
        if queued.status != "queued":
            return
        try:
            child = _start(run, self._paths)
        except OSError as error:
            self._refuse(run, queued, f"The training cannot be started: {error.strerror} ({error.filename}).")
            return
        with self._child_lock:
            self._child, self._child_run, self._queued = child, run, queued
        while child.poll() is None and not self._closing.is_set():
            try:
                child.wait(timeout=LOOK_EVERY)
            except subprocess.TimeoutExpired:
                continue
        if child.poll() is None:
            return  # The program is closing: `_end_child` sees to it.
        _close_pipe(child)
        with self._child_lock:
            self._child = self._child_run = None
        self._explain_end(run, child.returncode, queued)

    def _end_child(self) -> None:
        """Close the child's standard input: it saves a checkpoint and ends. After SECONDS_TO_END it is killed."""
        with self._child_lock:
            child, run, queued = self._child, self._child_run, self._queued
        if child is None or run is None:
            return
        _close_pipe(child)
        try:
            child.wait(timeout=SHUTDOWN_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        self._explain_end(run, child.returncode, queued)

    def _explain_end(self, run: Run, code: int, queued: State) -> None:
        """Write how the child ended, where it could not do so itself. What was written since it was started stays."""
        state = run.state()
        if state == queued:
            log_file = f"The reason is at the end of {run.log}."
            self._refuse(run, queued, f"The training process ended at once. {log_file}")
        elif state.status == "interrupted" and state.reason == ENDED_SILENTLY and code not in (0, 1, 2):
            name = signal.Signals(-code).name if code < 0 and -code in set(signal.Signals) else f"code {code}"
            run.replace_state(
                state,
                "interrupted",
                f"The training process was ended from outside ({name}); often that is a lack of memory. "
                "It can go on from its last checkpoint.",
            )

    def _refuse(self, run: Run, queued: State, reason: str) -> None:
        """Let a run fail that cannot be trained. Where not even that can be written, it is passed over from now on."""
        self._refused.add((run.id, queued.time))
        try:
            run.replace_state(queued, "failed", reason)
        except (OSError, RunError):
            log.exception("the run %s cannot be written to", run.id)


def _start(run: Run, paths: Paths) -> subprocess.Popen[bytes]:
    """Start the child process of a run. The end of its standard input tells it that this program has ended."""
    environment = {**child_environment(), "CHAT_APP_HOME": str(paths.home), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "chat_app", "train", "--run", str(run.folder), "--supervised"]
    with open(run.log, "ab") as output:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=run.folder
        )


def _place(run: Run) -> float:
    """Where a run stands in the queue: the lower, the sooner. In a file of its own, which only the queue
    writes; without one a run stands where its state was written."""
    value = read_json(run.folder / PLACE)
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else run.state().time


def _set_place(run: Run, place: float) -> None:
    write_json(run.folder / PLACE, place)


def _close_pipe(child: subprocess.Popen[bytes]) -> None:
    if child.stdin is not None:
        child.stdin.close()
