"""From a model's scores to the next token: the one place that draws.

The functions change scores as the logits processors of transformers do, in the same order; each takes and returns
float32 scores of shape [rows, vocabulary], in which -inf means "never". Knows no model and no text.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from chat_app.config import SamplingConfig
from chat_app.errors import ChatAppError
from chat_app.logprobs import Notes

NEVER = float("-inf")
_BLOCK = 64
_LIKELY = 128  # Where no top-k is set: so many of the likeliest tokens are looked at first.


def repetition_penalty(logits: torch.Tensor, seen: torch.Tensor, penalty: float) -> torch.Tensor:
    """The tokens of `seen` (int64 [n]) become less likely in every row: positive scores are divided, others multiplied.

    Source: Keskar et al. 2019, CTRL, section 4.1.
    """
    scores = logits[..., seen]
    return logits.index_copy(-1, seen, torch.where(scores < 0, scores * penalty, scores / penalty))


class ReplyPenalties:
    """OpenAI's presence and frequency penalties: a token that the reply has c times loses presence + c * frequency.

    The prompt does not count. Source: the definition of both in OpenAI's reference of chat completions.
    """

    def __init__(self, presence: float, frequency: float):
        self._presence, self._frequency = presence, frequency
        self._losses = torch.empty(0)  # [vocabulary] from the first token on.
        self._seen: set[int] = set()
        self._counted = 0

    def taken_from(self, logits: torch.Tensor, written: Sequence[int]) -> torch.Tensor:
        """The scores of one row, [vocabulary], less what the tokens of the reply so far lose.

        Args:
            written: all of them; from call to call they only become more, and only the new ones are looked at.
        """
        if not len(self._losses):
            self._losses = torch.zeros_like(logits)
        for token in written[self._counted :]:
            if token < len(self._losses):
                self._losses[token] += self._frequency if token in self._seen else self._frequency + self._presence
                self._seen.add(token)
        self._counted = len(written)
        return logits - self._losses


def no_repeat_ngram(logits: torch.Tensor, ids: Sequence[Sequence[int]], size: int) -> torch.Tensor:
    """Ban every token that would complete a run of `size` tokens that occurred already in its row of `ids`."""
    changed = logits.clone()
    for row, seen in enumerate(ids):
        if len(seen) < size:
            continue
        begun = list(seen[len(seen) - size + 1 :])
        last_start = len(seen) - size
        banned = [seen[at + size - 1] for at in range(last_start + 1) if list(seen[at : at + size - 1]) == begun]
        changed[row, [token for token in banned if token < logits.shape[-1]]] = NEVER
    return changed


def ban(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """The tokens of `ids` (int64 [n], each below the vocabulary's size) never occur."""
    return logits.index_fill(-1, ids, NEVER)


def temperature(logits: torch.Tensor, value: float) -> torch.Tensor:
    """Below 1 the likely becomes likelier, above 1 less so. `value` is above 0."""
    return logits / value


def top_p(logits: torch.Tensor, p: float) -> torch.Tensor:
    """Keep the fewest best tokens of each row whose probabilities reach p; always one.

    Source: Holtzman et al. 2020, The Curious Case of Neural Text Degeneration, section 3.1.
    """
    # After top_k few are left: sorting those instead of the whole vocabulary saves milliseconds a token.
    left = max(int((logits > NEVER).sum(-1).max()), 1)
    best, order = torch.topk(logits, left)
    shares = best.softmax(-1)
    before = shares.cumsum(-1) - shares
    best = best.masked_fill((before >= p) & (torch.arange(left, device=logits.device) > 0), NEVER)
    return torch.full_like(logits, NEVER).scatter(-1, order, best)


def peaks_of(scores: torch.Tensor) -> torch.Tensor:
    """The best of each whole block of a row, [blocks]; a NaN in a block is its best."""
    return scores[: len(scores) // _BLOCK * _BLOCK].view(-1, _BLOCK).amax(-1)


def best_of(scores: torch.Tensor, k: int, peaks: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """The k best scores of one row, and what is as good as the k-th, in the order of the row; and where they stand.

    Looks for the blocks of the row whose best is among the k best of all blocks: nothing else can be among the k best
    scores, so most of the row is read only once.

    Args:
        scores: [vocabulary].
        peaks: their `peaks_of`, where it is known already.
    """
    if k * _BLOCK >= len(scores):
        values, places = scores, torch.arange(len(scores))
    else:
        whole = len(scores) // _BLOCK * _BLOCK
        best = peaks_of(scores) if peaks is None else peaks
        chosen = (best >= torch.topk(best, k, sorted=False).values.min()).nonzero()  # [blocks, 1]
        rest = torch.arange(whole, len(scores))
        places = torch.cat([(chosen * _BLOCK + torch.arange(_BLOCK)).flatten(), rest])
        values = scores[places]
    if k >= len(values):
        return values, places
    kept = (values >= torch.topk(values, k, sorted=False).values.min()).nonzero()[:, 0]
    return values[kept], places[kept]


def min_p(logits: torch.Tensor, p: float) -> torch.Tensor:
    """Keep the tokens whose probability is at least p times that of the row's best.

    Source: Nguyen et al. 2024, Turning Up the Heat: Min-p Sampling.
    """
    shares = logits.softmax(-1)
    return logits.masked_fill(shares < p * shares.amax(-1, keepdim=True), NEVER)


class Sampler:
    """Draws the tokens of one reply, with a random generator of its own: company changes nothing.

    A mark that ends a reply stands in the conversation after every turn. The repetition penalty leaves it alone, or
    replies would become longer the longer a chat lasts.

    Args:
        config: how to draw.
        end_ids: tokens that end the reply.
        silent_ids: tokens that never occur.
        prompt_length: how many of the ids given to `draw` are not the reply's; n-grams are counted from there.
        notes: where to note how likely the model found each token, if somebody asks.
    """

    def __init__(
        self,
        config: SamplingConfig,
        end_ids: frozenset[int],
        silent_ids: frozenset[int],
        prompt_length: int = 0,
        notes: Notes | None = None,
    ):
        self.config = config
        self._notes = notes
        has_penalties = config.presence_penalty or config.frequency_penalty
        self._penalties = ReplyPenalties(config.presence_penalty, config.frequency_penalty) if has_penalties else None
        self._end_ids = end_ids
        self._silent = torch.tensor(sorted(silent_ids - end_ids), dtype=torch.long)
        self._prompt_length = prompt_length
        self._counted = 0  # Of the ids, those that _seen and _penalised have.
        self._seen: set[int] = set()
        self._penalised = torch.empty(0, dtype=torch.long)
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
        scores = logits.detach().to("cpu", torch.float32)  # On the CPU a seed means the same everywhere.
        peaks = peaks_of(scores)
        rest = scores[len(peaks) * _BLOCK :]
        if not all(bool(torch.isfinite(one.max())) for one in (peaks, rest) if len(one)):
            raise ChatAppError(
                "The model's numbers are broken (NaN): it cannot write.",
                advice="Load it with the precision float32; if that does not help, its weights are damaged.",
            )
        allowed = self._restricted(scores, ids)
        token = self._drawn(allowed, peaks if allowed is scores else None)
        if self._notes is not None:
            self._notes.add(scores, token)
        return token

    def _drawn(self, scores: torch.Tensor, peaks: torch.Tensor | None) -> int:
        if self.config.temperature == 0:
            return int(best_of(scores, 1, peaks)[1][0])
        values, places = self._possible(scores, peaks)
        # One number decides, and what is possible stands in the order of the vocabulary: rounding changes little.
        borders = values.softmax(-1).cumsum(-1)
        drawn = torch.rand(1, generator=self._generator) * borders[-1]
        at = min(int(torch.searchsorted(borders, drawn, right=True)), len(places) - 1)
        return int(places[at])

    def _restricted(self, scores: torch.Tensor, ids: Sequence[int]) -> torch.Tensor:
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
            stricter = no_repeat_ngram(allowed[None], [ids[self._prompt_length :]], config.no_repeat_ngram)[0]
            allowed = stricter if bool((stricter > NEVER).any()) else allowed
        return allowed

    def _seen_in(self, ids: Sequence[int], vocabulary: int) -> torch.Tensor:
        """The tokens of ids that are penalised, [n]. Only what came since the last time is looked at."""
        new = set(ids[self._counted :]) - self._end_ids - self._seen
        self._counted = len(ids)
        if new:
            self._seen |= new
            more = torch.tensor([one for one in sorted(new) if one < vocabulary], dtype=torch.long)
            self._penalised = torch.cat([self._penalised, more])
        return self._penalised

    def _possible(self, scores: torch.Tensor, peaks: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """The scores of what temperature, top-k, top-p and min-p leave, and where they stand in the vocabulary, in its
        order."""
        config = self.config
        if config.top_k:
            values, places = best_of(scores, config.top_k, peaks)
            values = temperature(values, config.temperature)  # Which are the best does not depend on it.
            values = top_p(values, config.top_p) if config.top_p < 1 else values
        elif config.top_p < 1:
            values, places = _likeliest(temperature(scores, config.temperature), config.top_p)
        else:
            values, places = temperature(scores, config.temperature), torch.arange(len(scores))
        if config.min_p:
            values = min_p(values, config.min_p)
        kept = values > NEVER
        return values[kept], places[kept]


def _likeliest(scores: torch.Tensor, p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """What `top_p` leaves of a row, without sorting all of it where a few tokens reach p."""
    total = scores.logsumexp(-1)
    count = _LIKELY
    while count < len(scores):
        values, places = best_of(scores, count)
        order = torch.argsort(values, descending=True)
        shares = (values[order] - total).exp()
        reached = shares.cumsum(-1)
        if float(reached[-1]) > p + 1e-4:
            kept = order[(reached - shares) < p]
            kept = (kept if len(kept) else order[:1]).sort().values
            return values[kept], places[kept]
        count *= 8
    return top_p(scores, p), torch.arange(len(scores))
