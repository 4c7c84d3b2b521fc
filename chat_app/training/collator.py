"""The collator: examples -> tensors. Several examples are packed into a row (sequence packing), and none sees another.

A batch is a number of whole examples. They are packed into as few rows as the longest of them allows, so that little
of the work is padding. Position ids restart at each example, and the attention mask blocks attention between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from chat_app.tokenization.encoder import IGNORE_INDEX, Example


@dataclass(frozen=True)
class PackingCollator:
    """The collator of the training and of every evaluation.

    Attributes:
        pad_id: the padding token; no token attends to it.
        multiple: row lengths are rounded up to this, which keeps the number of shapes small.
    """

    pad_id: int
    multiple: int = 8

    def __call__(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Rows of examples.

        Returns:
            input_ids, position_ids, labels and, where the format has them, token_type_ids: [rows, length];
            attention_mask: bool [rows, 1, length, length], True where a token (third axis) sees another (fourth);
            tokens: how many tokens are no padding.
            The labels are shifted already: labels[t] is what the token at t must be followed by, or -100. They stand
            there a second time as shift_labels, the name by which transformers knows labels of that kind.
        """
        rows = fill_rows([len(example.ids) for example in examples])
        longest = max(sum(len(examples[index].ids) for index in row) for row in rows)
        length = -(-longest // self.multiple) * self.multiple
        shape = (len(rows), length)
        ids = torch.full(shape, self.pad_id, dtype=torch.long, device="cpu")
        positions = torch.zeros(shape, dtype=torch.long, device="cpu")
        labels = torch.full(shape, IGNORE_INDEX, dtype=torch.long, device="cpu")
        # Which example a token belongs to; -1 is padding.
        owners = torch.full(shape, -1, dtype=torch.long, device="cpu")
        types = torch.zeros(shape, dtype=torch.long, device="cpu") if examples[0].types is not None else None
        for row, members in enumerate(rows):
            start = 0
            for member in members:
                example = examples[member]
                end = start + len(example.ids)
                ids[row, start:end] = torch.tensor(example.ids, dtype=torch.long, device="cpu")
                positions[row, start:end] = torch.arange(end - start, dtype=torch.long, device="cpu")
                labels[row, start : end - 1] = torch.tensor(example.labels[1:], dtype=torch.long, device="cpu")
                owners[row, start:end] = member
                if types is not None and example.types is not None:
                    types[row, start:end] = torch.tensor(example.types, dtype=torch.long, device="cpu")
                start = end
        batch = {
            "input_ids": ids,
            "position_ids": positions,
            "attention_mask": _blocks(owners),
            "labels": labels,
            "shift_labels": labels,
            "tokens": (owners >= 0).sum(),
        }
        if types is not None:
            batch["token_type_ids"] = types
        return batch


def _blocks(owners: Tensor) -> Tensor:
    """[rows, length] owners -> bool [rows, 1, length, length]: the past of the same example. Padding sees padding,
    because a row of the mask without any True would make its softmax undefined."""
    length = owners.shape[1]
    same = owners[:, None, :, None] == owners[:, None, None, :]
    return same & torch.ones(length, length, dtype=torch.bool, device=owners.device).tril()


def fill_rows(lengths: Sequence[int]) -> list[list[int]]:
    """Examples -> rows as long as the longest example: the longest first, each into the first row with room."""
    capacity = max(lengths)
    rows: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda one: -lengths[one]):
        for row, left in enumerate(room):
            if lengths[index] <= left:
                rows[row].append(index)
                room[row] -= lengths[index]
                break
        else:
            rows.append([index])
            room.append(capacity - lengths[index])
    return rows
