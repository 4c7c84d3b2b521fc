"""Diagnosis of a loss curve: what it says in plain words, and what to do. Sees numbers only, no files and no page.

- The *level* is the median of the newest training points (a sixth of them, 5 to 25): one odd batch changes nothing.
- The *start* is the median of the first five points; the *origin* is the loss before anything was learned.
- The *noise* is the standard deviation of a point, from the median absolute difference of neighbours.
- The *margin* is MARGIN_ERRORS standard errors, at least MARGIN_SHARE of the origin.

The rules, in their order; the first that holds is the diagnosis. The constants are those of `loss_curves`.

| rule          | condition                                                              | constants                   |
|---------------|------------------------------------------------------------------------|-----------------------------|
| diverging     | one of the newest losses is not finite                                 |                             |
|               | ROW points in a row lie high above the start, the level has not        | HIGH_SHARE, HIGH_NOISE,     |
|               | come down since                                                        | RECOVERED                   |
|               | among the first points, two in a row lie far above the first two       | EARLY_RISE                  |
|               | the newest evaluation is worse than the first, the level above start   | VALID_RISE                  |
|               | the level is a margin above the origin                                 | MARGIN_SHARE, MARGIN_ERRORS |
|               | the level has lost much of what it had gained                          | LOST_SHARE                  |
| too early     | few points and few evaluations                                         | FEWEST_POINTS,              |
|               |                                                                        | FEWEST_EVALUATIONS          |
|               | the learning rate still warms up, and nothing has been learned         |                             |
| memorising    | the best evaluation is two or more ago, the newest is worse, and the   | WORSE_SHARE, WORSE_NATS     |
|               | training loss has not risen since                                      |                             |
| stuck         | many points or evaluations after the warm-up, nothing has been learned | STUCK_POINTS,               |
|               |                                                                        | STUCK_EVALUATIONS           |
| done learning | the newest third of the evaluations hardly improved the best           | FLAT_SHARE, FLAT_GAIN       |
|               | without validation: the newest third of the training points hardly     | FLAT_TRAIN, CLEAR_SHARE     |
|               | fell, and the noise is small enough to see it                          |                             |
| learning      | a curve has fallen: the level is below the start,                      | LEARNED_ERRORS,             |
|               |                                                                        | LEARNED_SHARE               |
|               | or an evaluation is better than the first                              | IMPROVED                    |
| too early     | otherwise                                                              |                             |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from chat_app.runs.loss_curves import LossCurves, to_number
from chat_app.runs.run import Status

Kind = Literal["too early", "learning", "memorising", "stuck", "diverging", "done learning"]
Action = Literal["", "keep-best-and-stop", "more-epochs", "lower-rate"]

GOOD_ANSWERS, FAIR_ANSWERS = 0.8, 0.5  # Shares of right answers to questions that were kept aside.
RUNNING: tuple[Status, ...] = ("queued", "running", "stopping")


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the curves say.

    Attributes:
        kind: in a word or two.
        sentence: what is happening.
        advice: what to do; empty where there is nothing to do.
        action: what a button beside it should offer.
    """

    kind: Kind
    sentence: str
    advice: str = ""
    action: Action = ""


def diagnose(
    metrics: Sequence[Mapping[str, Any]],
    *,
    total_steps: int,
    has_validation: bool,
    status: Status,
    keeps_last: bool = False,
) -> Diagnosis:
    """Diagnose a training by its curves so far, by the rules above; and by its answers, where there are any.

    A loss tells how sure a model is of each word, and not whether its answer is right: where questions were kept aside
    whose answers the model was taught, how many it answers right counts more than the curves of a model that learns.

    Args:
        metrics: the lines of the run, oldest first ("step", "train_loss", "valid_loss", "learning_rate"), in nats.
        total_steps: of the whole training; 0 where it is not known.
        has_validation: whether conversations are kept aside; without them learning by heart cannot be seen.
        status: of the run.
        keeps_last: whether the last model is the result, and not that of the best evaluation.
    """
    said = _diagnose_curves(metrics, total_steps, has_validation, status, keeps_last)
    answers = newest_answers(metrics)
    if answers is None or said.kind in ("diverging", "stuck", "too early"):
        return said
    return _judge_answers(said, *answers, is_running=status in RUNNING)


def newest_answers(metrics: Sequence[Mapping[str, Any]]) -> tuple[int, int] | None:
    """How many questions kept aside were answered right at the newest evaluation, and how many there are."""
    for line in reversed(metrics):
        right, asked = to_number(line.get("answers_right")), to_number(line.get("answers_asked"))
        if asked > 0 and 0 <= right <= asked:
            return round(right), round(asked)
    return None


def _judge_answers(said: Diagnosis, right: int, asked: int, *, is_running: bool) -> Diagnosis:
    facts = f"It answers {right} of {asked} questions right that it has not read in these words."
    if is_running:
        return replace(said, sentence=f"{said.sentence} {facts}")
    if right >= GOOD_ANSWERS * asked:
        return Diagnosis("done learning", facts, "Chat with the model.")
    if right >= FAIR_ANSWERS * asked:
        return Diagnosis(
            "learning",
            facts,
            "See which it gets wrong, and add more wordings of those questions before you teach again.",
        )
    return Diagnosis(
        "memorising",
        f"It has learned its conversations by heart. {facts}",
        "Give each answer at least five questions in different words, then teach again.",
    )


def _diagnose_curves(
    metrics: Sequence[Mapping[str, Any]], total_steps: int, has_validation: bool, status: Status, keeps_last: bool
) -> Diagnosis:
    curves = LossCurves.of(metrics)
    is_running = status in RUNNING
    if curves.diverges():
        return Diagnosis(
            "diverging",
            "The training loss rises instead of falling: the steps are too big, and the model forgets what it knew.",
            "Start again with a lower learning rate.",
            "lower-rate",
        )
    if not curves.is_long_enough() or (curves.warms_up() and not curves.has_learned()):
        return _too_early(is_running, status, total_steps)
    if curves.memorises() and not keeps_last:
        return _memorising(curves, is_running)
    if curves.is_stuck(has_validation):
        return Diagnosis(
            "stuck",
            "Neither curve falls: the model learns nothing from these conversations, or knows them already.",
            "Try a higher learning rate (0 chooses one that suits the model), or other conversations.",
        )
    if not curves.has_learned():
        return _too_early(is_running, status, total_steps)
    if keeps_last and status == "done":
        return _learned_all(has_validation)
    if curves.is_flat(has_validation):
        return _done_learning(is_running)
    return _learning(curves, is_running, status, has_validation)


def _too_early(is_running: bool, status: Status, total_steps: int) -> Diagnosis:
    if status == "done":
        steps = f"{total_steps:,} steps" if total_steps else "so few steps"
        return Diagnosis("too early", f"After {steps} nothing can be told yet.", "Let it learn longer.", "more-epochs")
    return Diagnosis("too early", "It is too early to tell.", "Wait a little." if is_running else "")


def _memorising(curves: LossCurves, is_running: bool) -> Diagnosis:
    step, _ = curves.best
    if step == 0:
        return Diagnosis(
            "memorising",
            "It learns these conversations by heart: on others it does worse than before the training.",
            "Use a lower learning rate, or more conversations.",
            "lower-rate",
        )
    return Diagnosis(
        "memorising",
        f"It has begun to learn by heart: on conversations it did not read it was best at step {step:,}.",
        "Stop now: the model of that step is kept."
        if is_running
        else "The model of that step is kept. Ask it in words that are not in the file before you rely on it.",
        "keep-best-and-stop" if is_running else "",
    )


def _done_learning(is_running: bool) -> Diagnosis:
    return Diagnosis(
        "done learning",
        "It has learned what these conversations can teach: the curves are flat.",
        "You can stop now and keep the best model." if is_running else "Chat with the model.",
        "keep-best-and-stop" if is_running else "",
    )


def _learned_all(has_validation: bool) -> Diagnosis:
    tested = "" if has_validation else " None was kept aside, so nothing tells how it answers other questions."
    return Diagnosis(
        "done learning",
        f"It has learned all of these conversations.{tested}",
        "Ask it in your own words, and add more wordings of what it gets wrong.",
    )


def _learning(curves: LossCurves, is_running: bool, status: Status, has_validation: bool) -> Diagnosis:
    if not has_validation:
        sentence = "It is learning: the training loss falls. Nothing was kept aside to see whether it learns by heart."
    elif curves.generalises():
        sentence = "It is learning, and gets better on conversations it did not read, too."
    else:
        sentence = "The training loss falls; on conversations it did not read nothing has changed so far."
    if is_running:
        return Diagnosis("learning", sentence, "Let it go on.")
    if status == "done" and (curves.generalises() or not has_validation):
        return Diagnosis(
            "learning", sentence, "It was still getting better at the end: more epochs may help.", "more-epochs"
        )
    return Diagnosis("learning", sentence)
