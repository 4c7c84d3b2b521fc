"""Corrections: the set of corrected replies on disk, and the training data that teaches them.

A correction alone would be memorized with its exact wording, and the model would forget the rest (catastrophic
forgetting). So each one is asked in several paraphrases, and mixed with conversations that the model learned before.
Knows no model; `TEACHING_SETTINGS` are the settings with which the mixture is to be learned.
"""

from __future__ import annotations

import json
import random
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from chat_app.conversation import Conversation, Message
from chat_app.data.paraphrase import find_keywords, normalize, paraphrase, reduce_to_keywords
from chat_app.errors import DataError
from chat_app.runs.files import hold, read_lines, write_text

MOST = 1_000
LONGEST_REPLY = 8_000
LONGEST_CONVERSATION = 64_000
REPEAT, SHARE = 72, 0.5
ABOUT_EVERY = 2
MOST_TURNS = 4  # Of an earlier conversation: short ones keep the rest as well, and cost less.
# A quarter of the usual rate: what was known changes little. All of the earlier conversations is learned, of a
# correction only the good reply. What they reach is measured in tests/training/test_corrections.py.
TEACHING_SETTINGS: Mapping[str, Any] = MappingProxyType(
    {
        "epochs": 1.0,
        "rate_factor": 0.25,
        "batch_size": 16,
        "learn": "all",
        "valid_share": 0.0,
        "patience": 0,
    }
)


@dataclass(frozen=True, slots=True)
class Correction:
    """One reply that should have been another.

    Attributes:
        conversation: up to the reply; the user spoke last.
        bad: what the model said.
        good: what it should have said.
        time: when it was corrected, in seconds since 1970.
        id: its name in the set; empty before it is added.
    """

    conversation: Conversation
    bad: str
    good: str
    time: float = 0.0
    id: str = ""

    def __post_init__(self) -> None:
        if self.conversation.turns[-1].role != "user":
            raise DataError("A correction needs something that was said before the reply.", advice="Say it first.")
        object.__setattr__(self, "good", self.good.strip())
        if not self.good:
            raise DataError("The corrected reply is empty.", advice="Write what the model should have said.")
        if len(self.good) > LONGEST_REPLY:
            raise DataError(
                f"The corrected reply has {len(self.good):,} characters; at most {LONGEST_REPLY:,} are taken.",
                advice="Shorten it.",
            )
        if sum(len(message.text) for message in self.conversation.messages) > LONGEST_CONVERSATION:
            raise DataError("The conversation is too long to be taught.", advice="Correct the reply in a new chat.")

    @property
    def prompt(self) -> str:
        """What the user had said last."""
        return self.conversation.turns[-1].text


class Corrections:
    """The set in a folder. Any process may read it; a process that changes it holds its lock meanwhile.

    Args:
        folder: made when the first correction is added.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._path = folder / "corrections.jsonl"

    def list(self) -> list[Correction]:
        """All of them, oldest first; a torn or damaged line is read past."""
        return [one for line in read_lines(self._path) if (one := _from_line(line)) is not None]

    def add(self, conversation: Conversation, bad: str, good: str) -> Correction:
        """Add one. The same conversation corrected again takes the place of the earlier correction.

        Raises:
            DataError: it cannot be taught, or the set is full.
            RunError: another process is changing the set.
        """
        new = Correction(conversation, bad[:LONGEST_REPLY], good, time.time(), secrets.token_hex(6))
        with self._lock():
            known = self.list()
            kept = [one for one in known if _said(one.conversation) != _said(conversation)]
            if len(kept) >= MOST:
                raise DataError(
                    f"There are {MOST:,} corrections already.", advice="Teach them, and remove those that are learned."
                )
            if len(kept) < len(known):
                self._write([*kept, new])
            else:
                self._append(new)
        return new

    def change(self, name: str, good: str) -> Correction:
        """Replace the good reply of one.

        Raises:
            DataError: there is none of that name, or the reply cannot be taught.
            RunError: another process is changing the set.
        """
        with self._lock():
            known = self.list()
            changed = replace(_find_correction(known, name), good=good, time=time.time())
            self._write([changed if one.id == name else one for one in known])
        return changed

    def remove(self, *names: str) -> None:
        """Take some out.

        Raises:
            DataError: there is none of that name.
            RunError: another process is changing the set.
        """
        with self._lock():
            known = self.list()
            for name in names:
                _find_correction(known, name)
            self._write([one for one in known if one.id not in names])

    def _lock(self) -> Any:
        return hold(self.folder / "lock", "Somebody else is changing the corrections.")

    def _append(self, correction: Correction) -> None:
        """One line more; a torn line before it is ended first."""
        with open(self._path, "ab+") as file:
            size = file.seek(0, 2)
            file.seek(max(size - 1, 0))
            torn = size > 0 and file.read(1) != b"\n"
            file.write((("\n" if torn else "") + _line(correction)).encode())

    def _write(self, corrections: Sequence[Correction]) -> None:
        write_text(self._path, "".join(map(_line, corrections)))


def _find_correction(corrections: Sequence[Correction], name: str) -> Correction:
    for one in corrections:
        if one.id == name:
            return one
    raise DataError("This correction is no longer there.", advice="Look at the list again.")


def _said(conversation: Conversation) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in conversation.messages]


def _line(correction: Correction) -> str:
    record = {
        "id": correction.id,
        "time": correction.time,
        "messages": [{"role": role, "content": text} for role, text in _said(correction.conversation)],
        "bad": correction.bad,
        "good": correction.good,
    }
    # Half of a surrogate pair has no UTF-8; escaped it is kept as it is.
    text = json.dumps(record, ensure_ascii=False)
    return text.encode("utf-8", "replace").decode() + "\n"


def _from_line(line: Mapping[str, Any]) -> Correction | None:
    try:
        messages = tuple(Message(one["role"], one["content"]) for one in line["messages"])
        moment = float(line["time"])
        return Correction(Conversation(messages), str(line["bad"]), str(line["good"]), moment, str(line["id"]))
    except (KeyError, TypeError, ValueError):
        return None


def mix_conversations(
    corrections: Sequence[Correction],
    earlier: Iterable[Conversation],
    *,
    repeat: int = REPEAT,
    share: float = SHARE,
    seed: int = 0,
) -> Iterator[Conversation]:
    """The training data for corrections: each of them `repeat` times, mixed with conversations learned earlier.

    The first time a correction stands as it is, then in other wordings (`paraphrase`, and every other time
    `reduce_to_keywords`). Only its good reply is learned, not what was said before it in that conversation.

    Args:
        earlier: conversations so that the rest is not forgotten; they are drawn evenly, read once as a stream, and of
            long ones a few turns are taken. Those that answer what was corrected are left out: they would teach the
            opposite.
        share: how many of all conversations are earlier ones, 0 to below 1; fewer where there are not so many.
        seed: the same seed gives the same conversations in the same order.

    Raises:
        DataError: there is no correction.
    """
    if not corrections:
        raise DataError("There are no corrections to teach.", advice="Correct a reply in the chat first.")
    if not 0 <= share < 1 or repeat < 1:
        raise ValueError("repeat must be at least 1, and share from 0 to below 1")
    chance = random.Random(seed)
    taught = [one for correction in corrections for one in _vary_correction(correction, corrections, repeat, chance)]
    wanted = round(len(taught) * share / (1 - share))
    corrected = {normalize(correction.prompt) for correction in corrections}
    drawn = _sample_stream((one for one in earlier if not _answers(one, corrected)), wanted, chance)
    rows = [*taught, *(_cut_stretch(one, chance) for one in drawn)]
    chance.shuffle(rows)
    yield from rows


def _vary_correction(
    correction: Correction, all_of_them: Sequence[Correction], repeat: int, chance: random.Random
) -> Iterator[Conversation]:
    """One correction in several paraphrases, none of which is the prompt of another correction."""
    rest = [one.prompt for one in all_of_them if normalize(one.prompt) != normalize(correction.prompt)]
    taken = {normalize(prompt) for prompt in rest}
    others = [frozenset(find_keywords(prompt)) for prompt in rest]
    head, turns = correction.conversation.head, correction.conversation.turns
    before = (*head, *(replace(turn, in_loss=False) for turn in turns[:-1]))
    for number in range(repeat):
        prompt = correction.prompt
        if number:
            prompt = (
                reduce_to_keywords(prompt, others, chance) if number % ABOUT_EVERY == 0 else paraphrase(prompt, chance)
            )
        if normalize(prompt) in taken:
            prompt = correction.prompt
        ending = (Message("user", prompt, in_loss=False), Message("assistant", correction.good))
        yield Conversation((*before, *ending))


def _answers(conversation: Conversation, prompts: Set[str]) -> bool:
    """Whether the user says one of these in a conversation."""
    return any(turn.role == "user" and normalize(turn.text) in prompts for turn in conversation.turns)


def _cut_stretch(conversation: Conversation, chance: random.Random) -> Conversation:
    """A few turns in a row of a longer conversation, with the same role at the beginning."""
    spare = len(conversation.turns) - MOST_TURNS
    if spare <= 0:
        return conversation
    start = 2 * chance.randrange(spare // 2 + 1)
    return conversation.slice_turns(start, start + MOST_TURNS)


def _sample_stream(earlier: Iterable[Conversation], wanted: int, chance: random.Random) -> list[Conversation]:
    """`wanted` conversations of a stream, each with the same chance (Vitter 1985, algorithm R)."""
    drawn: list[Conversation] = []
    for number, conversation in enumerate(earlier if wanted else ()):
        if len(drawn) < wanted:
            drawn.append(conversation)
        elif (place := chance.randrange(number + 1)) < wanted:
            drawn[place] = conversation
    return drawn
