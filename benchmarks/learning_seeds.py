"""The training procedures of two published projects, restated in a few lines each, to be timed beside ours.

What is theirs: float32; one example for each reply, padded to the longest of its batch; the output layer computed for
every position; the mean loss of a batch; optimiser, rates, schedule, batch size, epochs, early stopping. Where an
original does something that only costs it, it is spared that here: GPTChat pads every example to 256 tokens; both write
a checkpoint at each better epoch, in time that counts.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.learning_curves import Watch
from chat_app.conversation import Conversation
from chat_app.tokenization.encoder import IGNORE_INDEX, Encoder, Example

LAST_RATE = 1e-7  # Where the polynomial ends.


def polynomial(step: int, total: int, rate: float, warmup: float) -> float:
    """The rate of a step, counted from 0: up in a line from 0, then down with the square of what is left."""
    rising = int(warmup * total)
    if step < rising:
        return rate * step / max(rising, 1)
    left = 1 - (step - rising) / max(total - rising, 1)
    return (rate - LAST_RATE) * max(left, 0.0) ** 2 + LAST_RATE


def constant(step: int, total: int, rate: float, warmup: float) -> float:
    """The rate of a step, counted from 0: up in a line, the whole of it at the end of the warm-up, and so it stays."""
    return rate * min((step + 1) / max(warmup * total, 1.0), 1.0)


@dataclass(frozen=True)
class Procedure:
    """How a project trains, by its defaults.

    Attributes:
        layout: the format of its own.
        max_turns: the most turns an example shows, the reply included; 0 shows all.
        window: the most tokens of an example.
        learn_all: whether the context is learned as well.
        schedule: (step, all steps, rate, warmup) -> the rate.
        decay: AdamW's weight decay; None for Adam.
        clip: the longest the gradient of any single tensor may be; None clips nothing.
        patience: stop after so many epochs without getting better; None never.
        pad_to: pad to so many tokens at least; 0 to the longest of the batch.
    """

    name: str
    layout: str
    max_turns: int
    window: int
    learn_all: bool
    batch_size: int
    epochs: int
    rate: float
    warmup: float
    schedule: Callable[[int, int, float, float], float]
    decay: float | None
    clip: float | None
    patience: int | None
    seed: int
    pad_to: int = 0


DIALOGUE = Procedure(
    name="gpt2-dialogue",
    layout="speaker",
    max_turns=5,
    window=1024,
    learn_all=False,
    batch_size=8,
    epochs=10,
    rate=2e-5,
    warmup=0.1,
    schedule=polynomial,
    decay=0.01,
    clip=None,
    patience=None,
    seed=0,
)
GPTCHAT = Procedure(
    name="GPTChat",
    layout="pair",
    max_turns=0,
    window=256,
    learn_all=True,
    batch_size=16,
    epochs=10,
    rate=5e-5,
    warmup=0.1,
    schedule=constant,
    decay=None,
    clip=1.0,
    patience=3,
    seed=1234,
)
PROCEDURES = (DIALOGUE, GPTCHAT)


def tokenize_conversations(
    procedure: Procedure, encoder: Encoder, conversations: Sequence[Conversation], learn_all: bool
) -> list[Example]:
    """An example for each reply that has something before it: as many turns as the procedure shows, the last one
    learned, or everything."""
    rows = []
    for conversation in conversations:
        for end, turn in enumerate(conversation.turns, start=1):
            if turn.role != "assistant" or not turn.in_loss or end < 2:
                continue
            start = max(end - procedure.max_turns, 0) if procedure.max_turns else 0
            part = conversation.slice_turns(start, end)
            if learn_all:
                rows.append(encoder.example(part, "all"))
            else:
                shown = (replace(one, in_loss=False) for one in part.messages[:-1])
                rows.append(encoder.example(Conversation((*shown, part.messages[-1]))))
    return rows


def padded(rows: Sequence[Example], pad_id: int, length: int = 0) -> dict[str, Tensor]:
    """One row an example: input_ids, attention_mask, labels and, where there are any, token_type_ids; all
    [examples, the longest or `length`]. Labels are -100 at the padding."""
    length = max(length, *(len(row.ids) for row in rows))

    def filled(values: Sequence[Sequence[int]], filler: int) -> Tensor:
        return torch.tensor([[*one, *[filler] * (length - len(one))] for one in values])

    batch = {
        "input_ids": filled([row.ids for row in rows], pad_id),
        "attention_mask": filled([[1] * len(row.ids) for row in rows], 0),
        "labels": filled([row.labels for row in rows], IGNORE_INDEX),
    }
    types = [row.types for row in rows if row.types is not None]
    return {**batch, "token_type_ids": filled(types, pad_id)} if types else batch


def optimiser_of(procedure: Procedure, model: torch.nn.Module) -> torch.optim.Optimizer:
    """Adam or AdamW with PyTorch's defaults."""
    if procedure.decay is None:
        return torch.optim.Adam(model.parameters(), lr=procedure.rate)
    return torch.optim.AdamW(model.parameters(), lr=procedure.rate, weight_decay=procedure.decay)


def learn(procedure: Procedure, model: Any, rows: Sequence[Example], pad_id: int, watch: Watch) -> None:
    """Train by the procedure; `watch` sees each step, and the curve it draws is the result."""
    torch.manual_seed(procedure.seed)
    draw = random.Random(procedure.seed)
    optimiser = optimiser_of(procedure, model)
    an_epoch = math.ceil(len(rows) / procedure.batch_size)
    total = an_epoch * procedure.epochs
    order = list(range(len(rows)))
    step, best, since = 0, math.inf, 0
    watch.look(model, 0)
    model.train()
    for _ in range(procedure.epochs):
        draw.shuffle(order)
        for start in range(0, len(order), procedure.batch_size):
            batch = [rows[index] for index in order[start : start + procedure.batch_size]]
            _step(procedure, model, optimiser, padded(batch, pad_id, procedure.pad_to), step, total)
            step += 1
            if watch.is_due(step, total):
                watch.look(model, step)
            if watch.is_over:
                watch.look(model, step)
                watch.curve.final, watch.curve.ended = watch.curve.best.loss, "its time was up"
                return
        loss = watch.look(model, step)
        best, since = (loss, 0) if loss < best else (best, since + 1)
        if procedure.patience is not None and since >= procedure.patience:
            watch.curve.final, watch.curve.ended = best, "it stopped getting better"
            return
    watch.curve.final, watch.curve.ended = best, "all epochs done"


def _step(
    procedure: Procedure,
    model: Any,
    optimiser: torch.optim.Optimizer,
    batch: dict[str, Tensor],
    step: int,
    total: int,
) -> None:
    for group in optimiser.param_groups:
        group["lr"] = procedure.schedule(step, total, procedure.rate, procedure.warmup)
    loss = model(**batch, use_cache=False).loss
    optimiser.zero_grad()
    loss.backward()
    if procedure.clip is not None:
        for parameter in model.parameters():
            torch.nn.utils.clip_grad_norm_(parameter, procedure.clip)
    optimiser.step()
