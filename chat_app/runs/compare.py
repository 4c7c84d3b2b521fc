"""Several runs beside each other: their validation losses by step, and the settings in which they differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from chat_app.config.training import TrainConfig
from chat_app.errors import RunError
from chat_app.runs.diagnosis import newest_answers
from chat_app.runs.run import Run
from chat_app.runs.used_settings import try_used_settings

MOST = 8


@dataclass(frozen=True, slots=True)
class Difference:
    """One row of the table: what is called by `name`, and its value in each run, in their order."""

    name: str
    values: tuple[str, ...]


def check_count(count: int) -> None:
    """Whether so many runs can be compared.

    Raises:
        RunError: fewer than two, or more than can be told apart.
    """
    if count < 2:
        raise RunError("There is nothing to compare yet.", advice="Tick two runs or more.")
    if count > MOST:
        raise RunError(f"These are {count} runs.", advice=f"Tick at most {MOST}.")


def loss_curve(run: Run) -> list[tuple[int, float]]:
    """(step, validation loss) of every evaluation; the training loss where nothing was kept aside."""
    metrics = run.metrics()
    for name in ("valid_loss", "train_loss"):
        found = [(line["step"], line[name]) for line in metrics if name in line and isinstance(line.get("step"), int)]
        if found:
            return found
    return []


def loss_before(metrics: Sequence[Mapping[str, Any]]) -> float | None:
    """The validation loss of the model that a run started from."""
    return next((loss for step, loss in _evaluations(metrics) if step == 0), None)


def best_evaluation(metrics: Sequence[Mapping[str, Any]]) -> tuple[int, float] | None:
    """Step and loss of the best evaluation: of the model that a run keeps.

    The model that it started from is no result of the run, even where it was better.
    """
    found = [(loss, step) for step, loss in _evaluations(metrics) if step > 0]
    return min(found)[::-1] if found else None


def _evaluations(metrics: Sequence[Mapping[str, Any]]) -> list[tuple[int, float]]:
    lines = [(line.get("step"), line.get("valid_loss")) for line in metrics]
    return [(step, loss) for step, loss in lines if isinstance(step, int) and isinstance(loss, float)]


def describe_best(metrics: Sequence[Mapping[str, Any]]) -> str:
    """The best loss, or nothing if there is none; with a word of warning where training made the model worse."""
    best, before = best_evaluation(metrics), loss_before(metrics)
    if best is None:
        return ""
    worse = ", worse than before the training" if before is not None and best[1] > before else ""
    return f"{best[1]:.4f} nats a token, at step {best[0]:,}{worse}"


def list_differences(runs: Sequence[Run], name_model: Callable[[str], str] = str) -> list[Difference]:
    """The results of the runs, their data where it is not the same, and the settings that are not, as they were used.

    Args:
        name_model: turns a model's name into the one to show.
    """
    metrics = [run.metrics() for run in runs]
    rows = [
        Difference("Best validation loss", tuple(describe_best(one) or "-" for one in metrics)),
        Difference("Steps done", tuple(f"{run.state().step:,}" for run in runs)),
        Difference("Right answers in other words", tuple(_answers(one) for one in metrics)),
        Difference("Validation loss before", tuple(_loss(loss_before(one)) for one in metrics)),
    ]
    abouts = [_about(run) for run in runs]
    data = (("Files", "files"), ("Conversations to learn", "train_conversations"), ("Format", "format"))
    rows += [Difference(label, tuple(_written(about.get(name)) for about in abouts)) for label, name in data]
    plans = [about.get("plan") or {} for about in abouts]
    rows.append(Difference("What was learned", tuple(str(plan.get("words", "")) or "-" for plan in plans)))
    used = [try_used_settings(run) for run in runs]
    used = [{**values, "model": name_model(values["model"])} if values else {} for values in used]
    for one in fields(TrainConfig):
        label = str(one.metadata.get("label") or one.name)
        rows.append(Difference(label, tuple(_written(values.get(one.name)) for values in used)))
    always = 2
    return rows[:always] + [row for row in rows[always:] if len(set(row.values)) > 1]


def _answers(metrics: Sequence[Mapping[str, Any]]) -> str:
    found = newest_answers(metrics)
    return f"{found[0]} of {found[1]}" if found else "-"


def _loss(loss: float | None) -> str:
    return "-" if loss is None else f"{loss:.4f}"


def _about(run: Run) -> dict[str, Any]:
    try:
        return run.about()
    except RunError:
        return {}


def _written(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, (list, tuple)):
        return ", ".join(str(one) for one in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
