"""What is known of the inside of other packages: these tests say which piece of it a new version has changed.

The modules that hold this knowledge are `transformers_internals`, `bitsandbytes_internals`, `numba_internals` and
`gradio_internals`; the cache of transformers has its tests in test_forward.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from pathlib import Path
from typing import Any

import gradio as gr
import numba
import pytest
import torch
from fastapi import FastAPI
from fastapi.testclient import TestClient
from gradio import networking
from llvmlite import binding
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from chat_app.kernels import numba_internals
from chat_app.models import bitsandbytes_internals, transformers_internals
from chat_app.ui.components import gradio_internals
from chat_app.ui.components.gradio_internals import is_logged_in, keep_sessions, mounted_page, read_payload

pytestmark = pytest.mark.dependencies
TINY = {"vocab_size": 30, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 8}


@pytest.mark.parametrize(
    ("kind", "known", "writes"),
    [("gpt2", True, True), ("llama", True, True), ("t5", True, False), ("no-such-kind", False, False)],
)
def test_kinds_of_models(kind: str, known: bool, writes: bool) -> None:
    assert transformers_internals.is_known(kind) is known
    assert transformers_internals.writes_text(kind) is writes


def test_a_config_file_becomes_a_configuration() -> None:
    config = transformers_internals.config_from({"model_type": "gpt2", **TINY, "id2label": {"0": "a"}})
    assert type(config) is GPT2Config
    assert (config.n_embd, config.id2label) == (16, {0: "a"})


def test_layers_of_a_gpt2_are_told_apart() -> None:
    block = GPT2LMHeadModel(GPT2Config(**TINY)).transformer.h[0]
    assert type(block.mlp.c_fc) is transformers_internals.Conv1D
    assert block.mlp.c_fc.weight.shape == (16, 64)  # [in, out], the other way round than torch's.
    assert transformers_internals.is_gelu_new(block.mlp.act)
    assert not transformers_internals.is_gelu_new(torch.nn.GELU())


def test_activations_are_computed_again_without_a_warning() -> None:
    model = GPT2LMHeadModel(GPT2Config(**TINY)).train()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        transformers_internals.checkpoint_activations(model)
    computed: list[int] = []
    model.transformer.h[0].ln_1.register_forward_pre_hook(lambda *_: computed.append(1))
    model(torch.arange(4)[None], use_cache=False).logits.sum().backward()
    assert len(computed) == 2


def test_the_trainer_prints_nothing_and_uses_one_gpu(tmp_path: Path) -> None:
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    trainer = Trainer(GPT2LMHeadModel(GPT2Config(**TINY)), arguments)
    before = list(trainer.callback_handler.callbacks)
    transformers_internals.silence(trainer)
    gone = [type(one).__name__ for one in before if one not in trainer.callback_handler.callbacks]
    assert gone == ["ProgressCallback"]
    assert arguments.n_gpu <= 1
    arguments._n_gpu = 2
    assert arguments.n_gpu == 2
    transformers_internals.use_one_gpu(arguments)
    assert arguments.n_gpu == 1


def test_the_trainer_reads_how_the_loss_is_scaled() -> None:
    code = inspect.getsource(Trainer)
    for name in ("loss_is_scaled_for_ga", "model_accepts_loss_kwargs"):
        assert f"self.{name}" in code


def linear(kind: str) -> Any:
    quantized = pytest.importorskip("bitsandbytes", reason="quantization needs bitsandbytes").nn
    torch.manual_seed(0)
    plain = torch.nn.Linear(128, 96, bias=False)
    if kind == "8-bit":
        layer = quantized.Linear8bitLt(128, 96, bias=False, has_fp16_weights=False, threshold=6.0)
    else:
        layer = quantized.Linear4bit(128, 96, bias=False, quant_type="nf4", compute_dtype=torch.float32)
    layer.load_state_dict(plain.state_dict())
    return plain, layer.to("cpu").eval()


def test_layers_of_bitsandbytes_are_told_apart() -> None:
    plain, eight = linear("8-bit")
    _, four = linear("4-bit")
    assert [bitsandbytes_internals.is_eight_bit(one) for one in (plain, eight, four)] == [False, True, False]
    assert [bitsandbytes_internals.is_four_bit(one) for one in (plain, eight, four)] == [False, False, True]


def test_weights_in_8_bits_are_read_before_and_after_their_first_use() -> None:
    plain, layer = linear("8-bit")
    rows = torch.randint(-127, 128, (3, 128), dtype=torch.int8)
    for _ in range(2):
        scales = bitsandbytes_internals.eight_bit_scales(layer)
        weights = layer.weight.data.double() * scales.double()[:, None] / 127
        torch.testing.assert_close(weights, plain.weight.detach().double(), atol=1e-3, rtol=0)
        layer(torch.randn(1, 128))
    products = bitsandbytes_internals.eight_bit_product()(rows, layer.weight.data)
    assert products.dtype == torch.int32
    assert torch.equal(products.long(), rows.long() @ layer.weight.data.long().T)


def test_weights_in_4_bits_have_scales_and_stay_differentiable() -> None:
    plain, layer = linear("4-bit")
    assert any(one.numel() == 128 * 96 // 64 for one in bitsandbytes_internals.four_bit_scales(layer))
    assert hasattr(layer, "support_avx512bf16_for_cpu")
    layer.support_avx512bf16_for_cpu = True
    for one in (layer, plain):
        bitsandbytes_internals.keep_differentiable(one)
    assert layer.support_avx512bf16_for_cpu is False
    assert not hasattr(plain, "support_avx512bf16_for_cpu")


def test_bitsandbytes_does_not_speak_of_its_casts(caplog: pytest.LogCaptureFixture) -> None:
    _, layer = linear("8-bit")
    logger = logging.getLogger("bitsandbytes.autograd._functions")
    assert logger.name in logging.Logger.manager.loggerDict, "the module that speaks has another name"
    bitsandbytes_internals.silence_products()
    layer(torch.randn(1, 128))
    assert logger.getEffectiveLevel() == logging.ERROR
    assert not caplog.records


def test_a_compiled_function_is_found_in_its_code() -> None:
    @numba.njit
    def double(number: int) -> int:
        return 2 * number

    code, name = numba_internals.llvm_code(double, (numba.types.int64,))
    module = binding.parse_assembly(code)
    assert not module.get_function(name).is_declaration


def mounted(page: gr.Blocks, **settings: Any) -> tuple[FastAPI, Any]:
    app = FastAPI()
    gr.mount_gradio_app(app, page, path="/", **settings)
    return app, mounted_page(app)


def test_a_page_is_found_in_the_application_and_knows_who_has_logged_in() -> None:
    with gr.Blocks() as blocks:
        gr.Markdown("hello")
    app, page = mounted(blocks, auth=lambda name, password: password == "right")
    client = TestClient(app)
    for password, has_come_in in (("wrong", False), ("right", True)):
        client.post("/login", data={"username": "anna", "password": password})
        assert is_logged_in(page, dict(client.cookies)) is has_come_in
    forged = dict.fromkeys(dict(client.cookies), "forged")
    assert not is_logged_in(page, forged)
    assert not is_logged_in(page, {})


def test_a_page_has_one_head_and_a_limit_of_visitors() -> None:
    with gr.Blocks() as blocks:
        gr.Markdown("hello")
    assert blocks.state_session_capacity != 7
    keep_sessions(blocks, 7)
    app, page = mounted(blocks)
    assert page.state_holder.capacity == 7
    text = TestClient(app).get("/").text
    assert text.count(gradio_internals.HEAD) == 1
    assert text.index(gradio_internals.HEAD) < text.index("<script")


@pytest.mark.parametrize(
    ("data", "value"), [({"index": 3}, 3), ({"other": 3}, None), (None, None), ([1], None), ("index", None)]
)
def test_what_the_page_sends_along_with_an_event(data: Any, value: Any) -> None:
    assert read_payload(gr.EventData(None, data), "index") == value


def test_a_public_link_is_asked_for_as_gradio_does(monkeypatch: pytest.MonkeyPatch) -> None:
    inspect.signature(networking.setup_tunnel).bind("127.0.0.1", 7860, "token", None, None)
    asked: list[Any] = []

    def tunnel(*arguments: Any) -> str:
        asked.extend(arguments)
        return "https://abc.gradio.live"

    monkeypatch.setattr(gradio_internals, "setup_tunnel", tunnel)
    assert gradio_internals.open_tunnel("127.0.0.1", 7860) == "https://abc.gradio.live"
    assert asked[:2] == ["127.0.0.1", 7860]
    assert asked[3:] == [None, None]
    assert len(asked[2]) >= 32
