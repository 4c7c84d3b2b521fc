"""The prefix cache and the KV caches it keeps: the longest prefix, handed over or copied, never too many tokens."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config

from chat_app.inference.kv_cache import MIN_CAPACITY, ContiguousKVCache, KVCache, TransformersKVCache
from chat_app.inference.kv_cache_packed import PackedKVCache
from chat_app.inference.prefix_cache import CachedPrefix, PrefixCache
from chat_app.kernels.layout import TILE_N

WINDOW = 1000


LAYERS, HEADS = 2, 3


def make_kv_cache(kind: type, width: int) -> ContiguousKVCache | PackedKVCache:
    if kind is ContiguousKVCache:
        return ContiguousKVCache(LAYERS, HEADS, width, WINDOW, torch.bfloat16)
    return PackedKVCache(LAYERS, HEADS, width, WINDOW)


def extend(kv_cache: ContiguousKVCache | PackedKVCache, length: int, width: int = 4, seed: int = 0) -> None:
    """Add tokens, of which every number is another one."""
    kv_cache.reserve(length)
    for layer in range(LAYERS):
        generator = torch.Generator().manual_seed(100 * seed + layer)
        kv_cache.append(layer, torch.randn(2, HEADS, length, width, generator=generator).bfloat16())
    kv_cache.length += length


def kv_cache_of(length: int, seed: int = 0) -> ContiguousKVCache:
    kv_cache = make_kv_cache(ContiguousKVCache, 4)
    extend(kv_cache, length, seed=seed)
    return kv_cache


def contents(kv_cache: ContiguousKVCache | PackedKVCache, width: int = 4) -> torch.Tensor:
    """[layers, keys or values, heads, tokens, width]."""
    nothing = torch.empty(2, HEADS, 0, width, dtype=torch.bfloat16)
    return torch.stack([torch.cat(kv_cache.append(layer, nothing)) for layer in range(LAYERS)])


@pytest.fixture
def prefix_cache() -> PrefixCache:
    return PrefixCache(500)


@pytest.mark.parametrize(("kind", "width"), [(ContiguousKVCache, 4), (PackedKVCache, 4), (PackedKVCache, 160)])
class TestKVCaches:
    def test_appended_entries_are_read_back(self, kind, width):
        kv_cache = make_kv_cache(kind, width)
        given = []
        for seed, length in enumerate((1, 1, 30, 33, 64, 71, 1, 200)):  # In tiles, over and at their ends.
            extend(kv_cache, length, width, seed)
            one = make_kv_cache(kind, width)
            extend(one, length, width, seed)
            given.append(contents(one, width))
        assert kv_cache.length == 401
        assert torch.equal(contents(kv_cache, width), torch.cat(given, 3))

    def test_it_grows_without_losing_anything(self, kind, width):
        kv_cache = make_kv_cache(kind, width)
        extend(kv_cache, 10, width)
        before = contents(kv_cache, width).clone()
        for length in (MIN_CAPACITY, 700, WINDOW):
            kv_cache.reserve(length - kv_cache.length)
            assert kv_cache.capacity >= length
            assert torch.equal(contents(kv_cache, width), before)
        assert kv_cache.capacity < WINDOW + TILE_N

    def test_a_copy_is_independent(self, kind, width):
        kv_cache = make_kv_cache(kind, width)
        extend(kv_cache, 50, width)
        before = contents(kv_cache, width).clone()
        copy = kv_cache.copy(21)
        assert copy.length == 21
        assert torch.equal(contents(copy, width), before[:, :, :, :21])
        extend(copy, 30, width, seed=1)
        assert torch.equal(contents(kv_cache, width), before)
        assert torch.equal(contents(copy, width)[:, :, :, :21], before[:, :, :, :21])


class TestTransformersKVCache:
    def test_they_are_truncated_and_copied(self):
        kv_cache = TransformersKVCache(GPT2Config(n_layer=2))
        keys = torch.randn(1, 3, 50, 4)
        for layer in range(2):
            kv_cache.cache.update(keys, keys + 1, layer)
        kv_cache.length = 50
        copy = kv_cache.copy(20)
        kv_cache.truncate(30)
        assert (kv_cache.length, copy.length) == (30, 20)
        assert torch.equal(kv_cache.cache.layers[1].keys, keys[:, :, :30])
        assert torch.equal(copy.cache.layers[1].values, keys[:, :, :20] + 1)


class TestPrefixCache:
    def test_the_next_turn_is_handed_its_kv_cache(self, prefix_cache):
        kv_cache = kv_cache_of(30)
        prefix_cache.insert(CachedPrefix(list(range(31)), None, kv_cache))
        assert prefix_cache.acquire(list(range(40)), None) is kv_cache
        assert kv_cache.length == 30
        assert len(prefix_cache) == 0

    def test_the_last_token_is_always_left_to_compute(self, prefix_cache):
        kv_cache = kv_cache_of(30)
        prefix_cache.insert(CachedPrefix(list(range(30)), None, kv_cache))
        assert prefix_cache.acquire(list(range(30)), None) is kv_cache
        assert kv_cache.length == 29

    def test_a_short_common_prefix_is_copied(self, prefix_cache):
        kv_cache = kv_cache_of(30)
        prefix_cache.insert(CachedPrefix(list(range(30)), None, kv_cache))
        taken = prefix_cache.acquire([*range(10), 99, 98], None)
        assert taken is not kv_cache
        assert taken.length == 10
        assert kv_cache.length == 30
        assert len(prefix_cache) == 1

    def test_the_longest_prefix_is_acquired_from_kept_and_running_sequences(self, prefix_cache):
        running = CachedPrefix(list(range(25)), None, kv_cache_of(25))
        prefix_cache.insert(CachedPrefix([*range(12), 50], None, kv_cache_of(13)))
        taken = prefix_cache.acquire(list(range(40)), None, [running])
        assert taken.length == 25
        assert taken is not running.kv_cache
        assert prefix_cache.acquire([*range(12), 50, 51], None, [running]).length == 13

    def test_types_belong_to_it(self, prefix_cache):
        prefix_cache.insert(CachedPrefix([1, 2, 3, 4], [0, 0, 5, 5], kv_cache_of(4)))
        assert prefix_cache.acquire([1, 2, 3, 4, 5], None) is None
        assert prefix_cache.acquire([1, 2, 3, 4, 5], [7] * 5) is None
        assert prefix_cache.acquire([1, 2, 3, 4, 5], [0, 0, 5, 7, 7]).length == 3

    def test_a_longer_one_replaces_its_beginning(self, prefix_cache):
        prefix_cache.insert(CachedPrefix([1, 2, 3], None, kv_cache_of(3)))
        prefix_cache.insert(CachedPrefix([1, 9], None, kv_cache_of(2)))
        prefix_cache.insert(CachedPrefix([1, 2, 3, 4], None, kv_cache_of(4)))
        assert (len(prefix_cache), prefix_cache.tokens) == (2, 6)

    def test_the_least_recently_used_is_evicted(self, prefix_cache):
        for number in range(6):
            prefix_cache.insert(CachedPrefix([number] * 150, None, kv_cache_of(150)))
        assert prefix_cache.tokens == 450
        assert prefix_cache.acquire([2, 2], None) is None
        assert prefix_cache.acquire([5, 5], None) is not None
        prefix_cache.evict(0)
        assert len(prefix_cache) == 0

    def test_what_cannot_be_truncated_is_not_inserted(self, prefix_cache):
        class Whole(TransformersKVCache):
            @property
            def can_truncate(self) -> bool:
                return False

        kv_cache: KVCache = Whole(GPT2Config(n_layer=1))
        kv_cache.length = 5
        prefix_cache.insert(CachedPrefix([1] * 5, None, kv_cache))
        assert len(prefix_cache) == 0
        assert prefix_cache.acquire([1] * 6, None, [CachedPrefix([1] * 5, None, kv_cache)]) is None
