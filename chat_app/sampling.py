"""From a model's scores to the next token: the one place that draws.

The functions change scores as the logits processors of transformers do, in the same order; each takes and returns
float32 scores of shape [rows, vocabulary], in which -inf means "never". Knows no model and no text.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import torch

from chat_app.config import SamplingConfig
from chat_app.errors import ChatAppError

NEVER = float("-inf")


def repetition_penalty(
    logits: torch.Tensor, ids: Sequence[Iterable[int]], penalty: float, exempt: frozenset[int] = frozenset()
) -> torch.Tensor:
    """Tokens in `ids` (one collection a row) become less likely: positive scores are divided, others multiplied.

    Source: Keskar et al. 2019, CTRL, section 4.1.

    Args:
        exempt: ids left as they are.
    """
    changed = logits.clone()
    for row, seen in enumerate(ids):
        index = torch.tensor(sorted(set(seen) - exempt), dtype=torch.long, device=logits.device)
        index = index[index < logits.shape[-1]]
        scores = changed[row, index]
        changed[row, index] = torch.where(scores < 0, scores * penalty, scores / penalty)
    return changed


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


def top_k(logits: torch.Tensor, k: int) -> torch.Tensor:
    """Keep the k best of each row, and what is as good as the k-th."""
    least = torch.topk(logits, min(k, logits.shape[-1])).values[..., -1, None]
    return logits.masked_fill(logits < least, NEVER)


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
    """

    def __init__(
        self, config: SamplingConfig, end_ids: frozenset[int], silent_ids: frozenset[int], prompt_length: int = 0
    ):
        self.config = config
        self._end_ids = end_ids
        self._silent = torch.tensor(sorted(silent_ids - end_ids), dtype=torch.long)
        self._prompt_length = prompt_length
        self._generator = torch.Generator()
        seed = config.seed if config.seed >= 0 else int.from_bytes(os.urandom(8), "little") >> 1
        self._generator.manual_seed(seed)

    def draw(self, logits: torch.Tensor, ids: Sequence[int]) -> int:
        """The next token.

        Args:
            logits: scores of the model, [vocabulary], of any float type and on any device.
            ids: the prompt and the reply so far.

        Raises:
            ChatAppError: the scores are no numbers.
        """
        scores = logits.detach().to("cpu", torch.float32).unsqueeze(0)  # On the CPU a seed means the same everywhere.
        if not torch.isfinite(scores.max()):
            raise ChatAppError(
                "The model's numbers are broken (NaN): it cannot write.",
                advice="Load it with the precision float32; if that does not help, its weights are damaged.",
            )
        scores = self._restricted(scores, ids)
        if self.config.temperature == 0:
            return int(scores.argmax())
        shares = self._warped(scores)[0].softmax(-1)
        possible = shares.nonzero()[:, 0]
        return int(possible[torch.multinomial(shares[possible], 1, generator=self._generator)])

    def _restricted(self, scores: torch.Tensor, ids: Sequence[int]) -> torch.Tensor:
        """What holds for greedy replies too. Falls back to less where nothing would be allowed."""
        config = self.config
        silent = self._silent[self._silent < scores.shape[-1]]
        allowed = ban(scores, silent) if len(silent) < scores.shape[-1] else scores
        if config.repetition_penalty != 1:
            allowed = repetition_penalty(allowed, [ids], config.repetition_penalty, self._end_ids)
        if config.no_repeat_ngram:
            stricter = no_repeat_ngram(allowed, [ids[self._prompt_length :]], config.no_repeat_ngram)
            allowed = stricter if bool((stricter > NEVER).any()) else allowed
        return allowed

    def _warped(self, scores: torch.Tensor) -> torch.Tensor:
        config = self.config
        scores = temperature(scores, config.temperature)
        if config.top_k:
            scores = top_k(scores, config.top_k)
        if config.top_p < 1:
            scores = top_p(scores, config.top_p)
        return min_p(scores, config.min_p) if config.min_p else scores
