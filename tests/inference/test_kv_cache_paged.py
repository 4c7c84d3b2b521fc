"""The paged KV cache: block tables, shared blocks, copy on write, and that every block is released."""

from __future__ import annotations

import threading

import pytest
import torch

from chat_app.inference.kv_cache_paged import KVBlockPool, PagedKVCache
from chat_app.inference.prefix_cache import CachedPrefix, PrefixCache

LAYERS, HEADS, WIDTH, WINDOW = 2, 3, 4, 40


@pytest.fixture
def pool(monkeypatch) -> KVBlockPool:
    monkeypatch.setattr("chat_app.inference.kv_cache_paged.BLOCK_TOKENS", 8)
    return KVBlockPool(LAYERS, HEADS, WIDTH, WINDOW, torch.float32)


def add(kv_cache: PagedKVCache, pool: KVBlockPool, count: int, seed: int = 0) -> None:
    """So many tokens with numbers by chance."""
    kv_cache.reserve(count)
    slots = torch.tensor(kv_cache.slots(count))
    news = torch.randn(LAYERS, count, 2, HEADS, WIDTH, generator=torch.Generator().manual_seed(seed))
    for layer, new in zip(pool.data, news, strict=True):
        layer.flatten(0, 1).index_copy_(0, slots, new)
    kv_cache.length += count


def contents(kv_cache: PagedKVCache, pool: KVBlockPool) -> torch.Tensor:
    return pool.data[:, kv_cache.block_table].flatten(1, 2)[:, : kv_cache.length].clone()


def kv_cache_of(pool: KVBlockPool, length: int, seed: int = 0) -> PagedKVCache:
    kv_cache = PagedKVCache(pool)
    add(kv_cache, pool, length, seed)
    return kv_cache


def test_tokens_follow_each_other_over_blocks(pool):
    kv_cache = kv_cache_of(pool, 5)
    before = contents(kv_cache, pool)
    other = kv_cache_of(pool, 20, seed=1)
    add(kv_cache, pool, 9, seed=2)
    assert (len(kv_cache.block_table), len(other.block_table), pool.used) == (2, 3, 5)
    assert torch.equal(contents(kv_cache, pool)[:, :5], before)
    assert 0 not in kv_cache.block_table + other.block_table
    assert not set(kv_cache.block_table) & set(other.block_table)


def test_it_grows_without_losing_anything(pool):
    kv_caches = [kv_cache_of(pool, 20 + seed, seed) for seed in range(3)]
    before = [contents(kv_cache, pool) for kv_cache in kv_caches]
    assert pool.reallocations == 1
    assert pool.data.shape[:2] == (LAYERS, 1 + 2 * 5)
    more = [kv_cache_of(pool, 40, seed) for seed in range(6)]
    assert pool.reallocations > 1
    assert pool.used == 3 * 3 + 6 * 5
    assert len({block for kv_cache in kv_caches + more for block in kv_cache.block_table}) == pool.used
    assert all(torch.equal(contents(kv_cache, pool), one) for kv_cache, one in zip(kv_caches, before, strict=True))


def test_allocated_blocks_are_zeros(pool):
    kv_cache = kv_cache_of(pool, 40)
    pool.data[:, kv_cache.block_table] = torch.nan
    del kv_cache
    other = kv_cache_of(pool, 5)
    assert torch.isfinite(pool.data[:, other.block_table]).all()
    assert not pool.data[:, other.block_table].flatten(1, 2)[:, 5:].any()


def test_all_blocks_are_released(pool):
    kv_caches = [kv_cache_of(pool, length) for length in (1, 8, 9, 40)]
    kv_caches.append(kv_caches[3].copy(20))
    assert pool.used == 1 + 1 + 2 + 5
    kv_caches[3].truncate(17)
    assert pool.used == 7
    kv_caches[3].truncate(30)  # There are no more.
    assert kv_caches[3].length == 17
    kv_caches[3].truncate(0)
    assert pool.used == 7, "the copy has its three"
    kv_caches.clear()
    assert pool.used == 0
    assert pool.reallocations == 1


def test_blocks_are_released_from_any_thread(pool):
    kv_caches = [kv_cache_of(pool, 40)]
    thread = threading.Thread(target=kv_caches.clear)
    thread.start()
    thread.join()
    assert pool.used == 0


class TestCopies:
    def test_a_copy_takes_no_memory(self, pool):
        kv_cache = kv_cache_of(pool, 20)
        before = contents(kv_cache, pool)
        copy = kv_cache.copy(12)
        assert copy.length == 12
        assert pool.used == 3
        assert torch.equal(contents(copy, pool), before[:, :12])

    def test_writing_to_a_shared_block_copies_it(self, pool):
        kv_cache = kv_cache_of(pool, 20)
        before = contents(kv_cache, pool)
        copy = kv_cache.copy(12)
        add(copy, pool, 3, seed=1)
        assert torch.equal(contents(kv_cache, pool), before)
        assert torch.equal(contents(copy, pool)[:, :12], before[:, :12])
        assert pool.used == 4
        assert copy.block_table[0] == kv_cache.block_table[0], "a full block stays shared"
        again = kv_cache.copy(20)
        add(kv_cache, pool, 3, seed=2)
        assert torch.equal(contents(again, pool), before)

    def test_a_copied_block_has_only_its_own_tokens(self, pool):
        kv_cache = kv_cache_of(pool, 6)
        pool.data[:, kv_cache.block_table[0], 3:] = torch.nan
        copy = kv_cache.copy(3)
        add(copy, pool, 1)
        assert torch.isfinite(pool.data[:, copy.block_table]).all()

    def test_full_blocks_are_never_copied(self, pool):
        kv_cache = kv_cache_of(pool, 16)
        copy = kv_cache.copy(16)
        add(copy, pool, 1)
        assert (copy.block_table[:2], pool.used) == (kv_cache.block_table, 3)

    def test_a_block_that_is_no_longer_shared_is_not_copied(self, pool):
        kv_cache = kv_cache_of(pool, 12)
        blocks = list(kv_cache.block_table)
        copy = kv_cache.copy(12)
        del copy
        add(kv_cache, pool, 2)
        assert kv_cache.block_table == blocks

    def test_truncating_leaves_copies_alone(self, pool):
        kv_cache = kv_cache_of(pool, 24)
        before = contents(kv_cache, pool)
        copy = kv_cache.copy(24)
        kv_cache.truncate(4)
        add(kv_cache, pool, 10, seed=3)
        assert torch.equal(contents(copy, pool), before)
        assert torch.equal(contents(kv_cache, pool)[:, :4], before[:, :4])


def test_paged_caches_in_the_prefix_cache(pool):
    prefix_cache = PrefixCache(100)
    prefix_cache.insert(CachedPrefix(list(range(21)), None, kv_cache_of(pool, 20)))
    taken = prefix_cache.acquire([*range(7), 99, 98], None)
    whole = prefix_cache.acquire(list(range(30)), None)
    assert (taken.length, whole.length, pool.used) == (7, 20, 3)
    add(taken, pool, 1)
    assert pool.used == 4
    del taken, whole
    prefix_cache.clear()
    assert pool.used == 0


class TestLittleMemory:
    def refuse(self, pool: KVBlockPool, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
        """No tensor of more than so many blocks can be had."""
        really = torch.Tensor.new_zeros

        def new_zeros(self: torch.Tensor, layers: int, blocks: int, *rest: int) -> torch.Tensor:
            if blocks > most:
                raise torch.OutOfMemoryError
            return really(self, layers, blocks, *rest)

        monkeypatch.setattr(torch.Tensor, "new_zeros", new_zeros)

    def test_it_grows_by_what_is_needed(self, pool, monkeypatch):
        kv_caches = [kv_cache_of(pool, 40) for _ in range(2)]
        assert pool.data.shape[1] == 11
        self.refuse(pool, monkeypatch, 14)
        kv_caches.append(kv_cache_of(pool, 17))
        assert pool.data.shape[1] == 14
        assert pool.used == 13

    def test_a_failed_allocation_changes_nothing(self, pool, monkeypatch):
        kv_caches = [kv_cache_of(pool, 40) for _ in range(2)]
        before = contents(kv_caches[0], pool)
        copy = kv_caches[0].copy(12)
        blocks = list(copy.block_table)
        self.refuse(pool, monkeypatch, 11)
        with pytest.raises(torch.OutOfMemoryError):
            copy.reserve(1)
        assert (copy.block_table, copy.length, pool.used, pool.reallocations) == (blocks, 12, 10, 1)
        assert torch.equal(contents(kv_caches[0], pool), before)
        del kv_caches[1]
        add(copy, pool, 1)
        assert torch.equal(contents(copy, pool)[:, :12], before[:, :12])
