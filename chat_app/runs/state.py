"""The state of a run on disk: where it stands, changed under a lock, so that of two changes neither is lost.

A state is compared and replaced in one piece: a process changes what it has seen, and nothing newer.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from chat_app.runs.files import hold, read_json, write_json
from chat_app.system.disk_errors import is_disk_full

Status = Literal["queued", "running", "stopping", "stopped", "interrupted", "failed", "done"]
STATUSES: tuple[Status, ...] = ("queued", "running", "stopping", "stopped", "interrupted", "failed", "done")
ACTIVE: tuple[Status, ...] = ("running", "stopping")
RESUMABLE: tuple[Status, ...] = ("stopped", "interrupted", "failed")
Decision = Literal["", "changed-data", "restart"]
DECISIONS: tuple[Decision, ...] = ("", "changed-data", "restart")
SPARE_BYTES = 4096
_LOCK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class State:
    """Where a run stands.

    Attributes:
        reason: one sentence for a person.
        time: when this was written, in seconds since 1970.
        decision: what a person has to allow before the run can go on: that its changed conversations are learned, or
            that it begins again from the first step.
    """

    status: Status
    reason: str = ""
    step: int = 0
    total_steps: int = 0
    time: float = 0.0
    decision: Decision = ""


class StateFile:
    """The file state.json of a run folder.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path):
        self._path, self._spare, self._lock = folder / "state.json", folder / ".spare", folder / ".state.lock"

    def read(self) -> State | None:
        """The state as it was written; None where it is missing or damaged."""
        values = read_json(self._path)
        if not isinstance(values, dict) or values.get("status") not in STATUSES:
            return None
        decision = values.get("decision", "")
        return State(
            values["status"],
            str(values.get("reason") or ""),
            _whole(values.get("step")),
            _whole(values.get("total_steps")),
            _number(values.get("time")),
            decision if decision in DECISIONS else "",
        )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the right to change the state."""
        with hold(self._lock, "The state of this run is being changed.", _LOCK_SECONDS):
            yield

    def write(
        self,
        status: Status,
        reason: str = "",
        step: int | None = None,
        total_steps: int | None = None,
        decision: Decision = "",
    ) -> None:
        """Write a state whatever stands there; steps that are not given stay."""
        with self.locked():
            self.write_locked(status, reason, step, total_steps, decision)

    def replace(self, seen: State | Collection[Status], status: Status, reason: str = "") -> bool:
        """Write a state only while the old one is the one that was seen, or has one of these statuses. A damaged one
        counts as failed.

        Returns:
            Whether it was written.
        """
        with self.locked():
            now = self.read()
            if isinstance(seen, State):
                is_expected = now == seen
            else:
                is_expected = (now.status if now is not None else "failed") in seen
            if not is_expected:
                return False
            self.write_locked(status, reason)
            return True

    def write_locked(
        self,
        status: Status,
        reason: str = "",
        step: int | None = None,
        total_steps: int | None = None,
        decision: Decision = "",
    ) -> None:
        """As `write`, for a caller that holds the lock."""
        before = self.read() or State("queued")
        state = State(
            status,
            reason,
            before.step if step is None else step,
            before.total_steps if total_steps is None else total_steps,
            time.time(),
            decision,
        )
        try:
            write_json(self._path, asdict(state))
        except OSError as error:
            if not is_disk_full(error) or not self._spare.is_file():
                raise
            self._write_into_spare(asdict(state))

    def keep_space(self) -> None:
        """Keep space aside, so that the last state can be written on a full disk."""
        if not self._spare.is_file():
            with open(self._spare, "wb") as file:
                file.write(b"\n" * SPARE_BYTES)
                os.fsync(file.fileno())

    def _write_into_spare(self, values: dict[str, Any]) -> None:
        """Write over the spare file, which needs no further space, and let it take the place of the state."""
        values = {**values, "reason": values["reason"][: SPARE_BYTES // 8]}  # A character is at most six bytes here.
        text = json.dumps(values, ensure_ascii=False).encode("utf-8", "replace")
        with open(self._spare, "rb+") as file:
            file.write(text + b"\n" * (SPARE_BYTES - len(text)))
            os.fsync(file.fileno())
        os.replace(self._spare, self._path)


def _whole(value: Any) -> int:
    return int(_number(value))


def _number(value: Any) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else 0.0
