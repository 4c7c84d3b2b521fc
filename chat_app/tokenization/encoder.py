"""Conversations and a tokenizer -> token ids, token types and labels; what to leave out when the window is full.

The text of a person goes through a second tokenizer that knows no special tokens, so a typed "<|End|>" stays text
whatever it spells. Knows no tensors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

from tokenizers import AddedToken, Tokenizer

from chat_app.conversation import Conversation, Message
from chat_app.errors import DataError, FormatError
from chat_app.tokenization.chat_formats import SYSTEM_TURN, ChatFormat, Segment, learned_turns
from chat_app.tokenization.chat_template import template_segments

Learn = Literal["replies", "all"]
NOT_LEARNED = -100
NEW_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Example:
    """One row for a model; the three lists have the same length.

    Attributes:
        ids: token ids.
        types: token type ids, or None where the format has none.
        labels: the id where the token is learned, else -100 (not shifted: a model compares label t with its guess at
        t-1). dropped_turns: how many of the oldest turns did not fit. cut_tokens: how many tokens the beginning of a
        single turn lost.
    """

    ids: list[int]
    types: list[int] | None
    labels: list[int]
    dropped_turns: int = 0
    cut_tokens: int = 0

    @property
    def learned_tokens(self) -> int:
        """How many tokens count for the loss (the first has nothing before it)."""
        return sum(label != NOT_LEARNED for label in self.labels[1:])


def lengths_of(rows: Sequence[Example]) -> Sequence[int]:
    """Tokens of each row; rows that lie on the disk know them without being read."""
    known = getattr(rows, "lengths", None)
    return known() if known is not None else [len(row.ids) for row in rows]


class Encoder:
    """A tokenizer, a format and a window.

    Args:
        tokenizer: a fast transformers tokenizer. Marks that it lacks are added to it, in the format's order.
        chat_format: the layout.
        window: the most tokens a row may have.

    Raises:
        FormatError: the tokenizer cannot express the format.
    """

    def __init__(self, tokenizer: Any, chat_format: ChatFormat, window: int):
        self.tokenizer = tokenizer
        self.format = chat_format
        self.window = window
        self.marks = add_marks(tokenizer, chat_format)
        self._text = _tokenizer_of_plain_text(tokenizer, self.marks)
        self._prepared: dict[str, list[int]] = {}
        self._text_ids = lru_cache(maxsize=4096)(self._encode_text)  # Earlier turns come again with every turn.

    @cached_property
    def mark_ids(self) -> dict[str, int]:
        """Name of a mark -> its id."""
        return {name: int(self.tokenizer.convert_tokens_to_ids(spelling)) for name, spelling in self.marks.items()}

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """The ids at which a reply ends."""
        ids = {self.mark_ids[name] for name in self.format.reply_end}
        if self.tokenizer.eos_token_id is not None:
            ids.add(int(self.tokenizer.eos_token_id))
        if self.format.render is None:
            ids |= self._template_ends
        return frozenset(ids)

    @cached_property
    def suppressed_ids(self) -> frozenset[int]:
        """Special tokens that end no reply: a model must not write them."""
        return frozenset(self._special_spellings.values()) - self.end_ids

    def prepare(self, texts: Iterable[str]) -> None:
        """Work out the ids of many texts at once, on all processor cores, in place of those prepared before."""
        different = list(dict.fromkeys(texts))
        found = self._text.encode_batch_fast(different, add_special_tokens=False)
        self._prepared = {text: one.ids for text, one in zip(different, found, strict=True)}

    def forget(self) -> None:
        """Let go of what was prepared."""
        self._prepared = {}

    def text_ids(self, text: str) -> list[int]:
        """The ids of what somebody typed; never a special token."""
        return list(self._prepared.get(text) or self._text_ids(text))

    def text_of(self, ids: list[int]) -> str:
        """The text of ids of plain text."""
        return str(self._text.decode(ids, skip_special_tokens=False))

    def _encode_text(self, text: str) -> tuple[int, ...]:
        return tuple(self._text.encode(text, add_special_tokens=False).ids)

    def prompt(self, conversation: Conversation, reserve: int = 0) -> Example:
        """The newest turns that leave room for `reserve` tokens, open for the assistant's reply.

        Raises:
            DataError: the system text alone fills the window.
        """
        unlearned = [False] * len(conversation.turns)
        return self._fit(conversation, unlearned, True, self.window - reserve)

    def example(self, conversation: Conversation, learn: Learn = "replies") -> Example:
        """The whole conversation, or its newest turns that fit, with labels.

        In a format of one reply an example, only the last reply is learned (unless all is).
        """
        new_from = 0
        if self.format.one_reply and learn == "replies":
            new_from = len(conversation.turns) - 1
        return self._fit(conversation, learned_turns(conversation, learn, new_from), False, self.window)

    def examples(
        self, conversation: Conversation, learn: Learn = "replies", new_share: float = NEW_SHARE, max_turns: int = 0
    ) -> list[Example]:
        """Rows in which every turn is learned exactly once.

        A conversation that fits gives one row. A longer one gives several; each shows as many earlier turns as fit and
        learns the next ones, which after the first row take about `new_share` of the window (0: every turn has all the
        context that fits). No row shows more than `max_turns` turns (0: no limit). Rows that would learn
        nothing are left out.
        """
        whole = self._in_one_row(conversation, learn, max_turns)
        if whole is not None:
            return [whole] if any(label != NOT_LEARNED for label in whole.labels) else []
        costs, frame = self._costs(conversation, False)
        rows = []
        for start, new_from, end in self._windows(conversation, costs, frame, new_share, max_turns or len(costs)):
            part = conversation.part(start, end)
            learned = learned_turns(part, learn, new_from - start)
            if any(learned):
                row = self._build(part, learned, False, {})
                if len(row.ids) > self.window:
                    row = self._fit(part, learned, False, self.window)
                rows.append(_with_dropped(row, row.dropped_turns + start))
        return rows

    def _in_one_row(self, conversation: Conversation, learn: Learn, max_turns: int) -> Example | None:
        """The row of a conversation that fits as it is, which is what most do; None for the others."""
        turns = len(conversation.turns)
        if self.format.one_reply or (max_turns and turns > max_turns):
            return None
        row = self._build(conversation, learned_turns(conversation, learn, 0), False, {})
        return row if len(row.ids) <= self.window else None

    def _windows(
        self, conversation: Conversation, costs: list[int], frame: int, new_share: float, max_turns: int
    ) -> list[tuple[int, int, int]]:
        """(first turn shown, first turn learned, end) of each row."""
        room = self.window - frame
        total = len(costs)
        windows: list[tuple[int, int, int]] = []
        new_from = 0
        while new_from < total:
            limit = room if not windows else room * new_share
            end = self._end_of_window(conversation, costs, new_from, limit, max_turns)
            start = new_from
            used = sum(costs[new_from:end])
            while start > 0 and end - start < max_turns and used + costs[start - 1] <= room:
                start -= 1
                used += costs[start]
            # What still fits beside the same context costs nothing.
            while not self.format.one_reply and end < total and end - start < max_turns and used + costs[end] <= room:
                used += costs[end]
                end += 1
            windows.append((start, new_from, end))
            new_from = end
        return windows

    def _end_of_window(
        self, conversation: Conversation, costs: list[int], new_from: int, limit: float, max_turns: int
    ) -> int:
        """Where a row that begins to learn at `new_from` ends: at the next reply, or before the limits."""
        total = len(costs)
        if self.format.one_reply:
            replies = (turn + 1 for turn in range(new_from, total) if conversation.turns[turn].role == "assistant")
            return next(replies, total)
        end = new_from + 1
        used = costs[new_from]
        while end < total and end - new_from < max_turns and used + costs[end] <= limit:
            used += costs[end]
            end += 1
        return end

    def _costs(self, conversation: Conversation, is_open: bool) -> tuple[list[int], int]:
        """Tokens of each turn, and of what frames the whole."""
        costs = [0] * len(conversation.turns)
        frame = 0
        for segment in self._segments(conversation, [False] * len(costs), is_open):
            length = len(self._ids(segment))
            if segment.turn == SYSTEM_TURN:
                frame += length
            else:
                costs[segment.turn] += length
        return costs, frame

    def _fit(self, conversation: Conversation, learned: list[bool], is_open: bool, room: int) -> Example:
        """Drop the oldest turns until the rest fits; at last, cut the beginning of the only context turn, or of the
        reply."""
        total = len(conversation.turns)
        least = 1 if is_open else min(2, total)
        costs, frame = self._costs(conversation, is_open)
        likely, used = total, frame
        while likely > 0 and used + costs[likely - 1] <= room:
            likely -= 1
            used += costs[likely]
        # The costs are exact but for what frames the turns: begin one earlier.
        for dropped in range(max(min(likely, total - least) - 1, 0), total):
            part = conversation.latest(total - dropped)
            row = self._build(part, learned[dropped:], is_open, {})
            if len(row.ids) <= room:
                return _with_dropped(row, dropped)
            if total - dropped == least:
                return self._cut(part, learned[dropped:], is_open, room, dropped, row)
        raise AssertionError("a conversation has at least one turn")

    def _cut(
        self, part: Conversation, learned: list[bool], is_open: bool, room: int, dropped: int, row: Example
    ) -> Example:
        """Shorten turns from their beginning, the oldest first, until the row fits."""
        excess = len(row.ids) - room
        lengths = [len(self.text_ids(text)) for text in part.texts]
        if sum(lengths) - excess < 1:
            raise DataError(
                f"The system text leaves no room for the conversation in a window of {self.window} tokens.",
                advice="Shorten the system text.",
            )
        keep: dict[int, int] = {}
        left = excess
        for turn, length in enumerate(lengths):
            spare = length if turn < len(lengths) - 1 else length - 1
            taken = min(left, spare)
            keep[turn] = length - taken
            left -= taken
        cut = self._build(part, learned, is_open, keep)
        return Example(cut.ids, cut.types, cut.labels, dropped, len(row.ids) - len(cut.ids))

    def _build(
        self, conversation: Conversation, learned: Sequence[bool], is_open: bool, keep: dict[int, int]
    ) -> Example:
        """Segments -> ids, types and labels. `keep` maps a turn to the number of its newest text tokens to keep."""
        ids: list[int] = []
        types: list[int] = []
        labels: list[int] = []
        for segment in self._segments(conversation, learned, is_open):
            piece = self._ids(segment)
            if segment.kind == "text" and segment.turn in keep:
                piece = piece[max(len(piece) - keep[segment.turn], 0) :]
            ids += piece
            labels += piece if segment.learned else [NOT_LEARNED] * len(piece)
            if segment.type is not None:
                kind = self.mark_ids[segment.type] if isinstance(segment.type, str) else segment.type
                types += [kind] * len(piece)
        return Example(ids, types if self.format.has_types else None, labels)

    def _segments(self, conversation: Conversation, learned: Sequence[bool], is_open: bool) -> list[Segment]:
        if self.format.render is None:
            return template_segments(self.tokenizer, conversation, learned, is_open, self._special_spellings)
        return list(self.format.render(conversation, learned, is_open))

    def _ids(self, segment: Segment) -> list[int]:
        if segment.kind == "mark":
            return [self.mark_ids[segment.value]]
        if segment.kind == "text":
            return self.text_ids(segment.value)
        return self._literal_ids(segment.value)

    def _literal_ids(self, literal: str) -> list[int]:
        """The ids of template text, in which special tokens count."""
        ids: list[int] = []
        for piece in re.split(self._special_pattern, literal) if self._special_pattern else [literal]:
            special = self._special_spellings.get(piece)
            ids += [special] if special is not None else self.text_ids(piece)
        return ids

    @cached_property
    def _special_spellings(self) -> dict[str, int]:
        added = self.tokenizer.added_tokens_decoder.items()
        return {str(token): int(token_id) for token_id, token in added if token.special}

    @cached_property
    def _special_pattern(self) -> str:
        longest_first = sorted(self._special_spellings, key=len, reverse=True)
        return "(" + "|".join(map(re.escape, longest_first)) + ")" if longest_first else ""

    @cached_property
    def _template_ends(self) -> set[int]:
        """The first special token that the template puts after a reply."""
        probe = Conversation((Message("user", "a"), Message("assistant", "b")))
        segments = self._segments(probe, [False, True], False)
        ends = [segment for segment in segments if segment.kind == "literal" and segment.learned]
        return set(self._literal_ids(ends[0].value)[-1:]) if ends else set()


def add_marks(tokenizer: Any, chat_format: ChatFormat) -> dict[str, str]:
    """Name -> spelling of each mark, as this tokenizer has it; what it lacks is added to it as a special token.

    Raises:
        FormatError: the format needs the tokenizer's own end token and there is none.
    """
    marks: dict[str, str] = {}
    for name, spelling in chat_format.marks.items():
        if spelling == "<eos>":
            spelling = tokenizer.eos_token
            if spelling is None:
                raise FormatError(
                    f"The format '{chat_format.name}' needs an end-of-text token, and this tokenizer has none.",
                    advice="Use the format 'roles', which brings its own.",
                )
        elif spelling == "<sep>":
            spelling = _separator(tokenizer)
        marks[name] = spelling
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    missing = [
        AddedToken(spelling, special=True, normalized=False) for spelling in marks.values() if spelling not in special
    ]
    if missing:
        tokenizer.add_special_tokens({"additional_special_tokens": missing}, replace_extra_special_tokens=False)
    return marks


def _separator(tokenizer: Any) -> str:
    """A separator of the tokenizer's own, else its end token (which is what convmodel used with GPT-2)."""
    vocabulary = tokenizer.get_vocab()
    for spelling in (tokenizer.sep_token, "<sep>"):
        if spelling is not None and spelling in vocabulary:
            return str(spelling)
    return str(tokenizer.eos_token) if tokenizer.eos_token is not None else "<sep>"


def _tokenizer_of_plain_text(tokenizer: Any, marks: dict[str, str]) -> Tokenizer:
    """The tokenizer without its special tokens and the format's marks, which never cuts or pads.

    The vocabulary, which is nearly all of it, is shared and not copied: somebody waits for the model.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise FormatError(
            "This tokenizer has no fast version.", advice="Save it as tokenizer.json with transformers first."
        )
    plain = Tokenizer(backend.model)
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        if (value := getattr(backend, part)) is not None:
            setattr(plain, part, value)
    plain.encode_special_tokens = True  # As the text that they are.
    plain.add_tokens(_added_tokens(backend, set(marks.values())))
    return plain


def _added_tokens(backend: Tokenizer, unwanted: set[str]) -> list[AddedToken]:
    """The tokens that text may contain beside those of the vocabulary, in the order of their ids.

    Each takes the next free id. So special ones that lie between are there too, and keep theirs.
    """
    added = [token for _, token in sorted(backend.get_added_tokens_decoder().items())]
    wanted = [not token.special and token.content not in unwanted for token in added]
    numbered = [backend.model.token_to_id(token.content) is None for token in added]
    last = max((at for at, pair in enumerate(zip(wanted, numbered, strict=True)) if all(pair)), default=-1)
    for token in added:
        token.special = token.special or token.content in unwanted
    return [one for at, one in enumerate(added) if wanted[at] or (numbered[at] and at < last)]


def _with_dropped(row: Example, dropped: int) -> Example:
    return row if not dropped else Example(row.ids, row.types, row.labels, dropped, row.cut_tokens)
