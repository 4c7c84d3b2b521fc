"""What a check of conversations gives: counts, histograms, findings. Knows nothing of how anything is found."""

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
    """How often values lie where: `counts[i]` from `edges[i]` up to, not including, `edges[i + 1]`; the last has no
    end."""

    edges: tuple[int, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Spot:
    """One example: where it stands, and a few words of it on one line, with private data masked."""

    file: str
    line: int
    quote: str


@dataclass(frozen=True)
class Finding:
    """Something in the data that a person should know of.

    Attributes:
        name: for programs; the same in every check.
        title: what it is, in a few words.
        count: how many there are: turns, values or conversations, as the title says.
        conversations: how many conversations have at least one.
        spots: the first of them.
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
    """All that was found out about a set of conversations.

    Attributes:
        turns: of all conversations, system texts not counted.
        tokens: of all texts, system texts included; None if nobody could count them.
        fitting: the share of conversations that fit the model's window whole, 0 to 1; None if the window is unknown.
        languages: (name, share of a sample, 0 to 1), the most common first; "other" is what was rare or unclear.
        turns_histogram: of turns per conversation.
        length_histogram: of the length of a conversation, in `length_unit`.
        parts: how many conversations are meant for what.
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
        """The same for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Check:
        """What `to_dict` gave.

        Raises:
            KeyError, TypeError: it is something else.
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
    """A histogram that grows."""

    def __init__(self, edges: Sequence[int]) -> None:
        self._edges = tuple(edges)
        self._counts = [0] * len(self._edges)

    def add(self, value: int) -> None:
        self._counts[max(bisect_right(self._edges, value) - 1, 0)] += 1

    def build_histogram(self) -> Histogram:
        return Histogram(self._edges, tuple(self._counts))


class Record:
    """What is known so far of one kind of finding."""

    def __init__(self) -> None:
        self.count = 0
        self.conversations = 0
        self.spots: list[Spot] = []

    @property
    def wants_spot(self) -> bool:
        return len(self.spots) < MAX_SPOTS
