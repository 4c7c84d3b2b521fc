"""Pages of keys and values: who has which, what is shared, and that all come back."""

from __future__ import annotations

import threading

import pytest
import torch

from chat_app.inference.kv_cache_paged import PagedKeyValues, Pages
from chat_app.inference.prefix_cache import Computed, Prefixes

LAYERS, HEADS, WIDTH, WINDOW = 2, 3, 4, 40


@pytest.fixture
def pool(monkeypatch) -> Pages:
    monkeypatch.setattr("chat_app.inference.kv_cache_paged.PAGE", 8)
    return Pages(LAYERS, HEADS, WIDTH, WINDOW, torch.float32)


def add(memory: PagedKeyValues, pool: Pages, count: int, seed: int = 0) -> None:
    """So many tokens with numbers by chance."""
    memory.make_room(count)
    slots = torch.tensor(memory.slots(count))
    news = torch.randn(LAYERS, count, 2, HEADS, WIDTH, generator=torch.Generator().manual_seed(seed))
    for layer, new in zip(pool.numbers, news, strict=True):
        layer.flatten(0, 1).index_copy_(0, slots, new)
    memory.length += count


def numbers(memory: PagedKeyValues, pool: Pages) -> torch.Tensor:
    return pool.numbers[:, memory.pages].flatten(1, 2)[:, : memory.length].clone()


def memory_of(pool: Pages, length: int, seed: int = 0) -> PagedKeyValues:
    memory = PagedKeyValues(pool)
    add(memory, pool, length, seed)
    return memory


def test_tokens_follow_each_other_over_pages(pool):
    memory = memory_of(pool, 5)
    before = numbers(memory, pool)
    other = memory_of(pool, 20, seed=1)
    add(memory, pool, 9, seed=2)
    assert (len(memory.pages), len(other.pages), pool.used) == (2, 3, 5)
    assert torch.equal(numbers(memory, pool)[:, :5], before)
    assert 0 not in memory.pages + other.pages
    assert not set(memory.pages) & set(other.pages)


def test_it_grows_without_losing_anything(pool):
    memories = [memory_of(pool, 20 + seed, seed) for seed in range(3)]
    before = [numbers(memory, pool) for memory in memories]
    assert pool.growths == 1
    assert pool.numbers.shape[:2] == (LAYERS, 1 + 2 * 5)
    more = [memory_of(pool, 40, seed) for seed in range(6)]
    assert pool.growths > 1
    assert pool.used == 3 * 3 + 6 * 5
    assert len({page for memory in memories + more for page in memory.pages}) == pool.used
    assert all(torch.equal(numbers(memory, pool), one) for memory, one in zip(memories, before, strict=True))


def test_what_is_taken_is_zeros(pool):
    memory = memory_of(pool, 40)
    pool.numbers[:, memory.pages] = torch.nan
    del memory
    other = memory_of(pool, 5)
    assert torch.isfinite(pool.numbers[:, other.pages]).all()
    assert not pool.numbers[:, other.pages].flatten(1, 2)[:, 5:].any()


def test_all_come_back(pool):
    memories = [memory_of(pool, length) for length in (1, 8, 9, 40)]
    memories.append(memories[3].copy(20))
    assert pool.used == 1 + 1 + 2 + 5
    memories[3].cut(17)
    assert pool.used == 7
    memories[3].cut(30)  # There are no more.
    assert memories[3].length == 17
    memories[3].cut(0)
    assert pool.used == 7, "the copy has its three"
    memories.clear()
    assert pool.used == 0
    assert pool.growths == 1


def test_they_come_back_from_any_thread(pool):
    memories = [memory_of(pool, 40)]
    thread = threading.Thread(target=memories.clear)
    thread.start()
    thread.join()
    assert pool.used == 0


class TestCopies:
    def test_a_copy_takes_no_memory(self, pool):
        memory = memory_of(pool, 20)
        before = numbers(memory, pool)
        copy = memory.copy(12)
        assert copy.length == 12
        assert pool.used == 3
        assert torch.equal(numbers(copy, pool), before[:, :12])

    def test_who_goes_on_first_leaves_the_other_alone(self, pool):
        memory = memory_of(pool, 20)
        before = numbers(memory, pool)
        copy = memory.copy(12)
        add(copy, pool, 3, seed=1)
        assert torch.equal(numbers(memory, pool), before)
        assert torch.equal(numbers(copy, pool)[:, :12], before[:, :12])
        assert pool.used == 4
        assert copy.pages[0] == memory.pages[0], "a full page stays shared"
        again = memory.copy(20)
        add(memory, pool, 3, seed=2)
        assert torch.equal(numbers(again, pool), before)

    def test_what_others_wrote_after_it_is_not_taken_along(self, pool):
        memory = memory_of(pool, 6)
        pool.numbers[:, memory.pages[0], 3:] = torch.nan
        copy = memory.copy(3)
        add(copy, pool, 1)
        assert torch.isfinite(pool.numbers[:, copy.pages]).all()

    def test_a_whole_page_more_needs_no_copy(self, pool):
        memory = memory_of(pool, 16)
        copy = memory.copy(16)
        add(copy, pool, 1)
        assert (copy.pages[:2], pool.used) == (memory.pages, 3)

    def test_who_is_alone_again_needs_none_either(self, pool):
        memory = memory_of(pool, 12)
        pages = list(memory.pages)
        copy = memory.copy(12)
        del copy
        add(memory, pool, 2)
        assert memory.pages == pages

    def test_after_a_cut_the_others_keep_what_they_had(self, pool):
        memory = memory_of(pool, 24)
        before = numbers(memory, pool)
        copy = memory.copy(24)
        memory.cut(4)
        add(memory, pool, 10, seed=3)
        assert torch.equal(numbers(copy, pool), before)
        assert torch.equal(numbers(memory, pool)[:, :4], before[:, :4])


def test_they_are_kept_as_prefixes(pool):
    prefixes = Prefixes(100)
    prefixes.keep(Computed(list(range(21)), None, memory_of(pool, 20)))
    taken = prefixes.take([*range(7), 99, 98], None)
    whole = prefixes.take(list(range(30)), None)
    assert (taken.length, whole.length, pool.used) == (7, 20, 3)
    add(taken, pool, 1)
    assert pool.used == 4
    del taken, whole
    prefixes.clear()
    assert pool.used == 0


class TestLittleMemory:
    def refuse(self, pool: Pages, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
        """No tensor of more than so many pages can be had."""
        really = torch.Tensor.new_zeros

        def new_zeros(self: torch.Tensor, layers: int, pages: int, *rest: int) -> torch.Tensor:
            if pages > most:
                raise torch.OutOfMemoryError
            return really(self, layers, pages, *rest)

        monkeypatch.setattr(torch.Tensor, "new_zeros", new_zeros)

    def test_it_grows_by_what_is_missing(self, pool, monkeypatch):
        memories = [memory_of(pool, 40) for _ in range(2)]
        assert pool.numbers.shape[1] == 11
        self.refuse(pool, monkeypatch, 14)
        memories.append(memory_of(pool, 17))
        assert pool.numbers.shape[1] == 14
        assert pool.used == 13

    def test_what_cannot_be_had_changes_nothing(self, pool, monkeypatch):
        memories = [memory_of(pool, 40) for _ in range(2)]
        before = numbers(memories[0], pool)
        copy = memories[0].copy(12)
        pages = list(copy.pages)
        self.refuse(pool, monkeypatch, 11)
        with pytest.raises(torch.OutOfMemoryError):
            copy.make_room(1)
        assert (copy.pages, copy.length, pool.used, pool.growths) == (pages, 12, 10, 1)
        assert torch.equal(numbers(memories[0], pool), before)
        del memories[1]
        add(copy, pool, 1)
        assert torch.equal(numbers(copy, pool)[:, :12], before[:, :12])
