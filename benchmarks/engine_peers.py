"""The engines that ours is measured beside, each asked for the same: replies of the same length to prompts of random
tokens, drawn from the 50 likeliest ones."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import GPT2LMHeadModel, GPT2Tokenizer

PROMPT, NEW, TOP = 64, 64, 50
VLLM_SHARE = 0.3  # Of the GPU's memory; the others are there, too.


class Peer(Protocol):
    """Another engine with a model.

    Attributes:
        name: with its precision.
    """

    name: str

    def speed(self, seed: int, chats: int = 1) -> float:
        """Tokens a second in all, of chats that start at once as one batch, reading the prompts included."""


def ids_of(seed: int, length: int = PROMPT) -> list[int]:
    """A prompt of random tokens."""
    return torch.randint(0, 50000, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def prompts_of(seed: int, chats: int) -> list[list[int]]:
    """Those of a batch."""
    return [ids_of(seed * 100 + number) for number in range(chats)]


class Transformers:
    """Its `generate`.

    Args:
        dtype: "float32", "bfloat16" or "float16".
        device: "cpu" or "cuda".
    """

    def __init__(self, folder: Path, dtype: str, device: str):
        self.name = f"transformers {dtype}"
        self._model: Any = GPT2LMHeadModel.from_pretrained(folder, dtype=dtype).eval()
        self._model.to(device)
        self._device = device

    def speed(self, seed: int, chats: int = 1) -> float:
        """As Peer."""
        settings = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": True, "top_k": TOP, "pad_token_id": 0}
        started = time.perf_counter()
        ids = torch.tensor(prompts_of(seed, chats), device=self._device)
        with torch.inference_mode():
            self._model.generate(ids, attention_mask=torch.ones_like(ids), **settings)
        if self._device == "cuda":
            torch.cuda.synchronize()
        return chats * NEW / (time.perf_counter() - started)


class CTranslate2:
    """The fastest peer on a processor.

    Args:
        compute_type: of its numbers, in its own words.
        device: "cpu" or "cuda".
        threads: of the processor.
    """

    def __init__(self, folder: Path, compute_type: str, device: str, threads: int):
        import ctranslate2
        from ctranslate2.converters import TransformersConverter

        self.name = f"CTranslate2 {compute_type}"
        converted = folder / "ctranslate2"
        TransformersConverter(str(folder)).convert(str(converted), force=True)
        self._generator = ctranslate2.Generator(
            str(converted), device=device, compute_type=compute_type, inter_threads=1, intra_threads=threads
        )
        self._words = GPT2Tokenizer.from_pretrained(folder).convert_ids_to_tokens(range(50257))

    def speed(self, seed: int, chats: int = 1) -> float:
        """As Peer."""
        prompts = [[self._words[one] for one in ids] for ids in prompts_of(seed, chats)]
        started = time.perf_counter()
        settings = {"max_length": NEW, "min_length": NEW, "sampling_topk": TOP, "end_token": []}
        self._generator.generate_batch(prompts, include_prompt_in_result=False, **settings)
        return chats * NEW / (time.perf_counter() - started)


class VLLM:
    """The fastest peer on a GPU, by its Python interface; the batch is ready when it starts.

    Args:
        dtype: "bfloat16" or "float16".
    """

    def __init__(self, folder: Path, dtype: str):
        from vllm import LLM, SamplingParams

        self.name = f"vLLM {dtype}"
        self._engine = LLM(model=str(folder), dtype=dtype, gpu_memory_utilization=VLLM_SHARE)
        self._sampling = SamplingParams(temperature=1, top_k=TOP, max_tokens=NEW, ignore_eos=True, detokenize=False)

    def speed(self, seed: int, chats: int = 1) -> float:
        """As Peer."""
        prompts = [{"prompt_token_ids": ids} for ids in prompts_of(seed, chats)]
        started = time.perf_counter()
        self._engine.generate(prompts, self._sampling, use_tqdm=False)
        return chats * NEW / (time.perf_counter() - started)


def peers_of(folder: Path, device: str, exact: str, threads: int) -> Iterator[tuple[tuple[str, ...], Peer]]:
    """The peers that can run here, each when it is asked for, with the modes of ours that it is measured beside.

    Args:
        exact: the precision of our exact mode.
    """
    half = "bfloat16" if exact == "float32" else exact
    both = ("automatic", "exact")
    wanted: list[tuple[tuple[str, ...], Callable[[], Peer]]] = [
        (both, partial(Transformers, folder, "float32", device)),
        (both, partial(Transformers, folder, half, device)),
    ]
    if find_spec("ctranslate2") is not None:
        fast, exactly = ("int8", "int8") if device == "cpu" else ("int8_float16", half)
        wanted.append((("fast", "automatic"), partial(CTranslate2, folder, fast, device, threads)))
        if exactly != fast:
            wanted.append((("exact",), partial(CTranslate2, folder, exactly, device, threads)))
    if device == "cuda" and find_spec("vllm") is not None:
        wanted.append((both, partial(VLLM, folder, half)))
    for modes, make in wanted:
        try:
            peer = make()
            peer.speed(0)
        except (RuntimeError, ValueError) as error:  # Built for another driver, or not for this type of numbers.
            print(f"A peer is left out: {error}", file=sys.stderr)
        else:
            yield modes, peer
