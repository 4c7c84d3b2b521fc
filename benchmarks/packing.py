"""What becomes of padding: our packed batches beside the usual ones, forward and backward, on the same conversations.

    python -m benchmarks.packing [--model M] [--data FILE] [--batches N]

Prints tokens a second (padding not counted) and the loss of the first batch, which must be the same for all.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from chat_app.config.loading import LoadConfig
from chat_app.config.paths import Paths
from chat_app.data.readers import read_file
from chat_app.models.device import resolve_precision
from chat_app.models.loading import fit_embeddings, load_parts
from chat_app.tokenization.chat_formats import get_format
from chat_app.tokenization.encoder import IGNORE_INDEX, Encoder, Example
from chat_app.training.collator import PackingCollator
from chat_app.training.loss import precision_context, sum_loss

BATCH = 8
ROUNDS = 3


def padded_loss(model: Any, rows: Sequence[Example]) -> Tensor:
    """One row an example, padded to the longest; logits of every position, as transformers computes them."""
    length = max(len(row.ids) for row in rows)
    ids = torch.tensor([row.ids + [0] * (length - len(row.ids)) for row in rows])
    labels = torch.tensor([row.labels + [IGNORE_INDEX] * (length - len(row.ids)) for row in rows])
    mask = torch.tensor([[1] * len(row.ids) + [0] * (length - len(row.ids)) for row in rows])
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
    return functional.cross_entropy(logits.float().flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")


def tokens_per_second(
    model: Any, batches: list[list[Example]], loss_of: Callable[..., Tensor], precision: str
) -> float:
    """Median over rounds; forward and backward."""
    tokens = sum(len(row.ids) for batch in batches for row in batch)
    speeds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for batch in batches:
            with precision_context("cpu", precision):
                loss = loss_of(model, batch)
            loss.backward()
            model.zero_grad()
        speeds.append(tokens / (time.perf_counter() - started))
    return statistics.median(speeds)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="starter")
    parser.add_argument("--data", type=Path, default=Paths.default().samples / "shop.jsonl")
    parser.add_argument("--batches", type=int, default=12)
    options = parser.parse_args()
    model, tokenizer, files, detected_format = load_parts(
        options.model, LoadConfig(precision="float32", device="cpu"), Paths.default()
    )
    encoder = Encoder(tokenizer, get_format(detected_format.format), files.window)
    fit_embeddings(model, tokenizer)
    rows = [row for one in read_file(options.data).conversations for row in encoder.examples(one)]
    random.Random(0).shuffle(rows)
    rows = rows[: options.batches * BATCH]
    collator = PackingCollator(pad_id=0)
    shuffled = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    by_length = sorted(rows, key=lambda row: len(row.ids))
    grouped = [by_length[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    automatic = resolve_precision("automatic", "cpu")

    def packed_loss(model: Any, batch: Sequence[Example]) -> Tensor:
        return sum_loss(model, collator(batch))

    variants: list[tuple[str, list[list[Example]], Callable[..., Tensor], str]] = [
        ("padded, float32 (usual)", shuffled, padded_loss, "float32"),
        (f"padded, {automatic}", shuffled, padded_loss, automatic),
        (f"grouped by length, {automatic}", grouped, padded_loss, automatic),
        (f"packed, {automatic} (ours)", shuffled, packed_loss, automatic),
    ]
    model.eval()  # Without dropout, so that the losses can be compared.
    first = 0.0
    print(f"{'':36} {'tokens/s':>9} {'ratio':>6} {'loss of a batch':>16}")
    for name, batches, loss_of, precision in variants:
        with precision_context("cpu", precision), torch.no_grad():
            loss = float(loss_of(model, shuffled[0]))
        speed = tokens_per_second(model, batches, loss_of, precision)
        first = first or speed
        print(f"{name:36} {speed:9.0f} {speed / first:6.2f} {loss:16.2f}")


if __name__ == "__main__":
    main()
