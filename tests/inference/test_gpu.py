"""What only a GPU can show: `python -m pytest -m gpu`. Skipped where PyTorch finds none."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2LMHeadModel

from benchmarks.engine_quality import equal_replies
from chat_app.config.loading import LoadConfig
from chat_app.config.paths import STARTER, Paths
from chat_app.config.sampling import SamplingConfig
from chat_app.conversation import Conversation
from chat_app.data.readers import read_file
from chat_app.inference.backend import reply
from chat_app.inference.engine import Engine
from chat_app.inference.gpt2.linear import linear_of
from chat_app.inference.gpt2.model_runner import GPT2ModelRunner
from chat_app.inference.loaded_model import load
from chat_app.models.loading import load_parts
from chat_app.system.memory import release_memory
from tests.inference.test_engine import ids_of, request

DEVICE = "cuda"
PRECISIONS = ["float32", "float16", "bfloat16", "8-bit", "4-bit"]
HELLO = Conversation.from_turns(["Hello, how are you?"])
ROOM = 2**23  # Bytes that libraries may keep for themselves.

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU"),
]


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "home")


def on_gpu(precision: str) -> LoadConfig:
    if precision in ("8-bit", "4-bit"):
        pytest.importorskip("bitsandbytes", reason="quantization needs bitsandbytes")
    return LoadConfig(precision=precision, device=DEVICE)


def generated(model: Any, ids: list[int], new: int) -> list[int]:
    """What transformers writes greedily, with nothing that ends it."""
    inputs = torch.tensor([ids], device=model.device)
    settings = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0}
    return model.generate(inputs, attention_mask=torch.ones_like(inputs), **settings)[0, len(ids) :].tolist()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_model_answers_in_every_precision(make_folder: Callable[..., Path], paths: Paths, precision: str) -> None:
    loaded = load(str(make_folder(width=64)), on_gpu(precision), paths)
    assert loaded.device.partition(":")[0] == DEVICE
    assert loaded.precision == precision
    assert isinstance(loaded.engine._runner, GPT2ModelRunner)
    assert reply(loaded, HELLO, SamplingConfig(max_new_tokens=16, seed=1)).reply_tokens > 0
    loaded.engine.close()


def test_automatic_chooses_the_gpu_and_half_the_bytes(make_folder: Callable[..., Path], paths: Paths) -> None:
    loaded = load(str(make_folder()), LoadConfig(), paths)
    assert loaded.device.partition(":")[0] == DEVICE
    assert loaded.precision in ("bfloat16", "float16")
    assert loaded.memory_bytes < 0.6 * 4 * loaded.files.parameters
    loaded.engine.close()


def test_a_gpu_can_be_named(make_folder: Callable[..., Path], paths: Paths) -> None:
    loaded = load(str(make_folder()), LoadConfig(precision="float32", device=f"{DEVICE}:0"), paths)
    assert loaded.device == f"{DEVICE}:0"
    loaded.engine.close()


def test_in_float32_chats_write_what_transformers_writes_alone_and_together(
    make_folder: Callable[..., Path], paths: Paths
) -> None:
    folder = make_folder(width=64)
    model = GPT2LMHeadModel.from_pretrained(folder).eval().to(DEVICE)
    prompts = [ids_of(seed, length) for seed, length in enumerate((1, 2, 20, 40, 60, 80, 90, 100))]
    expected = [generated(model, ids, 24) for ids in prompts]
    loaded = load(str(folder), on_gpu("float32"), paths)
    alone = [list(loaded.engine.stream(request(ids, new=24))) for ids in prompts]
    with ThreadPoolExecutor(len(prompts)) as pool:
        together = list(pool.map(lambda ids: list(loaded.engine.stream(request(ids, new=24))), prompts))
    loaded.engine.close()
    assert alone == expected
    assert together == expected


def test_token_types_give_what_they_give_on_the_processor(make_folder: Callable[..., Path], paths: Paths) -> None:
    folder = str(make_folder(width=64))
    written = []
    for config in (on_gpu("float32"), LoadConfig(precision="float32", device="cpu")):
        loaded = load(folder, config, paths)
        written.append(list(loaded.engine.stream(request(ids_of(3, 40), [5] * 20 + [6] * 20, 7, new=24))))
        loaded.engine.close()
    assert written[0] == written[1]


def test_in_4_bits_chats_write_what_transformers_writes(make_folder: Callable[..., Path], paths: Paths) -> None:
    config = on_gpu("4-bit")
    model = load_parts(str(make_folder(width=64)), config, paths, compute_in="float32")[0]
    expected = [generated(model, ids_of(seed), 24) for seed in range(4)]
    engine = Engine(model, 128)
    found = [list(engine.stream(request(ids_of(seed), new=24))) for seed in range(4)]
    engine.close()
    assert found == expected


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
def test_company_changes_hardly_a_reply(paths: Paths, precision: str) -> None:
    conversations = read_file(paths.samples / "shop.jsonl").conversations
    loaded = load(STARTER, on_gpu(precision), paths)
    same = equal_replies(loaded, conversations, 100)
    loaded.engine.close()
    assert same >= 95  # The rest is rounding: products of other numbers of rows add up in another order.


@pytest.mark.parametrize("precision", ["8-bit", "4-bit"])
def test_quantized_layers_can_be_captured(make_folder: Callable[..., Path], paths: Paths, precision: str) -> None:
    model = load_parts(str(make_folder(width=64)), on_gpu(precision), paths)[0]
    layer = linear_of(model.transformer.h[0].mlp.c_fc)
    assert layer is not None
    first, second = torch.randn(2, 4, 64, device=DEVICE)
    second[1, 3] = 50  # Beyond what the library would call ordinary.
    rows = first.clone()
    with torch.inference_mode():
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            layer(rows)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = layer(rows)
        for given in (second, first):
            rows.copy_(given)
            graph.replay()
            torch.testing.assert_close(found, layer(given))


def test_in_8_bits_a_row_gives_the_same_bits_alone_and_beside_outliers(
    make_folder: Callable[..., Path], paths: Paths
) -> None:
    model = load_parts(str(make_folder(width=64)), on_gpu("8-bit"), paths)[0]
    layer = linear_of(model.transformer.h[0].mlp.c_fc)
    assert layer is not None
    rows = torch.randn(8, 64, device=DEVICE)
    rows[3, 7], rows[5] = 50, 0
    together = layer(rows)
    assert bool(together.isfinite().all())
    for at in range(len(rows)):
        assert torch.equal(layer(rows[at : at + 1])[0], together[at])


@pytest.mark.parametrize("precision", ["float32", "8-bit"])
def test_unloading_gives_the_memory_back(paths: Paths, precision: str) -> None:
    config = on_gpu(precision)

    def after_a_chat() -> tuple[int, int]:
        """Bytes while the model is there, and once it is gone."""
        loaded = load(STARTER, config, paths)
        reply(loaded, HELLO, SamplingConfig(max_new_tokens=16, seed=1))
        taken = torch.cuda.memory_allocated()
        loaded.close()
        del loaded
        release_memory()
        return taken, torch.cuda.memory_allocated()

    _, before = after_a_chat()  # What libraries keep for ever they keep from now on.
    taken, after = after_a_chat()
    assert taken > before + ROOM
    assert after < before + ROOM
