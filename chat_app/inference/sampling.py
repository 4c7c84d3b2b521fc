"""Sampling: from a model's logits to the next token.

The functions change logits as the logits processors of transformers do, in the same order; each takes and returns the
float32 logits of one position, [vocabulary], in which -inf means "never". They compute with numpy, whose calls start
several times as fast as torch's, and the work itself is little. Knows no model and no text.
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

Logits: TypeAlias = npt.NDArray[np.float32]
TokenIds: TypeAlias = npt.NDArray[np.int64]

NEVER = np.float32("-inf")
_GROUPS = 64  # `top_k` looks at the maximum of each group of logits first.
_CANDIDATES = 128  # Without top-k, top-p looks at this many of the most likely tokens first.


def repetition_penalty(logits: Logits, seen: TokenIds, penalty: float) -> Logits:
    """Make the tokens of `seen` (each once) less likely: positive logits are divided, others multiplied.

    Source: Keskar et al. 2019, CTRL, section 4.1.
    """
    changed: Logits = logits.copy()
    factor = np.float32(penalty)
    those = logits[seen]
    changed[seen] = np.where(those < 0, those * factor, those / factor)
    return changed


class ReplyPenalties:
    """OpenAI's presence and frequency penalties: a token that occurs c times in the reply loses presence + c *
    frequency.

    The prompt does not count. Source: the definition of both in OpenAI's reference of chat completions.
    """

    def __init__(self, presence: float, frequency: float):
        self._presence, self._frequency = presence, frequency
        self._losses: Logits = np.empty(0, np.float32)  # [vocabulary] from the first token on.
        self._seen: set[int] = set()
        self._counted = 0

    def apply(self, logits: Logits, output_ids: Sequence[int]) -> Logits:
        """The logits minus the penalties of the reply's tokens.

        Args:
            output_ids: of the whole reply so far; from call to call it only grows, and only new ids are looked at.
        """
        if not len(self._losses):
            self._losses = np.zeros_like(logits)
        for token in output_ids[self._counted :]:
            if token < len(self._losses):
                self._losses[token] += self._frequency if token in self._seen else self._frequency + self._presence
                self._seen.add(token)
        self._counted = len(output_ids)
        return logits - self._losses


def no_repeat_ngram(logits: Logits, ids: Sequence[int], size: int) -> Logits:
    """Ban every token that would complete an n-gram of `size` tokens that occurs already in `ids`."""
    begun = list(ids[len(ids) - size + 1 :])
    ends = range(size - 1, len(ids))
    banned = [ids[end] for end in ends if list(ids[end - size + 1 : end]) == begun]
    return ban(logits, np.array([token for token in banned if token < len(logits)], np.int64))


def ban(logits: Logits, ids: TokenIds) -> Logits:
    """Make the tokens of `ids`, each below the vocabulary's size, impossible."""
    changed: Logits = logits.copy()
    changed[ids] = NEVER
    return changed


def temperature(logits: Logits, value: float) -> Logits:
    """Divide by the temperature: below 1 likely tokens become likelier, above 1 less so. `value` is above 0."""
    scaled: Logits = logits / np.float32(value)
    return scaled


def top_p(logits: Logits, p: float) -> Logits:
    """Nucleus sampling: keep the fewest best tokens whose probabilities reach p; always one.

    Source: Holtzman et al. 2020, The Curious Case of Neural Text Degeneration, section 3.1.
    """
    order = np.argsort(-logits, kind="stable")
    probabilities = softmax(logits[order])
    lost = order[1:][(probabilities.cumsum() - probabilities)[1:] >= p]
    return ban(logits, lost)


def softmax(logits: Logits) -> Logits:
    """The probabilities of tokens."""
    numerators = np.exp(logits - logits.max())
    probabilities: Logits = numerators / numerators.sum()
    return probabilities


def top_k(logits: Logits, k: int) -> tuple[Logits, TokenIds]:
    """The k best logits, with ties of the k-th, and their token ids, in the order of the vocabulary.

    A logit below the k-th best maximum of groups cannot be one of the k best, so that next to nothing is left to sort.
    """
    whole = len(logits) // _GROUPS * _GROUPS
    if k * _GROUPS < whole:
        peaks = logits[:whole].reshape(_GROUPS, -1).max(0)  # A group is a column.
        ids = np.flatnonzero(logits >= _kth_best(peaks, k))
    else:
        ids = np.arange(len(logits), dtype=np.int64)
    values = logits[ids]
    if k < len(values):
        kept = values >= _kth_best(values, k)
        values, ids = values[kept], ids[kept]
    return values, ids


def _kth_best(logits: Logits, k: int) -> np.float32:
    index = len(logits) - k
    best: np.float32 = np.partition(logits, index)[index]
    return best


def min_p(logits: Logits, p: float) -> Logits:
    """Keep the tokens whose probability is at least p times that of the best.

    Source: Nguyen et al. 2024, Turning Up the Heat: Min-p Sampling.
    """
    probabilities = softmax(logits)
    return np.where(probabilities < np.float32(p) * probabilities.max(), NEVER, logits)


class Sampler:
    """Samples the tokens of one reply. It has its own random generator, so other sequences do not change its tokens.

    The repetition penalty spares end tokens: one stands after every turn of the conversation, and replies would become
    longer the longer a chat lasts.

    Args:
        config: how to sample.
        end_ids: tokens that end the reply.
        suppressed_ids: tokens that are never sampled.
        prompt_length: how many of the ids given to `draw` are the prompt's; n-grams are counted after them.
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
        self._suppressed: TokenIds = np.array(sorted(suppressed_ids - end_ids), np.int64)
        self._prompt_length = prompt_length
        self._counted = 0  # How many of the ids are in _seen and _penalised.
        self._seen: set[int] = set()
        self._penalised: TokenIds = np.empty(0, np.int64)
        self._generator = torch.Generator()
        seed = config.seed if config.seed >= 0 else int.from_bytes(os.urandom(8), "little") >> 1
        self._generator.manual_seed(seed)

    def draw(self, logits: torch.Tensor, ids: Sequence[int]) -> int:
        """Sample the next token.

        Args:
            logits: of the model, [vocabulary], of any float type and on any device.
            ids: the prompt and the reply so far; from call to call they only grow.

        Raises:
            ChatAppError: the logits are not finite.
        """
        values: Logits = logits.detach().to("cpu", torch.float32).numpy()
        if not np.isfinite(values.max()):
            raise ChatAppError(
                "The model's numbers are broken (NaN): it cannot write.",
                advice="Load it with the precision float32; if that does not help, its weights are damaged.",
            )
        token = self._draw(self._restrict(values, ids))
        if self._recorder is not None:
            self._recorder.add(values, token)
        return token

    def _draw(self, logits: Logits) -> int:
        if self.config.temperature == 0:
            return int(logits.argmax())
        values, ids = self._filter(logits)
        # One random number decides, and the candidates are in the order of the vocabulary: rounding changes little.
        borders = softmax(values).cumsum()
        random = torch.rand(1, generator=self._generator, dtype=torch.float32, device="cpu").item()
        index = int(borders.searchsorted(np.float32(random) * borders[-1], side="right"))
        return int(ids[min(index, len(ids) - 1)])

    def _restrict(self, logits: Logits, ids: Sequence[int]) -> Logits:
        """Apply what holds for greedy decoding too. A restriction that would leave no token is skipped."""
        config = self.config
        suppressed = self._suppressed
        if len(suppressed) and suppressed[-1] >= len(logits):
            suppressed = self._suppressed = suppressed[suppressed < len(logits)]
        allowed = ban(logits, suppressed) if 0 < len(suppressed) < len(logits) else logits
        if config.repetition_penalty != 1:
            seen = self._update_seen(ids, len(logits))
            allowed = repetition_penalty(allowed, seen, config.repetition_penalty)
        if self._penalties is not None:
            allowed = self._penalties.apply(allowed, ids[self._prompt_length :])
        if config.no_repeat_ngram:
            stricter = no_repeat_ngram(allowed, ids[self._prompt_length :], config.no_repeat_ngram)
            allowed = stricter if stricter.max() > NEVER else allowed
        return allowed

    def _update_seen(self, ids: Sequence[int], vocabulary: int) -> TokenIds:
        """The tokens of `ids` that are penalised, [n]. Only ids that are new since the last call are looked at."""
        new = set(ids[self._counted :]) - self._end_ids - self._seen
        self._counted = len(ids)
        if new:
            self._seen |= new
            more = np.array([token for token in sorted(new) if token < vocabulary], np.int64)
            self._penalised = np.concatenate([self._penalised, more])
        return self._penalised

    def _filter(self, logits: Logits) -> tuple[Logits, TokenIds]:
        """The logits that temperature, top-k, top-p and min-p leave, and their token ids, in the vocabulary's order."""
        config = self.config
        if config.top_k:
            values, ids = top_k(logits, config.top_k)
            values = temperature(values, config.temperature)  # It does not change which logits are the best.
            values = top_p(values, config.top_p) if config.top_p < 1 else values
        elif config.top_p < 1:
            values, ids = top_p_candidates(temperature(logits, config.temperature), config.top_p)
        else:
            values, ids = temperature(logits, config.temperature), np.arange(len(logits), dtype=np.int64)
        if config.min_p:
            values = min_p(values, config.min_p)
        kept = values > NEVER
        return values[kept], ids[kept]


def top_p_candidates(logits: Logits, p: float) -> tuple[Logits, TokenIds]:
    """As `top_p`, with token ids, without sorting the whole vocabulary where a few tokens reach p."""
    highest = logits.max()
    total = np.exp(logits - highest).sum()
    count = _CANDIDATES
    while count < len(logits):
        values, ids = top_k(logits, count)
        order = np.argsort(-values, kind="stable")
        probabilities = np.exp(values[order] - highest) / total
        reached = probabilities.cumsum()
        if reached[-1] > p + 1e-4:
            kept = order[(reached - probabilities) < p]
            kept = np.sort(kept if len(kept) else order[:1])
            return values[kept], ids[kept]
        count *= 8
    return top_p(logits, p), np.arange(len(logits), dtype=np.int64)
