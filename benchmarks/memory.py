"""What a training needs at its peak: predicted for each GPT-2 and method, and measured where there is a GPU.

    python -m benchmarks.memory [--gigabytes 4] [--window 1024] [--learned 0.5] [--names gpt2 gpt2-xl] [--measure]

The models have random weights: memory does not depend on what they know. A measurement trains for three steps with the
process limited to `--gigabytes` (torch.cuda.set_per_process_memory_fraction); what does not fit says so. On a processor
`--measure` counts the bytes that PyTorch remembers for the way back, for one model of `--names`, without the limit.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from chat_app.config.paths import Paths
from chat_app.config.training import TrainConfig
from chat_app.formatting import format_bytes
from chat_app.models.resolver import find
from chat_app.system.memory import is_out_of_memory
from chat_app.tokenization.encoder import IGNORE_INDEX, Example
from chat_app.training.collator import PackingCollator
from chat_app.training.loss import precision_context, sum_loss
from chat_app.training.memory_estimate import ModelShape, Plan, index_of_first_fit, list_plans, predict_memory
from chat_app.training.memory_estimate import find_heaviest_batch as heaviest_batch
from chat_app.training.methods import load_trainable_model

SIZES = {  # parameters, layers, width, heads
    "gpt2": (124_439_808, 12, 768, 12),
    "gpt2-medium": (354_823_168, 24, 1024, 16),
    "gpt2-large": (774_030_080, 36, 1280, 20),
    "gpt2-xl": (1_557_611_200, 48, 1600, 25),
}
NEW_TOKENS = 4
STEPS = 3
BATCH = 8
GIGABYTE = 10**9


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    name: str
    method: str
    optimizer: str = "adamw"


CASES = [
    Case("gpt2", "full"),
    Case("gpt2", "lora"),
    Case("gpt2-medium", "full", "adamw-8bit"),
    Case("gpt2-medium", "lora"),
    Case("gpt2-medium", "lora-8bit"),
    Case("gpt2-large", "lora"),
    Case("gpt2-large", "lora-8bit"),
    Case("gpt2-xl", "lora-8bit"),
    Case("gpt2-xl", "lora-4bit"),
]


def shape_named(name: str, window: int) -> ModelShape:
    """The sizes of a published GPT-2, with the marks of the format `roles`."""
    parameters, layers, width, heads = SIZES[name]
    return ModelShape(parameters, layers, width, 4 * width, heads, 50257 + NEW_TOKENS, window, NEW_TOKENS, 0.1)


def rows_of(window: int, learned: float) -> list[Example]:
    """Rows that fill the window, of which a share is learned."""
    first = int(window * (1 - learned))
    row = Example([7] * window, None, [IGNORE_INDEX] * first + [7] * (window - first))
    return [row] * BATCH


def folder_with(name: str, folder: Path, window: int) -> Path:
    """A saved GPT-2 of that size with random weights in bfloat16, and a tokenizer."""
    from tokenizers import Tokenizer, models
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    _, layers, width, heads = SIZES[name]
    target = folder / name
    if not target.exists():
        config = GPT2Config(n_layer=layers, n_embd=width, n_head=heads, n_positions=window, dtype="bfloat16")
        with torch.device("meta"):
            model = GPT2LMHeadModel(config)
        model = model.to(torch.bfloat16).to_empty(device="cpu")
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.02)
        model.tie_weights()
        model.save_pretrained(target)
        words = {f"w{number}": number for number in range(50257)}
        PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w0"))).save_pretrained(
            target
        )
    return target


def load(plan: Plan, target: Path, precision: str, device: str) -> Any:
    """The model as the training has it."""
    paths = Paths(target.parent)
    from chat_app.models.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(target)
    before = len(tokenizer)
    tokenizer.add_tokens([f"<mark {number}>" for number in range(NEW_TOKENS)])
    config = plan.apply_to(TrainConfig(model=str(target)))
    new = range(before, before + NEW_TOKENS)
    trainable = load_trainable_model(
        config,
        find(str(target), paths),
        tokenizer,
        new,
        precision=precision,
        device=device,
        paths=paths,
        folder=target.parent,
    )
    return trainable.model.to(device).train() if plan.method in ("full", "lora") else trainable.model.train()


def measured_on_gpu(plan: Plan, target: Path, rows: list[Example], limit: float) -> str:
    """The most bytes that a few steps reserve, with the process limited."""
    import bitsandbytes

    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(limit * GIGABYTE / whole, 1.0))
    try:
        model = load(plan, target, "bfloat16", "cuda")
        causal = model.get_base_model() if plan.method != "full" else model
        learned = [one for one in model.parameters() if one.requires_grad]
        kind = bitsandbytes.optim.AdamW8bit if plan.optimizer == "adamw-8bit" else torch.optim.AdamW
        options = {} if plan.optimizer == "adamw-8bit" else {"fused": True}
        optimizer = kind(learned, lr=1e-5, **options)
        for _ in range(STEPS):
            for start in range(0, BATCH, plan.batch_size):
                batch = {
                    name: one.to("cuda")
                    for name, one in PackingCollator(0)(rows[start : start + plan.batch_size]).items()
                }
                with precision_context("cuda", "bfloat16"):
                    loss = sum_loss(causal, batch, sparing=plan.checkpointing)
                loss.backward()
            torch.nn.utils.clip_grad_norm_(learned, 1.0)
            optimizer.step()
            optimizer.zero_grad()
        peak = torch.cuda.max_memory_reserved()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return "does not fit"
    return f"{format_bytes(peak)} ({(plan.predicted_bytes / peak - 1) * 100:+.0f} %)"


def remembered_on_cpu(name: str, window: int) -> str:
    """What PyTorch keeps of one batch for the way back, beside the prediction; layers only, in float32."""
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = replace(shape_named(name, window), dropout=0.0, layers=0)
    sizes = []
    rows = [Example([7] * window, None, [7] * window)]
    for layers in (1, 2):
        options = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "vocab_size": 1000}
        model = GPT2LMHeadModel(
            GPT2Config(
                n_layer=layers,
                n_embd=shape.width,
                n_head=shape.heads,
                n_positions=window,
                activation_function="gelu_pytorch_tanh",
                bos_token_id=0,
                eos_token_id=0,
                **options,
            )
        )
        own = {one.untyped_storage().data_ptr() for one in [*model.parameters(), *model.buffers()]}
        kept: dict[int, Any] = {}

        def keep(tensor: Any, own: set[int] = own, kept: dict[int, Any] = kept) -> Any:
            place = tensor.untyped_storage().data_ptr()
            if place not in own:
                kept[place] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            sum_loss(model, PackingCollator(0)(rows))
        sizes.append(sum(one.untyped_storage().nbytes() for one in kept.values()))
    load = heaviest_batch(rows, 1)
    one, two = (
        predict_memory(replace(shape, layers=layers), load, "full", precision="float32").activations
        for layers in (1, 2)
    )
    return f"{name}: a layer keeps {format_bytes(sizes[1] - sizes[0])}, predicted {format_bytes(two - one)}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--window", type=int, default=1024)
    parser.add_argument("--learned", type=float, default=0.5, help="share of the tokens that is learned")
    parser.add_argument("--names", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--measure", action="store_true")
    options = parser.parse_args()
    rows = rows_of(options.window, options.learned)
    gpu = torch.cuda.is_available()
    print(f"{options.gigabytes:g} GB, {BATCH} conversations of {options.window} tokens a step, computing in bfloat16")
    print("| model | method | optimiser | at a time | recomputing | predicted | fits | measured |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            if case.name not in options.names:
                continue
            shape = shape_named(case.name, options.window)
            config = TrainConfig(method=case.method, optimizer=case.optimizer, batch_size=BATCH)
            free = int(options.gigabytes * GIGABYTE)
            made = list_plans(shape, rows, config, precision="bfloat16", device="cuda", free=free)
            plan = made[index_of_first_fit(made)]
            measured = "not measured"
            if options.measure and gpu:
                target = folder_with(case.name, Path(folder), options.window)
                measured = measured_on_gpu(plan, target, rows, options.gigabytes)
            print(
                f"| {case.name} | {case.method} | {case.optimizer} | {plan.batch_size} | "
                f"{'yes' if plan.checkpointing else 'no'} | {format_bytes(plan.predicted_bytes)} | "
                f"{'yes' if plan.fits else 'no'} | {measured} |",
                flush=True,
            )
    if options.measure and not gpu:
        print("\nNo GPU is here. The part of the formula that can be counted on a processor:")
        for name in options.names:
            print(remembered_on_cpu(name, options.window), flush=True)


if __name__ == "__main__":
    main()
