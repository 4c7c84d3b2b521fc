"""The dataloader of distributed training: each rank takes its part of each batch that a single process would compute.

The libraries' own samplers repeat rows until every rank has equally many, which bends the loss curve at the end of an
epoch. Here a rank may have no row in a batch; then it computes a row without any learned token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from accelerate.data_loader import SeedableRandomSampler
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset

from chat_app.tokenization.encoder import IGNORE_INDEX, Example
from chat_app.training.collator import PackingCollator


class DistributedBatchSampler(BatchSampler):
    """The row indices of each batch that belong to one rank.

    Args:
        rows: all of them. size: of a batch, over all ranks.
        seed: of the order, which is that of a single process.
        process, processes: the rank and the world size.
    """

    def __init__(self, rows: Dataset[Example], size: int, seed: int, process: int, processes: int):
        self.order = SeedableRandomSampler(rows, data_seed=seed)
        super().__init__(self.order, size, drop_last=False)
        self.process, self.processes = process, processes

    @property
    def batch_sampler(self) -> DistributedBatchSampler:
        """The Trainer looks for `set_epoch` here, also after it has skipped what a resumed run has learned."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Shuffle anew for this epoch."""
        self.order.set_epoch(epoch)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in super().__iter__():
            yield batch[self.process :: self.processes]


def make_dataloader(
    rows: Dataset[Example], collator: PackingCollator, size: int, seed: int, process: int, processes: int
) -> DataLoader[Any]:
    """The dataloader of this rank."""
    blank = replace(rows[0], labels=[IGNORE_INDEX] * len(rows[0].ids))

    def collate(examples: Sequence[Example]) -> dict[str, Tensor]:
        return collator(examples or [blank])

    return DataLoader(
        rows, batch_sampler=DistributedBatchSampler(rows, size, seed, process, processes), collate_fn=collate
    )
