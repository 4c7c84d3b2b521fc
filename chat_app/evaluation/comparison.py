"""Two evaluations side by side: what each number means, which way is better, and what changed, in words. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Direction = Literal["lower", "higher", "neither"]
SAME = 0.01  # A change of less than a hundredth is none: other replies would have moved the number as far.


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of an evaluation.

    Attributes:
        name: of the field of `evaluate.Evaluation`.
        label: for people.
        better: which way is better.
        meaning: one sentence.
        digits: shown after the decimal point.
        percent: whether it is a share that is shown in percent.
    """

    name: str
    label: str
    better: Direction
    meaning: str
    digits: int = 2
    percent: bool = False


MEASURES = (
    Measure("perplexity", "Perplexity", "lower", "Among how many words it hesitates before each one that was said.", 1),
    Measure("bits_per_byte", "Bits per byte", "lower", "How much what was said surprises it, letter by letter.", 3),
    Measure("bleu", "BLEU", "higher", "How much its replies share with what was really said, 0 to 100.", 1),
    Measure("reward", "Expected words", "higher", "The share of the right reply's words that it says.", 0, True),
    Measure("penalty", "Repeated words", "lower", "The share of words that repeat the word before them.", 1, True),
    Measure("distinct_1", "Different words", "higher", "How many of its words are different ones.", 0, True),
    Measure(
        "distinct_2", "Different pairs", "higher", "The same of pairs of words: low means that it repeats.", 0, True
    ),
    Measure("reply_words", "Words a reply", "neither", "How long its replies are.", 1),
)


@dataclass(frozen=True, slots=True)
class Change:
    """One number before and after.

    Attributes:
        measure: which.
        before, after: None where it was not measured.
        verdict: "better", "worse", "the same", "longer", "shorter", or "" where nothing can be said.
        arrow: "↑", "↓", "=" or "".
        share: of `before` by which it changed: 0.1 is a tenth more; None where that cannot be said.
    """

    measure: Measure
    before: float | None
    after: float | None
    verdict: str
    arrow: str
    share: float | None


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """What changed between two evaluations on the same conversations.

    Args:
        before, after: the fields of an `Evaluation`, such as its `as_dict()`.
    """
    is_same_vocabulary = before.get("learned_tokens") == after.get("learned_tokens")
    return [_change(one, before, after, one.name != "perplexity" or is_same_vocabulary) for one in MEASURES]


def _change(measure: Measure, before: Mapping[str, Any], after: Mapping[str, Any], comparable: bool) -> Change:
    first, second = before.get(measure.name), after.get(measure.name)
    if first is None or second is None or not comparable:
        return Change(measure, first, second, "", "", None)
    share = (second - first) / first if first else None
    if first == second or abs(second - first) < SAME * max(abs(first), abs(second)):
        return Change(measure, first, second, "the same", "=", share)
    rose = second > first
    if measure.better == "neither":
        verdict = "longer" if rose else "shorter"
    else:
        verdict = "better" if rose == (measure.better == "higher") else "worse"
    return Change(measure, first, second, verdict, "↑" if rose else "↓", share)


def summary(changes: Sequence[Change]) -> str:
    """The whole comparison in one sentence, led by bits per byte: it is measured on every word, not on some replies."""
    leading = next((one for one in changes if one.measure.name == "bits_per_byte"), None)
    if leading is None or not leading.verdict or leading.share is None:
        return ""
    others = [one for one in changes if one is not leading and one.verdict in ("better", "worse")]
    better, worse = (sum(one.verdict == word for one in others) for word in ("better", "worse"))
    rest = (
        f" Of the other numbers {better} {'is' if better == 1 else 'are'} better and {worse} worse." if others else ""
    )
    if leading.verdict == "the same":
        return f"What was said surprises it as much as before: neither better nor worse.{rest}"
    how = f"{abs(leading.share):.0%} {'less' if leading.share < 0 else 'more'}".replace("%", " %")
    return f"What was said surprises it {how} than before: it is {leading.verdict}.{rest}"


def figure(measure: Measure, value: float | None) -> str:
    """A number as it is shown; a dash where there is none."""
    if value is None:
        return "–"
    return f"{100 * value:,.{measure.digits}f} %" if measure.percent else f"{value:,.{measure.digits}f}"


def as_csv(columns: Mapping[str, Mapping[str, Any]]) -> str:
    """A table with a row for each number and a column for each model; opened by any spreadsheet.

    Args:
        columns: name of a model -> its evaluation's fields. With two, the change stands in a last column.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    verdicts: dict[str, str] = {}
    if len(columns) == 2:
        verdicts = {one.measure.name: one.verdict for one in compare(*columns.values())}
    writer.writerow(["measure", *map(_cell, columns), *(["change"] if verdicts else [])])
    names = [one.name for one in MEASURES] + ["conversations", "learned_tokens", "replies", "bleu_tokenizer"]
    for name in names:
        values = ["" if found.get(name) is None else found[name] for found in columns.values()]
        writer.writerow([name, *values, *([verdicts.get(name, "")] if verdicts else [])])
    return text.getvalue()


def _cell(text: str) -> str:
    """A name that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
