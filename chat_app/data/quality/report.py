"""The result of a quality check: counts, histograms, findings; and the accumulators that collect them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from chat_app.data.readers.types import Part

MAX_SPOTS = 5
TURN_EDGES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 15, 20, 50, 100)
LENGTH_EDGES = (0, 16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096, 16_384)


@dataclass(frozen=True)
class Histogram:
    """A histogram: `counts[i]` values are in [edges[i], edges[i + 1]); the last bin has no upper end."""

    edges: tuple[int, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Spot:
    """An example of a finding: its file and line, and an excerpt on one line with private data masked."""

    file: str
    line: int
    quote: str


@dataclass(frozen=True)
class Finding:
    """Something in the data that the user should know of.

    Attributes:
        name: the identifier of its kind, for programs.
        title: what was found, in a few words.
        count: the number of turns, values or conversations, as the title says.
        conversations: the number of conversations with at least one.
        spots: the first examples.
        advice: what it does to a model, and what can be done.
        repair: the name of the repair that removes it, or None.
    """

    name: str
    title: str
    count: int
    conversations: int
    spots: tuple[Spot, ...]
    advice: str
    repair: str | None


@dataclass(frozen=True)
class Check:
    """The result of a quality check.

    Attributes:
        conversations: the number of conversations.
        turns: the number of turns, without system texts.
        tokens: the number of tokens of all texts, with system texts; None without a tokenizer.
        fitting: the share of conversations that fit into the context window whole, 0 to 1; None if it is unknown.
        languages: (name, share of a sample from 0 to 1), the most common first; "other" has the rare and unclear ones.
        turns_histogram: turns per conversation.
        length_histogram: length of a conversation, in `length_unit`.
        length_unit: "tokens", or "characters" without a tokenizer.
        findings: in the order of `issue_types.KINDS`.
        parts: the number of conversations of each part.
    """

    conversations: int
    turns: int
    tokens: int | None
    fitting: float | None
    languages: tuple[tuple[str, float], ...]
    turns_histogram: Histogram
    length_histogram: Histogram
    length_unit: Literal["tokens", "characters"]
    findings: tuple[Finding, ...]
    parts: dict[Part, int]

    def to_dict(self) -> dict[str, Any]:
        """The values as a dictionary for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Check:
        """The check that `to_dict` converted.

        Raises:
            KeyError, TypeError: the dictionary has another structure.
        """
        findings = tuple(
            Finding(**{**one, "spots": tuple(Spot(**spot) for spot in one["spots"])}) for one in values["findings"]
        )
        histograms = {
            name: Histogram(tuple(values[name]["edges"]), tuple(values[name]["counts"]))
            for name in ("turns_histogram", "length_histogram")
        }
        languages = tuple((str(name), float(share)) for name, share in values["languages"])
        return cls(**{**values, **histograms, "findings": findings, "languages": languages})

    def find(self, name: str) -> Finding | None:
        """The finding of that name, or None if there is none."""
        return next((one for one in self.findings if one.name == name), None)


class Tally:
    """An accumulator for a histogram with the given edges."""

    def __init__(self, edges: Sequence[int]) -> None:
        self._edges = tuple(edges)
        self._counts = [0] * len(self._edges)

    def add(self, value: int) -> None:
        self._counts[max(bisect_right(self._edges, value) - 1, 0)] += 1

    def build_histogram(self) -> Histogram:
        return Histogram(self._edges, tuple(self._counts))


class Record:
    """An accumulator for one kind of finding."""

    def __init__(self) -> None:
        self.count = 0
        self.conversations = 0
        self.spots: list[Spot] = []

    @property
    def wants_spot(self) -> bool:
        return len(self.spots) < MAX_SPOTS
