"""The paged KV cache for GPUs: the keys and values of all sequences lie in one tensor, in blocks of a fixed number of
tokens, and each sequence has a block table.

One kernel finds the entries of every sequence of a batch this way, and the tensor's address does not change from step
to step, which CUDA graphs need. Blocks are shared between sequences with a common prefix and copied on write.

Only the engine's thread uses it, except that blocks may be released from any thread. Knows no requests and no token
ids.
Source: Kwon et al. 2023, Efficient Memory Management for Large Language Model Serving with PagedAttention.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import torch

BLOCK_TOKENS = 64  # Smaller blocks leave less memory unused; larger ones mean fewer lengths to capture CUDA graphs for.
INITIAL_WINDOWS = 2  # The first allocation has blocks for this many whole windows; each further one doubles the pool.


class KVBlockPool:
    """The blocks of all sequences with their reference counts.

    Args:
        layers, heads, width: of the model; width is a head's.
        window: the most tokens of a sequence.
        dtype, device: of the tensor.

    Attributes:
        data: [layers, blocks, tokens of a block, 2 (keys, values), heads, width]. Growing replaces the tensor. Block 0
            belongs to no sequence: rows that only fill up a batch are written there.
        reallocations: how often the tensor was replaced.
        block_tokens: how many tokens a block holds.
    """

    def __init__(self, layers: int, heads: int, width: int, window: int, dtype: torch.dtype, device: Any = "cpu"):
        self.block_tokens = BLOCK_TOKENS
        self.reallocations = 0
        self.data = torch.zeros(layers, 1, BLOCK_TOKENS, 2, heads, width, dtype=dtype, device=device)
        self._initial_blocks = INITIAL_WINDOWS * self.blocks_for(window)
        self._free: list[int] = []
        self._ref_counts = [1]  # Of each block: how many sequences have it in their block tables.
        self._release_queue: deque[list[int]] = deque()

    @property
    def used(self) -> int:
        """How many blocks belong to sequences."""
        self._process_releases()
        return len(self._ref_counts) - 1 - len(self._free)

    def blocks_for(self, length: int) -> int:
        """How many blocks a sequence of `length` tokens takes."""
        return -(-length // self.block_tokens)

    def allocate(self, count: int) -> list[int]:
        """Take free blocks for a sequence, all of them or none.

        They are set to zero: masked tokens get the attention weight 0, but 0 times a NaN that another sequence left
        behind would still be NaN.

        Raises:
            torch.OutOfMemoryError: there is no memory for so many.
        """
        self._process_releases()
        if count > len(self._free):
            self._grow(count - len(self._free))
        blocks = [self._free.pop() for _ in range(count)]
        for block in blocks:
            self._ref_counts[block] = 1
            self.data[:, block].zero_()
        return blocks

    def share(self, blocks: list[int]) -> None:
        """Count one more sequence that has these blocks."""
        for block in blocks:
            self._ref_counts[block] += 1

    def is_shared(self, block: int) -> bool:
        """Whether several sequences have the block."""
        self._process_releases()
        return self._ref_counts[block] > 1

    def copy_block(self, block: int, tokens: int) -> int:
        """A new block with the first `tokens` tokens of another."""
        (other,) = self.allocate(1)
        self.data[:, other, :tokens] = self.data[:, block, :tokens]
        return other

    def release(self, blocks: list[int]) -> None:
        """Count one sequence less for these blocks. From any thread, because the garbage collector runs in any; the
        engine's thread does the counting later."""
        self._release_queue.append(blocks)

    def _process_releases(self) -> None:
        while self._release_queue:
            for block in self._release_queue.popleft():
                self._ref_counts[block] -= 1
                if not self._ref_counts[block]:
                    self._free.append(block)

    def _grow(self, needed: int) -> None:
        """Double the pool, or add only what is needed if there is no memory for more."""
        layers, old, *rest = self.data.shape
        more = max(old, self._initial_blocks, needed)
        try:
            data = self.data.new_zeros(layers, old + more, *rest)
        except torch.OutOfMemoryError:
            more = needed
            data = self.data.new_zeros(layers, old + more, *rest)
        data[:, :old] = self.data
        self.data = data
        self.reallocations += 1
        self._ref_counts += [0] * more
        self._free += reversed(range(old, old + more))


class PagedKVCache:
    """The KV cache of one sequence, in blocks that it may share with others; writing to a shared block copies it first.

    Args:
        pool: has the blocks.

    Attributes:
        block_table: the sequence's blocks, in the order of its tokens.
    """

    def __init__(self, pool: KVBlockPool):
        self.length = 0
        self.block_table: list[int] = []
        self._pool = pool

    def __del__(self) -> None:
        self._pool.release(self.block_table)

    @property
    def can_truncate(self) -> bool:
        """Always."""
        return True

    def truncate(self, length: int) -> None:
        """Keep only the first `length` tokens."""
        self.length = min(self.length, length)
        kept = self._pool.blocks_for(self.length)
        self._pool.release(self.block_table[kept:])
        del self.block_table[kept:]

    def copy(self, length: int) -> PagedKVCache:
        """Another cache with the first `length` tokens of this one. It takes no memory until one of the two grows."""
        other = PagedKVCache(self._pool)
        blocks = self.block_table[: self._pool.blocks_for(length)]
        self._pool.share(blocks)
        other.block_table, other.length = blocks, length
        return other

    def reserve(self, count: int) -> None:
        """Have blocks for the next `count` tokens that no other sequence shares.

        Raises:
            torch.OutOfMemoryError: there is no memory for them; the cache is unchanged.
        """
        full, rest = divmod(self.length, self._pool.block_tokens)
        if rest and self._pool.is_shared(self.block_table[full]):
            own = self._pool.copy_block(self.block_table[full], rest)
            self._pool.release([self.block_table[full]])
            self.block_table[full] = own
        missing = self._pool.blocks_for(self.length + count) - len(self.block_table)
        if missing > 0:
            self.block_table += self._pool.allocate(missing)

    def slots(self, count: int) -> list[int]:
        """The slot mapping of the next `count` tokens, after `reserve`: where they go, counted in tokens from the
        beginning of block 0."""
        size = self._pool.block_tokens
        positions = range(self.length, self.length + count)
        return [self.block_table[position // size] * size + position % size for position in positions]
