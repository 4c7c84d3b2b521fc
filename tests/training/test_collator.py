"""Examples that share a row must not know of each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from chat_app.conversation import Conversation
from chat_app.tokenization.chat_formats import get_format
from chat_app.tokenization.encoder import IGNORE_INDEX, Encoder, Example
from chat_app.training.collator import PackingCollator
from chat_app.training.loss import group_by_length, likelihood, sum_loss

pytestmark = pytest.mark.dependencies


def rows_of(encoder: Encoder, count: int) -> list[Example]:
    texts = ["Hello, how are you today?", "I am fine", "We open at nine and close at six", "Bye!"]
    conversations = [
        Conversation.from_turns([texts[index % 4] * (1 + index % 3), texts[(index + 1) % 4]]) for index in range(count)
    ]
    return [row for one in conversations for row in encoder.examples(one, "all")]


@pytest.mark.parametrize("name", ["roles", "sep"])
def test_packed_rows_give_the_loss_of_single_ones(name: str, tiny_tokenizer: Any, make_model: Any) -> None:
    encoder = Encoder(tiny_tokenizer, get_format(name), 128)
    model = make_model(len(tiny_tokenizer))
    rows = rows_of(encoder, 7)
    packed = PackingCollator(pad_id=0)(rows)
    assert packed["input_ids"].shape[0] < len(rows)
    with torch.inference_mode():
        together = float(sum_loss(model, packed))
        alone = sum(float(sum_loss(model, PackingCollator(pad_id=0)([row]))) for row in rows)
        through_forward = float(sum_loss(model, packed, direct=False))
    assert together == pytest.approx(alone, rel=1e-5)
    assert through_forward == pytest.approx(together, rel=1e-5)


def test_loss_is_that_of_transformers(tiny_tokenizer: Any, make_model: Any) -> None:
    encoder = Encoder(tiny_tokenizer, get_format("roles"), 128)
    model = make_model(len(tiny_tokenizer))
    (row,) = rows_of(encoder, 1)
    with torch.inference_mode():
        expected = model(input_ids=torch.tensor([row.ids]), labels=torch.tensor([row.labels])).loss
    assert likelihood(model, [row], PackingCollator(pad_id=0)).loss == pytest.approx(float(expected), rel=1e-5)


def test_what_another_example_says_changes_nothing(tiny_tokenizer: Any, make_model: Any) -> None:
    model = make_model(len(tiny_tokenizer))
    long = Example(list(range(5, 45)), None, [IGNORE_INDEX] * 40)
    first, other = Example([7, 8, 9, 10], None, [7, 8, 9, 10]), Example([11, 12, 13], None, [11, 12, 13])
    changed = Example([20, 21, 22], None, [20, 21, 22])

    def logits(second: Example) -> torch.Tensor:
        batch = PackingCollator(pad_id=0)([long, first, second])
        inputs = {name: batch[name] for name in ("input_ids", "position_ids", "attention_mask")}
        with torch.inference_mode():
            return model(**inputs).logits[1, :4]

    assert torch.equal(logits(other), logits(changed))


def test_labels_are_shifted_inside_each_example() -> None:
    batch = PackingCollator(pad_id=0, multiple=1)(
        [Example([1, 2, 3], None, [1, 2, 3]), Example([4, 5], None, [IGNORE_INDEX, 5])]
    )
    assert batch["labels"].tolist() == [[2, 3, IGNORE_INDEX], [5, IGNORE_INDEX, IGNORE_INDEX]]
    assert batch["position_ids"].tolist() == [[0, 1, 2], [0, 1, 0]]
    assert int(batch["tokens"]) == 5


def test_rows_are_full() -> None:
    rows = [Example([1] * length, None, [1] * length) for length in (64, 30, 30, 20, 20, 20, 4, 60)]
    batch = PackingCollator(pad_id=0)(rows)
    assert batch["input_ids"].shape == (4, 64)


def test_groups_keep_to_their_size() -> None:
    rows = [Example([1] * length, None, [1] * length) for length in (10, 90, 40, 40, 90, 10)]
    groups = list(group_by_length(rows, tokens=100))
    assert sorted(len(row.ids) for group in groups for row in group) == [10, 10, 40, 40, 90, 90]
    assert all(sum(len(row.ids) for row in group) <= 100 for group in groups)


def test_nothing_to_learn_is_no_number() -> None:
    with pytest.raises(ValueError, match="nothing to learn"):
        likelihood(torch.nn.Linear(1, 1), [], PackingCollator(pad_id=0))
