"""Conversations -> token ids, token types and labels, truncated to the context window.

The text of messages is encoded by a second tokenizer that has no special tokens, so a typed "<|End|>" stays text.
Knows no tensors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

from chat_app.conversation import Conversation, Message
from chat_app.errors import DataError
from chat_app.tokenization.chat_formats import SYSTEM_TURN, ChatFormat, Segment, turn_loss_mask
from chat_app.tokenization.chat_template import template_segments
from chat_app.tokenization.chat_tokenizer import ChatTokenizer
from chat_app.tokenization.special_tokens import add_format_tokens, plain_text_tokenizer

Learn = Literal["replies", "all"]
IGNORE_INDEX = -100
NEW_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Example:
    """One sequence for a model; the three lists have the same length.

    Attributes:
        ids: token ids.
        types: token type ids, or None in a format without them.
        labels: the token's id where it counts in the loss, else IGNORE_INDEX. They are not shifted: a model compares
            label t with its logits at t - 1.
        dropped_turns: how many of the oldest turns did not fit the window.
        cut_tokens: how many tokens were cut from the beginning of a turn that alone did not fit.
    """

    ids: list[int]
    types: list[int] | None
    labels: list[int]
    dropped_turns: int = 0
    cut_tokens: int = 0

    @property
    def loss_tokens(self) -> int:
        """The number of tokens in the loss. The first token has no logits before it and never counts."""
        return sum(label != IGNORE_INDEX for label in self.labels[1:])


def example_lengths(rows: Sequence[Example]) -> Sequence[int]:
    """The number of tokens of each example; a dataset on disk knows them without reading its examples."""
    known = getattr(rows, "lengths", None)
    return known() if known is not None else [len(row.ids) for row in rows]


class Encoder:
    """Encodes conversations with a tokenizer and a chat format.

    Args:
        tokenizer: a fast tokenizer of transformers. The format's special tokens that it lacks are added to it.
        chat_format: the layout of the prompts.
        window: the most tokens of an example.

    Raises:
        FormatError: the tokenizer cannot express the format.
    """

    def __init__(self, tokenizer: ChatTokenizer, chat_format: ChatFormat, window: int):
        self.tokenizer = tokenizer
        self.format = chat_format
        self.window = window
        self.special_tokens = add_format_tokens(tokenizer, chat_format)
        self._text = plain_text_tokenizer(tokenizer, self.special_tokens)
        self._prepared: dict[str, list[int]] = {}
        self._text_ids = lru_cache(maxsize=4096)(self._encode_text)  # Every prompt repeats the earlier turns.

    @cached_property
    def special_token_ids(self) -> dict[str, int]:
        """Name of a special token in the format -> its id."""
        return {
            name: int(self.tokenizer.convert_tokens_to_ids(spelling)) for name, spelling in self.special_tokens.items()
        }

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """The ids that end a reply."""
        ids = {self.special_token_ids[name] for name in self.format.reply_end}
        if self.tokenizer.eos_token_id is not None:
            ids.add(int(self.tokenizer.eos_token_id))
        if self.format.render is None:
            ids |= self._template_ends
        return frozenset(ids)

    @cached_property
    def suppressed_ids(self) -> frozenset[int]:
        """The special tokens that end no reply. A model must not generate them."""
        return frozenset(self._special_spellings.values()) - self.end_ids

    def prepare(self, texts: Iterable[str]) -> None:
        """Encode many texts at once on all processor cores and keep their ids, in place of those kept before."""
        different = list(dict.fromkeys(texts))
        found = self._text.encode_batch_fast(different, add_special_tokens=False)
        self._prepared = {text: one.ids for text, one in zip(different, found, strict=True)}

    def forget(self) -> None:
        """Drop the ids that `prepare` keeps."""
        self._prepared = {}

    def text_ids(self, text: str) -> list[int]:
        """The ids of a message's text, none of which is a special token."""
        return list(self._prepared.get(text) or self._text_ids(text))

    def text_of(self, ids: list[int]) -> str:
        """Decode ids that `text_ids` gave."""
        return str(self._text.decode(ids, skip_special_tokens=False))

    def _encode_text(self, text: str) -> tuple[int, ...]:
        return tuple(self._text.encode(text, add_special_tokens=False).ids)

    def prompt(self, conversation: Conversation, reserve: int = 0) -> Example:
        """The prompt for the assistant's next reply: the newest turns that leave `reserve` tokens of the window free.

        Raises:
            DataError: the system text alone fills the window.
        """
        unlearned = [False] * len(conversation.turns)
        return self._fit(conversation, unlearned, True, self.window - reserve)

    def example(self, conversation: Conversation, learn: Learn = "replies") -> Example:
        """The whole conversation, or its newest turns that fit, with labels.

        In a format with one reply an example, only the last reply counts in the loss, unless `learn` is "all".
        """
        new_from = 0
        if self.format.one_reply and learn == "replies":
            new_from = len(conversation.turns) - 1
        return self._fit(conversation, turn_loss_mask(conversation, learn, new_from), False, self.window)

    def examples(
        self, conversation: Conversation, learn: Learn = "replies", new_share: float = NEW_SHARE, max_turns: int = 0
    ) -> list[Example]:
        """The examples of a conversation, in which every turn counts in the loss exactly once.

        A conversation that fits the window gives one example. A longer one gives several, each with the next turns in
        its loss and as many earlier turns as fit as context. Examples without any loss are left out.

        Args:
            conversation: the conversation.
            learn: whether the replies or all turns count in the loss.
            new_share: the share of the window for turns in the loss, after the first example; with 0 every turn gets as
                much context as fits.
            max_turns: the most turns of an example; 0 for no limit.
        """
        whole = self._in_one_row(conversation, learn, max_turns)
        if whole is not None:
            return [whole] if any(label != IGNORE_INDEX for label in whole.labels) else []
        costs, frame = self._costs(conversation, False)
        rows = []
        for start, new_from, end in self._windows(conversation, costs, frame, new_share, max_turns or len(costs)):
            part = conversation.slice_turns(start, end)
            loss_mask = turn_loss_mask(part, learn, new_from - start)
            if any(loss_mask):
                row = self._build(part, loss_mask, False, {})
                if len(row.ids) > self.window:
                    row = self._fit(part, loss_mask, False, self.window)
                rows.append(_with_dropped(row, row.dropped_turns + start))
        return rows

    def _in_one_row(self, conversation: Conversation, learn: Learn, max_turns: int) -> Example | None:
        """The only example of a conversation that fits the window, as most do; None for a longer one."""
        turns = len(conversation.turns)
        if self.format.one_reply or (max_turns and turns > max_turns):
            return None
        row = self._build(conversation, turn_loss_mask(conversation, learn, 0), False, {})
        return row if len(row.ids) <= self.window else None

    def _windows(
        self, conversation: Conversation, costs: list[int], frame: int, new_share: float, max_turns: int
    ) -> list[tuple[int, int, int]]:
        """(first turn, first turn in the loss, end) of each example."""
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
            # Further turns that fit beside the same context save an example of their own.
            while not self.format.one_reply and end < total and end - start < max_turns and used + costs[end] <= room:
                used += costs[end]
                end += 1
            windows.append((start, new_from, end))
            new_from = end
        return windows

    def _end_of_window(
        self, conversation: Conversation, costs: list[int], new_from: int, limit: float, max_turns: int
    ) -> int:
        """The end of an example whose loss begins at turn `new_from`: after the next reply, or before the limits."""
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
        """(the number of tokens of each turn, the number of the other tokens)."""
        costs = [0] * len(conversation.turns)
        frame = 0
        for segment in self._segments(conversation, [False] * len(costs), is_open):
            length = len(self._ids(segment))
            if segment.turn == SYSTEM_TURN:
                frame += length
            else:
                costs[segment.turn] += length
        return costs, frame

    def _fit(self, conversation: Conversation, loss_mask: list[bool], is_open: bool, room: int) -> Example:
        """Drop the oldest turns until the rest fits. If even the last ones do not fit, cut their beginnings."""
        total = len(conversation.turns)
        least = 1 if is_open else min(2, total)
        costs, frame = self._costs(conversation, is_open)
        likely, used = total, frame
        while likely > 0 and used + costs[likely - 1] <= room:
            likely -= 1
            used += costs[likely]
        # The tokens around the turns can differ when turns are dropped, so the search begins one turn earlier.
        for dropped in range(max(min(likely, total - least) - 1, 0), total):
            part = conversation.keep_latest(total - dropped)
            row = self._build(part, loss_mask[dropped:], is_open, {})
            if len(row.ids) <= room:
                return _with_dropped(row, dropped)
            if total - dropped == least:
                return self._cut(part, loss_mask[dropped:], is_open, room, dropped, row)
        raise AssertionError("a conversation has at least one turn")

    def _cut(
        self, part: Conversation, loss_mask: list[bool], is_open: bool, room: int, dropped: int, row: Example
    ) -> Example:
        """Cut turns at their beginning, the oldest turn first, until the example fits."""
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
        cut = self._build(part, loss_mask, is_open, keep)
        return Example(cut.ids, cut.types, cut.labels, dropped, len(row.ids) - len(cut.ids))

    def _build(
        self, conversation: Conversation, loss_mask: Sequence[bool], is_open: bool, keep: dict[int, int]
    ) -> Example:
        """Build ids, types and labels from the segments. `keep`: turn -> the number of its last text tokens to keep."""
        ids: list[int] = []
        types: list[int] = []
        labels: list[int] = []
        for segment in self._segments(conversation, loss_mask, is_open):
            piece = self._ids(segment)
            if segment.kind == "text" and segment.turn in keep:
                piece = piece[max(len(piece) - keep[segment.turn], 0) :]
            ids += piece
            labels += piece if segment.in_loss else [IGNORE_INDEX] * len(piece)
            if segment.type is not None:
                kind = self.special_token_ids[segment.type] if isinstance(segment.type, str) else segment.type
                types += [kind] * len(piece)
        return Example(ids, types if self.format.has_types else None, labels)

    def _segments(self, conversation: Conversation, loss_mask: Sequence[bool], is_open: bool) -> list[Segment]:
        if self.format.render is None:
            return template_segments(self.tokenizer, conversation, loss_mask, is_open, self._special_spellings)
        return list(self.format.render(conversation, loss_mask, is_open))

    def _ids(self, segment: Segment) -> list[int]:
        if segment.kind == "special":
            return [self.special_token_ids[segment.value]]
        if segment.kind == "text":
            return self.text_ids(segment.value)
        return self._literal_ids(segment.value)

    def _literal_ids(self, literal: str) -> list[int]:
        """The ids of a chat template's text, which may spell special tokens."""
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
        """The id of the first special token that the chat template puts after a reply."""
        probe = Conversation((Message("user", "a"), Message("assistant", "b")))
        segments = self._segments(probe, [False, True], False)
        ends = [segment for segment in segments if segment.kind == "literal" and segment.in_loss]
        return set(self._literal_ids(ends[0].value)[-1:]) if ends else set()


def _with_dropped(row: Example, dropped: int) -> Example:
    return row if not dropped else Example(row.ids, row.types, row.labels, dropped, row.cut_tokens)
