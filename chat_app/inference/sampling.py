"""From a model's scores to the next token: the one place that draws.

The functions change scores as the logits processors of transformers do, in the same order; each takes and returns the
float32 scores of one place, [vocabulary], in which -inf means "never". They compute with numpy, which begins its work
several times as fast as torch, and this is little work. Knows no model and no text.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from chat_app.config.sampling import SamplingConfig
from chat_app.errors import ChatAppError
from chat_app.inference.logprobs import LogprobRecorder

Scores: TypeAlias = npt.NDArray[np.float32]
Places: TypeAlias = npt.NDArray[np.int64]

NEVER = np.float32("-inf")
_GROUP = 64
_LIKELY = 128  # Where no top-k is set: so many of the likeliest tokens are looked at first.


def repetition_penalty(scores: Scores, seen: Places, penalty: float) -> Scores:
    """The tokens of `seen` (each once) become less likely: positive scores are divided, others multiplied.

    Source: Keskar et al. 2019, CTRL, section 4.1.
    """
    changed: Scores = scores.copy()
    factor = np.float32(penalty)
    those = scores[seen]
    changed[seen] = np.where(those < 0, those * factor, those / factor)
    return changed


class ReplyPenalties:
    """OpenAI's presence and frequency penalties: a token that the reply has c times loses presence + c * frequency.

    The prompt does not count. Source: the definition of both in OpenAI's reference of chat completions.
    """

    def __init__(self, presence: float, frequency: float):
        self._presence, self._frequency = presence, frequency
        self._losses: Scores = np.empty(0, np.float32)  # [vocabulary] from the first token on.
        self._seen: set[int] = set()
        self._counted = 0

    def taken_from(self, scores: Scores, written: Sequence[int]) -> Scores:
        """The scores less what the tokens of the reply so far lose.

        Args:
            written: all of them; from call to call they only become more, and only the new ones are looked at.
        """
        if not len(self._losses):
            self._losses = np.zeros_like(scores)
        for token in written[self._counted :]:
            if token < len(self._losses):
                self._losses[token] += self._frequency if token in self._seen else self._frequency + self._presence
                self._seen.add(token)
        self._counted = len(written)
        return scores - self._losses


def no_repeat_ngram(scores: Scores, ids: Sequence[int], size: int) -> Scores:
    """Ban every token that would complete a run of `size` tokens that occurred already in `ids`."""
    begun = list(ids[len(ids) - size + 1 :])
    ends = range(size - 1, len(ids))
    banned = [ids[end] for end in ends if list(ids[end - size + 1 : end]) == begun]
    return ban(scores, np.array([token for token in banned if token < len(scores)], np.int64))


def ban(scores: Scores, ids: Places) -> Scores:
    """The tokens of `ids`, each below the vocabulary's size, never occur."""
    changed: Scores = scores.copy()
    changed[ids] = NEVER
    return changed


def temperature(scores: Scores, value: float) -> Scores:
    """Below 1 the likely becomes likelier, above 1 less so. `value` is above 0."""
    changed: Scores = scores / np.float32(value)
    return changed


def top_p(scores: Scores, p: float) -> Scores:
    """Keep the fewest best tokens whose probabilities reach p; always one.

    Source: Holtzman et al. 2020, The Curious Case of Neural Text Degeneration, section 3.1.
    """
    order = np.argsort(-scores, kind="stable")
    shares = softmax(scores[order])
    lost = order[1:][(shares.cumsum() - shares)[1:] >= p]
    return ban(scores, lost)


def softmax(scores: Scores) -> Scores:
    """The probabilities of tokens."""
    powers = np.exp(scores - scores.max())
    whole: Scores = powers / powers.sum()
    return whole


def best_of(scores: Scores, k: int) -> tuple[Scores, Places]:
    """The k best scores, and what is as good as the k-th, in the order of the vocabulary; and where they stand.

    The scores are looked at in groups: what is worse than the k-th of the groups' best is none of the k best, so that
    next to nothing is left to be sorted.
    """
    whole = len(scores) // _GROUP * _GROUP
    if k * _GROUP < whole:
        peaks = scores[:whole].reshape(_GROUP, -1).max(0)  # A group is what stands below one another.
        places = np.flatnonzero(scores >= _highest(peaks, k))
    else:
        places = np.arange(len(scores), dtype=np.int64)
    values = scores[places]
    if k < len(values):
        kept = values >= _highest(values, k)
        values, places = values[kept], places[kept]
    return values, places


def _highest(scores: Scores, k: int) -> np.float32:
    """The k-th best."""
    at = len(scores) - k
    best: np.float32 = np.partition(scores, at)[at]
    return best


def min_p(scores: Scores, p: float) -> Scores:
    """Keep the tokens whose probability is at least p times that of the best.

    Source: Nguyen et al. 2024, Turning Up the Heat: Min-p Sampling.
    """
    shares = softmax(scores)
    return np.where(shares < np.float32(p) * shares.max(), NEVER, scores)


class Sampler:
    """Draws the tokens of one reply, with a random generator of its own: company changes nothing.

    A mark that ends a reply stands in the conversation after every turn. The repetition penalty leaves it alone, or
    replies would become longer the longer a chat lasts.

    Args:
        config: how to draw.
        end_ids: tokens that end the reply.
        suppressed_ids: tokens that never occur.
        prompt_length: how many of the ids given to `draw` are not the reply's; n-grams are counted from there.
        recorder: records the log probability of each token, if they are requested.
    """

    def __init__(
        self,
        config: SamplingConfig,
        end_ids: frozenset[int],
        suppressed_ids: frozenset[int],
        prompt_length: int = 0,
        recorder: LogprobRecorder | None = None,
    ):
        self.config = config
        self._recorder = recorder
        has_penalties = config.presence_penalty or config.frequency_penalty
        self._penalties = ReplyPenalties(config.presence_penalty, config.frequency_penalty) if has_penalties else None
        self._end_ids = end_ids
        self._silent: Places = np.array(sorted(suppressed_ids - end_ids), np.int64)
        self._prompt_length = prompt_length
        self._counted = 0  # Of the ids, those that _seen and _penalised have.
        self._seen: set[int] = set()
        self._penalised: Places = np.empty(0, np.int64)
        self._generator = torch.Generator()
        seed = config.seed if config.seed >= 0 else int.from_bytes(os.urandom(8), "little") >> 1
        self._generator.manual_seed(seed)

    def draw(self, logits: torch.Tensor, ids: Sequence[int]) -> int:
        """The next token.

        Args:
            logits: scores of the model, [vocabulary], of any float type and on any device.
            ids: the prompt and the reply so far; from call to call it only grows.

        Raises:
            ChatAppError: the scores are no numbers.
        """
        scores: Scores = logits.detach().to("cpu", torch.float32).numpy()
        if not np.isfinite(scores.max()):
            raise ChatAppError(
                "The model's numbers are broken (NaN): it cannot write.",
                advice="Load it with the precision float32; if that does not help, its weights are damaged.",
            )
        token = self._drawn(self._restricted(scores, ids))
        if self._recorder is not None:
            self._recorder.add(scores, token)
        return token

    def _drawn(self, scores: Scores) -> int:
        if self.config.temperature == 0:
            return int(scores.argmax())
        values, places = self._possible(scores)
        # One number decides, and what is possible stands in the order of the vocabulary: rounding changes little.
        borders = softmax(values).cumsum()
        drawn = (
            np.float32(torch.rand(1, generator=self._generator, dtype=torch.float32, device="cpu").item()) * borders[-1]
        )
        return int(places[min(int(borders.searchsorted(drawn, side="right")), len(places) - 1)])

    def _restricted(self, scores: Scores, ids: Sequence[int]) -> Scores:
        """What holds for greedy replies too. Falls back to less where nothing would be allowed."""
        config = self.config
        silent = self._silent
        if len(silent) and silent[-1] >= len(scores):
            silent = self._silent = silent[silent < len(scores)]
        allowed = ban(scores, silent) if 0 < len(silent) < len(scores) else scores
        if config.repetition_penalty != 1:
            seen = self._seen_in(ids, len(scores))
            allowed = repetition_penalty(allowed, seen, config.repetition_penalty)
        if self._penalties is not None:
            allowed = self._penalties.taken_from(allowed, ids[self._prompt_length :])
        if config.no_repeat_ngram:
            stricter = no_repeat_ngram(allowed, ids[self._prompt_length :], config.no_repeat_ngram)
            allowed = stricter if stricter.max() > NEVER else allowed
        return allowed

    def _seen_in(self, ids: Sequence[int], vocabulary: int) -> Places:
        """The tokens of ids that are penalised, [n]. Only what came since the last time is looked at."""
        new = set(ids[self._counted :]) - self._end_ids - self._seen
        self._counted = len(ids)
        if new:
            self._seen |= new
            more = np.array([one for one in sorted(new) if one < vocabulary], np.int64)
            self._penalised = np.concatenate([self._penalised, more])
        return self._penalised

    def _possible(self, scores: Scores) -> tuple[Scores, Places]:
        """The scores of what temperature, top-k, top-p and min-p leave, and where they stand in the vocabulary, in its
        order."""
        config = self.config
        if config.top_k:
            values, places = best_of(scores, config.top_k)
            values = temperature(values, config.temperature)  # Which are the best does not depend on it.
            values = top_p(values, config.top_p) if config.top_p < 1 else values
        elif config.top_p < 1:
            values, places = likeliest(temperature(scores, config.temperature), config.top_p)
        else:
            values, places = temperature(scores, config.temperature), np.arange(len(scores), dtype=np.int64)
        if config.min_p:
            values = min_p(values, config.min_p)
        kept = values > NEVER
        return values[kept], places[kept]


def likeliest(scores: Scores, p: float) -> tuple[Scores, Places]:
    """What `top_p` leaves and where it stands, without sorting all where a few tokens reach p."""
    highest = scores.max()
    total = np.exp(scores - highest).sum()
    count = _LIKELY
    while count < len(scores):
        values, places = best_of(scores, count)
        order = np.argsort(-values, kind="stable")
        shares = np.exp(values[order] - highest) / total
        reached = shares.cumsum()
        if reached[-1] > p + 1e-4:
            kept = order[(reached - shares) < p]
            kept = np.sort(kept if len(kept) else order[:1])
            return values[kept], places[kept]
        count *= 8
    return top_p(scores, p), np.arange(len(scores), dtype=np.int64)
