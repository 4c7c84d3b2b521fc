"""The quality check: one pass over conversations that collects findings and statistics. Detectors stand beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from chat_app.conversation import Message
from chat_app.data.quality.conversation_checks import is_one_sided
from chat_app.data.quality.duplicates import (
    MAX_COMPARED,
    DuplicateIndex,
    Fingerprints,
    fingerprint,
    fingerprint_opening,
)
from chat_app.data.quality.excerpts import quote
from chat_app.data.quality.issue_types import CHARACTERS_A_TOKEN, KINDS, LONG_TURN
from chat_app.data.quality.languages import Languages
from chat_app.data.quality.markup import find_html, find_special_tokens, may_hold_markup
from chat_app.data.quality.pii import find_private, may_hold_private
from chat_app.data.quality.quoted_texts import QuotedTextCounter
from chat_app.data.quality.repeated_replies import ReplyCounter
from chat_app.data.quality.report import LENGTH_EDGES, TURN_EDGES, Check, Finding, Record, Spot, Tally
from chat_app.data.quality.text_checks import find_loop, is_mojibake, is_readable
from chat_app.data.readers.types import Located, Part

BATCH = 1_000  # conversations
TOKENS_A_TURN = 2  # the role marker and the end of the turn
WHOLE = ((0, 0),)
LOST = "\ufffd"

CountTokens = Callable[[Sequence[str]], Sequence[int]]
Place = tuple[int, int]  # index of the message, first character


class Checker:
    """Checks conversations one by one, in bounded memory.

    Args:
        count_tokens: maps texts to the number of tokens of each; without it lengths are in characters.
        window: the model's context window in tokens; 0 if it is unknown.
        compared: the number of conversations of each part that are compared for near duplicates.
    """

    def __init__(
        self, *, count_tokens: CountTokens | None = None, window: int = 0, compared: int = MAX_COMPARED
    ) -> None:
        self._count_tokens = count_tokens
        self._window = window
        self._long_turn = window * CHARACTERS_A_TOKEN if window else LONG_TURN
        self._compared = compared
        self._records = {name: Record() for name in KINDS}
        self._seen: dict[Part, DuplicateIndex] = {}
        self._openings = (Fingerprints(), Fingerprints())  # of training, and of validation and test
        self._leaked = Fingerprints()
        self._parts: dict[Part, int] = {}
        self._turns = 0
        self._tokens = 0
        self._fitting = 0
        self._turn_tally = Tally(TURN_EDGES)
        self._length_tally = Tally(LENGTH_EDGES)
        self._languages = Languages()
        self._replies = ReplyCounter()
        self._quoted = QuotedTextCounter()
        self._waiting: list[list[str]] = []

    def add(self, located: Located) -> None:
        """Check one conversation."""
        messages = located.conversation.messages
        texts = [message.text for message in messages]
        whole = "\n".join(texts)
        turns = len(texts) - (messages[0].role == "system")
        self._parts[located.part] = self._parts.get(located.part, 0) + 1
        self._turns += turns
        self._turn_tally.add(turns)
        self._languages.add(whole)
        if self._count_tokens:
            self._waiting.append(texts)
            if len(self._waiting) >= BATCH:
                self._count_waiting()
        else:
            self._length_tally.add(sum(map(len, texts)))
        self._quoted.add(located)
        self._check_texts(located, whole)
        self._check_conversation(located)

    def add_all(self, items: Iterable[Located]) -> None:
        """Check many conversations."""
        for located in items:
            self.add(located)

    def summarize(self) -> Check:
        """The result so far. More conversations can be added afterwards."""
        self._count_waiting()
        total = sum(self._parts.values())
        knows_fit = self._count_tokens is not None and self._window > 0 and total > 0
        findings = [self._build_finding(name) for name, record in self._records.items() if record.count]
        findings += [found for found in (self._replies.build_finding(), self._quoted.build_finding()) if found]
        order = list(KINDS)
        return Check(
            conversations=total,
            turns=self._turns,
            tokens=self._tokens if self._count_tokens else None,
            fitting=self._fitting / total if knows_fit else None,
            languages=self._languages.compute_shares(),
            turns_histogram=self._turn_tally.build_histogram(),
            length_histogram=self._length_tally.build_histogram(),
            length_unit="tokens" if self._count_tokens else "characters",
            findings=tuple(sorted(findings, key=lambda one: order.index(one.name))),
            parts=dict(self._parts),
        )

    def _count_waiting(self) -> None:
        if not self._waiting or not self._count_tokens:
            return
        counts = iter(self._count_tokens([text for texts in self._waiting for text in texts]))
        for texts in self._waiting:
            tokens = sum(next(counts) for _ in texts)
            self._tokens += tokens
            self._length_tally.add(tokens)
            self._fitting += tokens + TOKENS_A_TURN * len(texts) <= self._window
        self._waiting = []

    def _check_texts(self, located: Located, whole: str) -> None:
        """Detect findings inside messages. Cheap tests of the whole conversation come first, and most fail them all."""
        messages = located.conversation.messages
        if not all(map(is_readable, [message.text for message in messages])):
            self._note("empty_turns", located, _find_messages(messages, lambda text: not is_readable(text)))
        if len(whole) > self._long_turn:
            self._note("long_turns", located, _find_messages(messages, lambda text: len(text) > self._long_turn))
        self._note("loops", located, _find_loops(messages))
        if may_hold_markup(whole):
            self._note("special_tokens", located, _find_spans(messages, find_special_tokens))
            self._note("html", located, _find_spans(messages, find_html))
        if not whole.isascii():
            self._note("mojibake", located, _find_messages(messages, is_mojibake))
            if LOST in whole:
                self._note("lost_characters", located, _find_messages(messages, lambda text: LOST in text))
        if may_hold_private(whole):
            found: dict[str, list[Place]] = {}
            for number, message in enumerate(messages):
                for span in find_private(message.text):
                    found.setdefault(span.kind, []).append((number, span.start))
            for kind, places in found.items():
                self._note(kind, located, places)

    def _check_conversation(self, located: Located) -> None:
        """Detect findings about the conversation as a whole."""
        messages = located.conversation.messages
        if is_one_sided(messages):
            self._note("one_sided", located, WHOLE)
        seen = self._seen.get(located.part)
        if seen is None:
            seen = self._seen[located.part] = DuplicateIndex(self._compared)
        number = fingerprint(messages)
        is_equal, is_near = seen.judge(messages, number)
        if is_equal:
            self._note("duplicates", located, WHOLE)
        elif is_near:
            self._note("near_duplicates", located, WHOLE)
        for message in messages:
            if message.role == "assistant":
                self._replies.add(message.text, located)
        self._check_leaks(located, number, is_equal)

    def _check_leaks(self, located: Located, number: int, is_equal: bool) -> None:
        """Detect leaks between training and held-out parts. Each counts once, when its second side is met."""
        side = int(located.part != "train")
        others = [seen for part, seen in self._seen.items() if (part != "train") != side]
        is_leak = any(number in seen for seen in others)
        if is_leak and not is_equal:
            self._note("leakage", located, WHOLE)
        begin = fingerprint_opening(located.conversation.messages)
        self._openings[side].add(begin)
        if not is_leak and begin in self._openings[1 - side] and self._leaked.add(begin):
            self._note("leaked_openings", located, WHOLE)

    def _note(self, name: str, located: Located, places: Sequence[Place]) -> None:
        if not places:
            return
        record = self._records[name]
        record.count += len(places)
        record.conversations += 1
        if record.wants_spot:
            number, start = places[0]
            text = located.conversation.messages[number].text
            record.spots.append(Spot(located.file, located.line, quote(text, start)))

    def _build_finding(self, name: str) -> Finding:
        kind, record = KINDS[name], self._records[name]
        advice = kind.advice
        if name == "near_duplicates":
            advice += self._explain_comparison()
        if name == "long_turns":
            advice = f"Longer than {self._long_turn:,} characters. {advice}"
        return Finding(name, kind.title, record.count, record.conversations, tuple(record.spots), advice, kind.repair)

    def _explain_comparison(self) -> str:
        if not all(seen.can_compare_words for seen in self._seen.values()):
            return " (Only capitals, punctuation and spaces were passed over: the package rensa is not installed.)"
        if all(seen.is_complete for seen in self._seen.values()):
            return " (The words are compared by an estimate, so a few may be missed.)"
        return (
            f" (The words of the first {self._compared:,} different conversations were compared, by an estimate; those "
            "after them only without capitals, punctuation and spaces.)"
        )


def _find_messages(messages: Sequence[Message], is_found: Callable[[str], bool]) -> list[Place]:
    """The places of the messages whose text fulfils a condition."""
    return [(number, 0) for number, message in enumerate(messages) if is_found(message.text)]


def _find_spans(messages: Sequence[Message], find: Callable[[str], list[tuple[int, int]]]) -> list[Place]:
    """The places of all spans that a function finds in the messages."""
    return [(number, start) for number, message in enumerate(messages) for start, _ in find(message.text)]


def _find_loops(messages: Sequence[Message]) -> list[Place]:
    found = [(number, find_loop(one.text)) for number, one in enumerate(messages) if one.role == "assistant"]
    return [(number, place[0]) for number, place in found if place]
