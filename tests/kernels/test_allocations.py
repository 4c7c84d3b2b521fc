"""What the product allocates has the type and the place that the code names, whatever the process's defaults are.

While transformers builds a model, torch's default type is that model's, in all threads. Compiled code that is handed
half the bytes it writes corrupts the heap.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from chat_app.config.sampling import SamplingConfig
from chat_app.inference.engine import Engine, generate_tokens
from chat_app.inference.gpt2.model_runner import GPT2ModelRunner
from chat_app.inference.logprobs import LogprobRecorder
from chat_app.inference.model_runner import Chunk
from chat_app.kernels.compilation import get_kernel
from chat_app.kernels.packed_weights import PackedWeights, max_kernel_rows
from chat_app.tokenization.encoder import Example
from chat_app.training.collator import PackingCollator
from chat_app.training.loss import likelihood
from tests.inference.gpt2.test_model_runner import model_of
from tests.inference.test_engine import ids_of, request
from tests.kernels.test_packed_weights import SIZES, numbers

PACKAGE = Path(__file__).parents[2] / "chat_app"
TORCH_MAKES = {
    "arange", "as_tensor", "asarray", "empty", "empty_strided", "eye", "full", "linspace", "logspace", "normal", "ones",
    "rand", "randint", "randn", "randperm", "range", "scalar_tensor", "tensor", "tril_indices", "triu_indices", "zeros",
}  # fmt: skip
NUMPY_MAKES = {"array": 1, "empty": 1, "fromiter": 1, "ones": 1, "zeros": 1, "full": 2, "arange": 4, "linspace": 99}
"""Functions of numpy, and how many arguments stand before the type where it is given without its name."""

NEVER = {("torch", name) for name in ("Tensor", "FloatTensor", "set_default_dtype", "set_default_device")}


def unnamed(source: str) -> list[str]:
    """Allocations in a file's source that leave the type, or torch's device, to a default."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        library, name = ast.unparse(node.func.value), node.func.attr
        named = {keyword.arg for keyword in node.keywords}
        if library == "torch" and name in TORCH_MAKES:
            missing = {"dtype", "device"} - named
        elif library == "np" and name in NUMPY_MAKES:
            missing = {"dtype"} - named if len(node.args) <= NUMPY_MAKES[name] else set()
        else:
            missing = {"a function that names both"} if (library, name) in NEVER else set()
        if missing:
            found.append(f"{node.lineno}: {ast.unparse(node)} lacks {', '.join(sorted(missing))}")
    return found


def test_every_allocation_names_its_type_and_its_device():
    files = sorted(PACKAGE.rglob("*.py"))
    found = [f"{file.name}:{one}" for file in files for one in unnamed(file.read_text(encoding="utf-8"))]
    assert len(files) > 100
    assert found == []


@pytest.mark.parametrize(
    "line", ["torch.empty(3)", "torch.zeros(3, dtype=torch.long)", "np.arange(3)", "np.full(3, 1)", "torch.Tensor(3)"]
)
def test_an_allocation_by_default_is_found(line):
    assert len(unnamed(line)) == 1


@pytest.mark.parametrize(
    "line", ["torch.empty(3, dtype=torch.long, device=d)", "torch.empty_like(a)", "a.new_empty(3)", "np.full(3, 1, k)"]
)
def test_an_allocation_that_names_everything_is_none(line):
    assert unnamed(line) == []


@pytest.fixture(params=["bfloat16", "meta"])
def with_other_defaults(request: pytest.FixtureRequest) -> Callable[[Callable[[], Any]], Any]:
    """Calls something while torch's default type is another, or its default device is one without memory."""

    def call(action: Callable[[], Any]) -> Any:
        if request.param == "meta":
            with torch.device("meta"):
                return action()
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        try:
            return action()
        finally:
            torch.set_default_dtype(before)

    return call


def compiled_function(eight_bits: bool, there: bool) -> Future[Any]:
    """The compiled function, or what stands for it while it is being compiled."""
    ready: Future[Any] = Future()
    if there:
        ready.set_result(get_kernel(eight_bits).result())
    return ready


@pytest.mark.parametrize("count", [1, max_kernel_rows() + 1])
@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("eight_bits", [True, False])
def test_products_do_not_depend_on_the_defaults(eight_bits, compiled, count, with_other_defaults):
    rows = [numbers(count, count, inputs) for _, inputs in SIZES]
    weights = [numbers(number, inputs, outputs) for number, (outputs, inputs) in enumerate(SIZES)]
    biases = [numbers(9, outputs) if number else None for number, (outputs, _) in enumerate(SIZES)]

    def compute() -> list[torch.Tensor]:
        packed = PackedWeights(SIZES, eight_bits, compiled_function(eight_bits, compiled))
        for number, weight in enumerate(weights):
            packed.pack(number, weight, biases[number])
        return [packed.multiply(number, rows[number]) for number in range(len(SIZES))]

    expected, results = compute(), with_other_defaults(compute)
    for one, other in zip(results, expected, strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)


@pytest.mark.parametrize("paged", [False, True])
@pytest.mark.parametrize("layout", ["shared", "packed", "8-bit"])
def test_steps_do_not_depend_on_the_defaults(layout, paged, with_other_defaults):
    if layout != "shared":
        if paged:
            pytest.skip("packed are for the processor, pages for a GPU")
        get_kernel(layout == "8-bit").result()
    runner = GPT2ModelRunner(model_of(), 128, layout, paged=paged, cuda_graphs=False)
    prompts = [ids_of(1, 110), ids_of(2, 20), ids_of(3, 30)]

    def compute() -> list[torch.Tensor]:
        """Prompts alone and beside replies, with types and without, more rows than a compiled step takes."""
        kv_caches = [runner.new_kv_cache() for _ in range(3)]
        logits = runner.step([Chunk(prompts[0], [3] * 110, kv_caches[0], True)])
        logits += runner.step([Chunk(prompts[1], None, kv_caches[1], True)])
        chunks = [Chunk([5], [3], kv_caches[0], True), Chunk([6], None, kv_caches[1], True)]
        logits += runner.step([*chunks, Chunk(prompts[2], None, kv_caches[2], False)])
        kv_caches.append(kv_caches[0].copy(70))
        return logits + runner.step([Chunk([7], None, one, True) for one in kv_caches])

    expected, results = compute(), with_other_defaults(compute)
    for one, other in zip(results, expected, strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)


@pytest.mark.parametrize("layout", ["shared", "packed", "8-bit"])
def test_replies_do_not_depend_on_the_defaults(layout, with_other_defaults):
    """The defaults change while the engine's thread writes, as they do while another model is loaded."""
    if layout != "shared":
        get_kernel(layout == "8-bit").result()
    runner = GPT2ModelRunner(model_of(), 128, layout)
    engine = Engine(runner, 128, prefix_cache_tokens=0)
    drawn = SamplingConfig(temperature=0.9, top_k=40, top_p=0.9, repetition_penalty=1.2, seed=3, presence_penalty=0.5)
    asked = replace(request(ids_of(4), new=20), sampling=drawn)

    def compute() -> tuple[list[int], Any]:
        recorder = LogprobRecorder(3)
        written = list(engine.stream(replace(asked, recorder=recorder)))
        return written, [recorder.take() for _ in written]

    try:
        assert compute() == with_other_defaults(compute)
    finally:
        engine.close()


def test_replies_of_a_model_without_an_engine_do_not_depend_on_the_defaults(tiny_model, with_other_defaults):
    drawn = SamplingConfig(temperature=0.9, top_k=40, seed=3)
    asked = replace(request(ids_of(4), new=20), sampling=drawn)
    assert generate_tokens(tiny_model, asked, 128) == with_other_defaults(
        lambda: generate_tokens(tiny_model, asked, 128)
    )


def test_losses_do_not_depend_on_the_defaults(with_other_defaults):
    model = model_of()
    ids = [ids_of(seed, 20 + seed) for seed in range(4)]
    examples = [Example(one, [3] * len(one), one) for one in ids]
    collator = PackingCollator(0)
    assert likelihood(model, examples, collator) == with_other_defaults(lambda: likelihood(model, examples, collator))
