"""What is remembered of finished sequences: the longest beginning, handed over or copied, never too much."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config

from chat_app.inference.kv_cache import SMALLEST_ROOM, KeyValues, LayerCaches, Memory
from chat_app.inference.kv_cache_packed import TiledKeyValues
from chat_app.inference.prefix_cache import Computed, Prefixes
from chat_app.kernels.layout import TILE_N

WINDOW = 1000


LAYERS, HEADS = 2, 3


def kept(kind: type, width: int) -> KeyValues | TiledKeyValues:
    if kind is KeyValues:
        return KeyValues(LAYERS, HEADS, width, WINDOW, torch.bfloat16)
    return TiledKeyValues(LAYERS, HEADS, width, WINDOW)


def extend(memory: KeyValues | TiledKeyValues, length: int, width: int = 4, seed: int = 0) -> None:
    """Add tokens, of which every number is another one."""
    memory.make_room(length)
    for layer in range(LAYERS):
        generator = torch.Generator().manual_seed(100 * seed + layer)
        memory.extended(layer, torch.randn(2, HEADS, length, width, generator=generator).bfloat16())
    memory.length += length


def memory_of(length: int, seed: int = 0) -> KeyValues:
    memory = kept(KeyValues, 4)
    extend(memory, length, seed=seed)
    return memory


def numbers(memory: KeyValues | TiledKeyValues, width: int = 4) -> torch.Tensor:
    """[layers, keys or values, heads, tokens, width]."""
    nothing = torch.empty(2, HEADS, 0, width, dtype=torch.bfloat16)
    return torch.stack([torch.cat(memory.extended(layer, nothing)) for layer in range(LAYERS)])


@pytest.fixture
def prefixes() -> Prefixes:
    return Prefixes(500)


@pytest.mark.parametrize(("kind", "width"), [(KeyValues, 4), (TiledKeyValues, 4), (TiledKeyValues, 160)])
class TestMemory:
    def test_what_is_added_is_kept(self, kind, width):
        memory = kept(kind, width)
        given = []
        for seed, length in enumerate((1, 1, 30, 33, 64, 71, 1, 200)):  # In tiles, over and at their ends.
            extend(memory, length, width, seed)
            one = kept(kind, width)
            extend(one, length, width, seed)
            given.append(numbers(one, width))
        assert memory.length == 401
        assert torch.equal(numbers(memory, width), torch.cat(given, 3))

    def test_it_grows_without_losing_anything(self, kind, width):
        memory = kept(kind, width)
        extend(memory, 10, width)
        before = numbers(memory, width).clone()
        for length in (SMALLEST_ROOM, 700, WINDOW):
            memory.make_room(length - memory.length)
            assert memory.room >= length
            assert torch.equal(numbers(memory, width), before)
        assert memory.room < WINDOW + TILE_N

    def test_a_copy_is_independent(self, kind, width):
        memory = kept(kind, width)
        extend(memory, 50, width)
        before = numbers(memory, width).clone()
        copy = memory.copy(21)
        assert copy.length == 21
        assert torch.equal(numbers(copy, width), before[:, :, :, :21])
        extend(copy, 30, width, seed=1)
        assert torch.equal(numbers(memory, width), before)
        assert torch.equal(numbers(copy, width)[:, :, :, :21], before[:, :, :, :21])


class TestCachesOfTransformers:
    def test_they_are_cut_and_copied(self):
        memory = LayerCaches(GPT2Config(n_layer=2))
        keys = torch.randn(1, 3, 50, 4)
        for layer in range(2):
            memory.cache.update(keys, keys + 1, layer)
        memory.length = 50
        copy = memory.copy(20)
        memory.cut(30)
        assert (memory.length, copy.length) == (30, 20)
        assert torch.equal(memory.cache.layers[1].keys, keys[:, :, :30])
        assert torch.equal(copy.cache.layers[1].values, keys[:, :, :20] + 1)


class TestPrefixes:
    def test_the_next_turn_is_handed_its_memory(self, prefixes):
        memory = memory_of(30)
        prefixes.keep(Computed(list(range(31)), None, memory))
        assert prefixes.take(list(range(40)), None) is memory
        assert memory.length == 30
        assert len(prefixes) == 0

    def test_one_token_is_always_left(self, prefixes):
        memory = memory_of(30)
        prefixes.keep(Computed(list(range(30)), None, memory))
        assert prefixes.take(list(range(30)), None) is memory
        assert memory.length == 29

    def test_what_shares_only_the_beginning_gets_a_copy(self, prefixes):
        memory = memory_of(30)
        prefixes.keep(Computed(list(range(30)), None, memory))
        taken = prefixes.take([*range(10), 99, 98], None)
        assert taken is not memory
        assert taken.length == 10
        assert memory.length == 30
        assert len(prefixes) == 1

    def test_the_longest_is_taken_from_what_is_kept_and_what_runs(self, prefixes):
        running = Computed(list(range(25)), None, memory_of(25))
        prefixes.keep(Computed([*range(12), 50], None, memory_of(13)))
        taken = prefixes.take(list(range(40)), None, [running])
        assert taken.length == 25
        assert taken is not running.memory
        assert prefixes.take([*range(12), 50, 51], None, [running]).length == 13

    def test_types_belong_to_it(self, prefixes):
        prefixes.keep(Computed([1, 2, 3, 4], [0, 0, 5, 5], memory_of(4)))
        assert prefixes.take([1, 2, 3, 4, 5], None) is None
        assert prefixes.take([1, 2, 3, 4, 5], [7] * 5) is None
        assert prefixes.take([1, 2, 3, 4, 5], [0, 0, 5, 7, 7]).length == 3

    def test_a_longer_one_replaces_its_beginning(self, prefixes):
        prefixes.keep(Computed([1, 2, 3], None, memory_of(3)))
        prefixes.keep(Computed([1, 9], None, memory_of(2)))
        prefixes.keep(Computed([1, 2, 3, 4], None, memory_of(4)))
        assert (len(prefixes), prefixes.tokens) == (2, 6)

    def test_the_oldest_goes_when_it_is_too_much(self, prefixes):
        for number in range(6):
            prefixes.keep(Computed([number] * 150, None, memory_of(150)))
        assert prefixes.tokens == 450
        assert prefixes.take([2, 2], None) is None
        assert prefixes.take([5, 5], None) is not None
        prefixes.shrink(0)
        assert len(prefixes) == 0

    def test_what_cannot_be_cut_is_not_kept(self, prefixes):
        class Whole(LayerCaches):
            @property
            def can_be_cut(self) -> bool:
                return False

        memory: Memory = Whole(GPT2Config(n_layer=1))
        memory.length = 5
        prefixes.keep(Computed([1] * 5, None, memory))
        assert len(prefixes) == 0
        assert prefixes.take([1] * 6, None, [Computed([1] * 5, None, memory)]) is None
