"""Each function against the logits processor of transformers, and the guards."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import (
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from chat_app.config.sampling import SamplingConfig
from chat_app.errors import ChatAppError
from chat_app.inference import sampling
from chat_app.inference.sampling import NEVER, Sampler

NONE: frozenset[int] = frozenset()
PLAIN = SamplingConfig(temperature=1, top_p=1, top_k=0, repetition_penalty=1, seed=5)


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(4, 300, generator=torch.Generator().manual_seed(1)) * 3


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(0, 12, (4, 40), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("penalty", [1.05, 1.3, 2.0])
def test_repetition_penalty(logits, ids, penalty):
    expected = RepetitionPenaltyLogitsProcessor(penalty)(ids[:1], logits[:1].clone())
    changed = sampling.repetition_penalty(logits[0].numpy(), ids[0].unique().numpy(), penalty)
    torch.testing.assert_close(torch.from_numpy(changed), expected[0])


def test_what_was_said_is_penalised_but_the_end_is_not():
    """Each word that is said falls below the next one; the end mark stays where it is."""
    sampler = Sampler(SamplingConfig(temperature=0, repetition_penalty=2), frozenset({3}), NONE)
    logits, ids, said = torch.tensor([4.0, 3.0, -1.0, 2.5]), [99], []
    for _ in range(4):
        said.append(sampler.draw(logits, ids))
        ids = [*ids, said[-1]]
    assert said == [0, 1, 3, 3]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 60])
def test_no_repeat_ngram(logits, ids, size):
    expected = NoRepeatNGramLogitsProcessor(size)(ids, logits.clone())
    rows = [sampling.no_repeat_ngram(row.numpy(), said, size) for row, said in zip(logits, ids.tolist(), strict=True)]
    assert np.array_equal(rows, expected)


def test_ban(logits, ids):
    expected = SuppressTokensLogitsProcessor([1, 7, 299])(ids, logits.clone())
    assert np.array_equal(sampling.ban(logits[0].numpy(), np.array([1, 7, 299])), expected[0])


@pytest.mark.parametrize("value", [0.1, 0.7, 1.9])
def test_temperature(logits, ids, value):
    expected = TemperatureLogitsWarper(value)(ids, logits.clone())
    assert np.array_equal(sampling.temperature(logits[0].numpy(), value), expected[0])


@pytest.mark.parametrize("vocabulary", [1, 63, 64, 300, 5000, 5056])
@pytest.mark.parametrize("k", [1, 2, 50, 300, 1000])
def test_the_best_are_those_that_top_k_leaves(vocabulary, k):
    row = torch.randn(vocabulary, generator=torch.Generator().manual_seed(k))
    for one in (row, (row * 2).round()):  # The rounded ones have many ties.
        left = TopKLogitsWarper(k)(torch.empty(1, 0), one[None].clone())[0]
        values, places = sampling.top_k(one.numpy(), k)
        assert np.array_equal(places, np.flatnonzero(left > NEVER))
        assert np.array_equal(values, one[places])


def test_the_best_of_what_is_mostly_forbidden():
    row = torch.full((1000,), NEVER)
    row[[5, 700, 999]] = torch.tensor([1.0, 2.0, 0.5])
    values, places = sampling.top_k(row.numpy(), 3)
    assert places[values > NEVER].tolist() == [5, 700, 999]


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_top_p(logits, ids, p):
    for given in (logits, TopKLogitsWarper(20)(ids, logits.clone())):
        expected = TopPLogitsWarper(p)(ids, given.clone())
        assert np.array_equal([sampling.top_p(row.numpy(), p) for row in given], expected)


@pytest.mark.parametrize("p", [0.0, 0.3, 0.9, 0.99])
@pytest.mark.parametrize("flat", [0.05, 1.0, 4.0])
def test_top_p_without_top_k_is_the_same_for_large_vocabularies(p, flat):
    row = torch.randn(6000, generator=torch.Generator().manual_seed(3)) * flat
    expected = TopPLogitsWarper(p)(torch.empty(1, 0), row[None].clone())[0]
    values, places = sampling.top_p_candidates(row.numpy(), p)
    places = places[values > NEVER]
    assert len(set(places.tolist()) ^ set((expected > NEVER).nonzero()[:, 0].tolist())) <= 1  # Rounding of the sum.


@pytest.mark.parametrize("p", [0.0, 0.05, 0.5, 1.0])
def test_min_p(logits, ids, p):
    expected = MinPLogitsWarper(p)(ids, logits.clone())
    assert np.array_equal([sampling.min_p(row.numpy(), p) for row in logits], expected)


def test_temperature_zero_takes_the_best(logits):
    config = SamplingConfig(temperature=0, repetition_penalty=1)
    assert Sampler(config, NONE, NONE).draw(logits[0], [1, 2]) == int(logits[0].argmax())


def test_silent_tokens_never_come():
    logits = torch.tensor([0.0, 9.0, 8.0, 1.0])
    for temperature in (0, 1):
        config = SamplingConfig(temperature=temperature, repetition_penalty=1)
        drawn = {Sampler(config, NONE, frozenset({1, 2, 99})).draw(logits, [0]) for _ in range(20)}
        assert drawn <= {0, 3}


def test_a_seed_repeats_and_no_seed_does_not(logits):
    def twenty(seed: int) -> list[int]:
        sampler = Sampler(SamplingConfig(temperature=2, top_p=1, top_k=0, seed=seed), NONE, NONE)
        return [sampler.draw(logits[0], [0]) for _ in range(20)]

    assert twenty(3) == twenty(3)
    assert twenty(3) != twenty(4)
    assert twenty(-1) != twenty(-1)


def test_draws_have_the_shares_of_the_softmax():
    logits = torch.log(torch.tensor([0.5, 0.3, 0.2]))
    sampler = Sampler(PLAIN, NONE, NONE)
    counts = torch.bincount(torch.tensor([sampler.draw(logits, []) for _ in range(4000)]), minlength=3) / 4000
    torch.testing.assert_close(counts, logits.exp(), atol=0.03, rtol=0)


def test_ngrams_are_those_of_the_reply_only():
    logits = torch.tensor([0.0, 5.0, 1.0])
    config = SamplingConfig(temperature=0, repetition_penalty=1, no_repeat_ngram=2)
    assert Sampler(config, NONE, NONE, prompt_length=3).draw(logits, [2, 1, 2]) == 1
    assert Sampler(config, NONE, NONE, prompt_length=0).draw(logits, [2, 1, 2]) == 2


def test_nothing_allowed_falls_back():
    config = SamplingConfig(temperature=0, repetition_penalty=1, no_repeat_ngram=1)
    assert Sampler(config, NONE, NONE).draw(torch.tensor([1.0, 2.0]), [0, 1]) == 1
    assert Sampler(PLAIN, NONE, frozenset({0, 1})).draw(torch.tensor([1.0, 2.0]), []) in (0, 1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_broken_numbers_are_a_sentence(bad):
    with pytest.raises(ChatAppError, match="NaN"):
        Sampler(PLAIN, NONE, NONE).draw(torch.tensor([1.0, bad, 0.0]), [])
    with pytest.raises(ChatAppError, match="NaN"):
        Sampler(PLAIN, NONE, NONE).draw(torch.full((4,), NEVER), [])


def test_bfloat16_scores_are_taken():
    assert (
        Sampler(SamplingConfig(temperature=0), NONE, NONE).draw(torch.tensor([1, 3, 2], dtype=torch.bfloat16), []) == 1
    )
