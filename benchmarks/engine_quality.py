"""What the lower precisions cost in quality, on the starter: perplexity, and whether company changes replies."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch

from chat_app.config.loading import LoadConfig
from chat_app.config.paths import STARTER, Paths
from chat_app.config.sampling import SamplingConfig
from chat_app.conversation import Conversation
from chat_app.data.readers import read_file
from chat_app.inference.backend import reply
from chat_app.inference.loaded_model import LoadedModel, load
from chat_app.inference.model_runner import Chunk
from chat_app.tokenization.encoder import IGNORE_INDEX, Example

TOGETHER = 8


def quality_rows(replies: int, device: str = "cpu") -> Iterator[str]:
    """Lines of a table: perplexity of each precision against float32, and equal replies alone and in company."""
    paths = Paths.default()
    conversations = read_file(paths.samples / "shop.jsonl").conversations
    base = 0.0
    yield "\n| starter | perplexity | against float32 | equal replies alone and among 8 |\n|---|---|---|---|"
    for precision in ("float32", "bfloat16", "8-bit", "4-bit"):
        loaded = load(STARTER, LoadConfig(precision=precision, device=device), paths)
        rows = [row for one in conversations[:60] for row in loaded.encoder.examples(one, "all")]
        found = perplexity(loaded, rows)
        base = base or found
        same = equal_replies(loaded, conversations, replies)
        yield f"| {precision} | {found:.3f} | {100 * (found / base - 1):+.3f} % | {same} of {replies} |"
        loaded.engine.close()


def perplexity(loaded: LoadedModel, rows: list[Example]) -> float:
    """Of the learned tokens of rows, as the engine computes them: token by token behind the first few."""
    runner = loaded.engine._runner
    assert runner is not None
    total, count = 0.0, 0
    for row in rows:
        kv_cache = runner.new_kv_cache()
        for at in range(len(row.ids) - 1):
            types = None if row.types is None else row.types[at : at + 1]
            logits = runner.step([Chunk(row.ids[at : at + 1], types, kv_cache, True)])[0]
            if row.labels[at + 1] != IGNORE_INDEX:
                total -= float(logits.float().log_softmax(-1)[row.labels[at + 1]])
                count += 1
    return math.exp(total / count)


def equal_replies(loaded: LoadedModel, conversations: list[Conversation], count: int) -> int:
    """How many seeded replies of up to 64 tokens are the same alone and while seven others are written."""
    sampling = SamplingConfig(max_new_tokens=64)
    asked = [Conversation.from_turns([one.turns[0].text]) for one in conversations if one.turns[0].role == "user"]
    tasks = [(asked[number % len(asked)], replace(sampling, seed=number)) for number in range(count)]
    alone = [reply(loaded, *task).text for task in tasks]
    with ThreadPoolExecutor(TOGETHER) as pool:
        together = list(pool.map(lambda task: reply(loaded, *task).text, tasks))
    return sum(one == other for one, other in zip(alone, together, strict=True))


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(*quality_rows(100), sep="\n")
