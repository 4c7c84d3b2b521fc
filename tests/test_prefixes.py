"""What is remembered of finished sequences: the longest beginning, handed over or copied, never too much."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config

from chat_app.key_values import SMALLEST_ROOM, KeyValues, LayerCaches, Memory
from chat_app.prefixes import Computed, Prefixes

WINDOW = 1000


def memory_of(length: int, seed: int = 0) -> KeyValues:
    memory = KeyValues(2, 3, 4, WINDOW, torch.float32)
    places, _, _ = memory.views(length)
    for place in places:
        place.copy_(torch.randn(place.shape, generator=torch.Generator().manual_seed(seed)))
    memory.length = length
    return memory


def numbers(memory: KeyValues) -> torch.Tensor:
    _, keys, values = memory.views(0)
    return torch.stack([torch.cat(keys), torch.cat(values)])


@pytest.fixture
def prefixes() -> Prefixes:
    return Prefixes(500)


class TestMemory:
    def test_it_grows_without_losing_anything(self):
        memory = memory_of(10)
        before = numbers(memory).clone()
        for length in (SMALLEST_ROOM, 700, WINDOW):
            memory.views(length - memory.length)
            assert memory.room >= length
            assert torch.equal(numbers(memory), before)
        assert memory.room == WINDOW

    def test_a_copy_is_independent(self):
        memory = memory_of(50)
        before = numbers(memory).clone()
        copy = memory.copy(20)
        assert copy.length == 20
        assert torch.equal(numbers(copy), before[:, :, :, :20])
        for place in copy.views(30)[0]:
            place.zero_()
        assert torch.equal(numbers(memory), before)

    def test_transformers_caches_are_cut_and_copied(self):
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
