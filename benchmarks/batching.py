"""Eight chats batched beside the same chats one after the other, for models that are no GPT-2, with random weights.

    python -m benchmarks.batching [--quick] [--threads N]

Both are the product's engine in one run: with steps for all running chats at once, and with one forward pass of
transformers for each chat in turn. Every measurement is a pair, one right after the other, in several rounds; printed
are the medians of both, and of the rounds' ratios. Run it on a machine that does nothing else; where that is not
possible, `--threads 1` and the ratio of the processor time they took, which other programs change least, say something.
"""

from __future__ import annotations

import argparse
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.processor import processor_name
from chat_app.config.sampling import SamplingConfig
from chat_app.inference.engine import Engine
from chat_app.inference.model_runner import TransformersModelRunner
from chat_app.inference.request import Request
from chat_app.system.cpu import count_processors

CHATS, GOAL, WINDOW = 8, 3.0, 1024
MODELS: dict[str, dict[str, Any]] = {
    "SmolLM2 135M": {
        "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True,
    },
    "LLaMA 27M": {
        "model_type": "llama", "vocab_size": 32000, "hidden_size": 384, "intermediate_size": 1024,
        "num_hidden_layers": 8, "num_attention_heads": 6, "num_key_value_heads": 6, "tie_word_embeddings": True,
    },
    "GPT-NeoX 70M": {
        "model_type": "gpt_neox", "vocab_size": 50304, "hidden_size": 512, "intermediate_size": 2048,
        "num_hidden_layers": 6, "num_attention_heads": 8,
    },
    "OPT 125M": {
        "model_type": "opt", "vocab_size": 50272, "hidden_size": 768, "ffn_dim": 3072, "word_embed_proj_dim": 768,
        "num_hidden_layers": 12, "num_attention_heads": 12,
    },
}  # fmt: skip


def make_model(settings: dict[str, Any]) -> Any:
    """A model with random weights."""
    config = AutoConfig.for_model(**settings, max_position_embeddings=WINDOW, bos_token_id=0, eos_token_id=0)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def tokens_per_second(engine: Engine, prompt: int, new: int, seed: int) -> tuple[float, float]:
    """Of all chats together, from when they start at once to the end of the last; prompts included. The second number
    is for a second of processor time.

    The prompts have different lengths, half to one and a half of `prompt`.
    """
    sampling = SamplingConfig(temperature=1, top_k=50, top_p=1, repetition_penalty=1, seed=1)
    generator = torch.Generator().manual_seed(seed)
    lengths = [prompt // 2 + prompt * number // (CHATS - 1) for number in range(CHATS)]
    prompts = [torch.randint(engine.vocabulary, (length,), generator=generator).tolist() for length in lengths]
    requests = [Request(ids, None, None, sampling, frozenset(), frozenset(), new) for ids in prompts]
    started, used = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(CHATS) as threads:
        replies = list(threads.map(lambda request: list(engine.stream(request)), requests))
    written = sum(map(len, replies))
    return written / (time.perf_counter() - started), written / (time.process_time() - used)


def measure(settings: dict[str, Any], rounds: int, prompt: int, new: int, threads: int) -> tuple[float, ...]:
    """Medians of the tokens a second batched, of those one after the other, of their ratio, and of the ratio of the
    processor time that a token took."""
    model = make_model(settings)
    kinds = TransformersModelRunner(model, WINDOW), TransformersModelRunner(model)
    engines = [Engine(runner, WINDOW, prefix_cache_tokens=0, threads=(threads,)) for runner in kinds]
    rows = []
    try:
        for engine in engines:
            tokens_per_second(engine, prompt, 4, 0)  # Memory is touched for the first time.
        for number in range(rounds):
            batched, single = (tokens_per_second(engine, prompt, new, 1 + number) for engine in engines)
            rows.append((batched[0], single[0], batched[0] / single[0], batched[1] / single[1]))
    finally:
        for engine in engines:
            engine.close()
    return tuple(statistics.median(column) for column in zip(*rows, strict=True))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round, and the first two models only")
    parser.add_argument("--threads", type=int, default=count_processors(), help="of the processor (default: all)")
    parser.add_argument("--prompt", type=int, default=64, help="tokens of a prompt on average (default: 64)")
    parser.add_argument("--new", type=int, default=64, help="tokens of a reply (default: 64)")
    options = parser.parse_args()
    rounds, most = (1, 2) if options.quick else (3, len(MODELS))
    print(
        f"{processor_name()}, {options.threads} threads, float32\n"
        f"{CHATS} chats, prompts of about {options.prompt} tokens, replies of {options.new}\n\n"
        "| model | batched | one after the other | ratio | goal | of processor time |\n"
        "| --- | --- | --- | --- | --- | --- |"
    )
    for name, settings in list(MODELS.items())[:most]:
        batched, single, ratio, spared = measure(settings, rounds, options.prompt, options.new, options.threads)
        speeds = f"{batched:.1f} tokens/s | {single:.1f} tokens/s | {ratio:.2f}"
        print(f"| {name} | {speeds} | >= {GOAL:g} | {spared:.2f} |", flush=True)


if __name__ == "__main__":
    main()
