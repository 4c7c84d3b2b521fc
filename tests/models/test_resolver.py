"""Finding models and judging their files before anything is loaded: damage, programs, pickles, links, no network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from chat_app.config.loading import LoadConfig
from chat_app.config.paths import Paths
from chat_app.errors import ModelError, ModelNotFoundError
from chat_app.inference.loaded_model import load
from chat_app.models.recommended import RECOMMENDED
from chat_app.models.resolver import ModelFiles, available, check_weights, estimate_memory, find
from chat_app.models.tokenizer import load_tokenizer
from chat_app.models.validation import count_parameters
from chat_app.system.memory import measure_free_memory

PLAIN = LoadConfig(precision="float32", device="cpu")
LONG = 180


@pytest.fixture
def paths(tmp_path) -> Paths:
    return Paths(tmp_path / "home")


def as_run(folder: Path, paths: Paths, name: str = "run-1") -> Path:
    target = paths.runs / name / "model"
    shutil.copytree(folder, target)
    return target


def change_config(folder: Path, **changes) -> None:
    config = json.loads((folder / "config.json").read_text())
    config.update(changes)
    (folder / "config.json").write_text(json.dumps(config))


class TestFinding:
    def test_a_folder(self, tiny_folder, make_model, paths):
        files = find(str(tiny_folder), paths)
        assert (files.kind, files.folder, files.window) == ("folder", tiny_folder, 128)
        assert files.parameters == make_model(files.vocabulary).num_parameters()
        assert files.weight_bytes == (tiny_folder / "model.safetensors").stat().st_size
        check_weights(files)

    def test_a_run(self, tiny_folder, paths):
        as_run(tiny_folder, paths)
        assert find("run-1", paths).kind == "run"
        assert [row.name for row in available(paths) if row.kind == "run"] == ["run-1"]

    def test_a_run_without_a_model_yet(self, paths):
        (paths.runs / "run-2").mkdir(parents=True)
        with pytest.raises(ModelNotFoundError, match="no model yet"):
            find("run-2", paths)

    def test_links_out_of_the_runs_are_refused(self, tiny_folder, paths):
        (paths.runs / "run-3").mkdir(parents=True)
        (paths.runs / "run-3" / "model").symlink_to(tiny_folder)
        with pytest.raises(ModelError, match="somewhere else"):
            find("run-3", paths)
        inside = as_run(tiny_folder, paths, "run-4")
        (inside / "model.safetensors").unlink()
        (inside / "model.safetensors").symlink_to(tiny_folder / "model.safetensors")
        with pytest.raises(ModelError, match="somewhere else"):
            find("run-4", paths)
        assert not [row for row in available(paths) if row.kind == "run"]

    @pytest.mark.parametrize(
        "name", ["", "  ", "../..", "a/b/c", "/no/such/folder", "no:such", "ä", ".hidden", "x" * 65]
    )
    def test_no_such_thing(self, paths, name):
        with pytest.raises(ModelNotFoundError) if name not in ("../..",) else pytest.raises(ModelError):
            find(name, paths)

    def test_a_folder_without_a_model(self, tmp_path, paths):
        (tmp_path / "empty").mkdir()
        with pytest.raises(ModelNotFoundError, match="no model in this folder"):
            find(str(tmp_path / "empty"), paths)

    @pytest.mark.parametrize("offline", ["0", "1"])
    def test_a_hub_name_without_network_is_a_quick_sentence(self, tmp_path, offline):
        script = (
            "import sys; from chat_app.models.resolver import find; from chat_app.config.paths import Paths\n"
            "from chat_app.errors import ModelNotFoundError; from pathlib import Path\n"
            "try: find('gpt2', Paths(Path(sys.argv[1])))\n"
            "except ModelNotFoundError as error: print(error.sentence())"
        )
        # A port where nothing listens stands for a Hub that cannot be reached.
        environment = {
            **os.environ,
            "HF_HOME": str(tmp_path),
            "HF_HUB_OFFLINE": offline,
            "HF_ENDPOINT": "http://127.0.0.1:9",
        }
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=LONG
        )
        assert "the Hub cannot be reached" in done.stdout
        assert "Give a folder" in done.stdout

    def test_recommended_models_are_complete(self):
        assert {"gpt2", "microsoft/DialoGPT-medium", "HuggingFaceTB/SmolLM2-135M-Instruct"} <= {
            one.name for one in RECOMMENDED
        }
        for one in RECOMMENDED:
            assert 1.9 < one.size / one.parameters < 4.5
            assert one.licence
            assert one.good_at.endswith(".")


@pytest.mark.parametrize("name", ["x" * 300, "r" * 300 + "@3", "/" + "x" * 300, "a/" * 3000])
def test_names_that_no_file_can_have(name, paths):
    with pytest.raises(ModelNotFoundError):
        find(name, paths)


class TestJudging:
    def refused(self, folder: Path, paths: Paths, match: str) -> None:
        with pytest.raises(ModelError, match=match):
            load(str(folder), PLAIN, paths)

    def test_only_pickle(self, tiny_folder, paths):
        (tiny_folder / "model.safetensors").unlink()
        (tiny_folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
        self.refused(tiny_folder, paths, "pickle.*models import PATH")

    def test_no_weights(self, tiny_folder, paths):
        (tiny_folder / "model.safetensors").unlink()
        self.refused(tiny_folder, paths, "no weights")

    @pytest.mark.parametrize("keep", [0, 4, 8, 100, 5000, -1])
    def test_cut_off(self, tiny_folder, paths, keep):
        weights = tiny_folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:keep])
        self.refused(tiny_folder, paths, "damaged")

    @pytest.mark.parametrize("junk", [b"\xff" * 4000, b"\x10" + b"\0" * 7 + b"[" * 4000, b"<!DOCTYPE html>" * 100])
    def test_not_weights_at_all(self, tiny_folder, paths, junk):
        (tiny_folder / "model.safetensors").write_bytes(junk)
        self.refused(tiny_folder, paths, "damaged")

    def test_something_behind_the_end(self, tiny_folder, paths):
        with (tiny_folder / "model.safetensors").open("ab") as stream:
            stream.write(b"x")
        self.refused(tiny_folder, paths, "damaged")

    def test_bigger_than_the_weights(self, tiny_folder, paths):
        change_config(tiny_folder, n_layer=3)
        self.refused(tiny_folder, paths, "incomplete")

    def test_other_shapes_than_the_weights(self, tiny_folder, paths):
        change_config(tiny_folder, n_positions=100)
        self.refused(tiny_folder, paths, "do not fit")

    def test_a_program(self, tiny_folder, paths):
        change_config(tiny_folder, auto_map={"AutoModelForCausalLM": "evil.Model"})
        self.refused(tiny_folder, paths, "program")

    def test_a_program_in_the_tokenizer(self, tiny_folder, paths):
        file = tiny_folder / "tokenizer_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "auto_map": {"AutoTokenizer": ["evil.T", None]}}))
        self.refused(tiny_folder, paths, "program")

    @pytest.mark.parametrize(
        "change",
        [
            {"n_layer": 100_000},
            {"n_layer": 10**400},
            {"n_embd": 10**9},
            {"vocab_size": 10**12},
            {"n_positions": -1},
            {"n_head": 1.5},
            {"n_embd": "32"},
            {"n_inner": True},
            {"num_experts": 10**6},
            {"num_labels": 10**9},
        ],
    )
    @pytest.mark.timeout(LONG)
    def test_unbearable_sizes_are_refused_at_once(self, tiny_folder, paths, change):
        change_config(tiny_folder, **change)
        self.refused(tiny_folder, paths, next(iter(change)))

    def test_a_kernel_from_the_hub(self, tiny_folder, paths):
        change_config(tiny_folder, attn_implementation="somebody/kernel")
        self.refused(tiny_folder, paths, "attn_implementation")

    @pytest.mark.parametrize(("kind", "match"), [("nonsense", "unknown"), (None, "unknown"), ("vit", "write text")])
    def test_kinds_that_cannot_chat(self, tiny_folder, paths, kind, match):
        change_config(tiny_folder, model_type=kind)
        self.refused(tiny_folder, paths, match)

    @pytest.mark.parametrize("content", ["", "{", "[]", "null", "\x00", '{"a": ' * 50_000, " " * 2_000_000])
    def test_settings_that_are_none(self, tiny_folder, paths, content):
        (tiny_folder / "config.json").write_text(content)
        self.refused(tiny_folder, paths, r"config\.json")

    def test_programs_are_found_however_deep(self, tiny_folder, paths):
        nested = {"auto_map": {}}
        for _ in range(400):
            nested = {"a": [nested]}
        change_config(tiny_folder, nested=nested)
        self.refused(tiny_folder, paths, "program of its own")

    def test_a_tokenizer_of_unbearable_size(self, tiny_folder, paths):
        with (tiny_folder / "tokenizer.json").open("ab") as stream:
            stream.truncate(65 << 20)
        with pytest.raises(ModelError, match=r"tokenizer\.json is larger than 64 MiB"):
            load_tokenizer(tiny_folder)

    @pytest.mark.parametrize(
        "change", [{"n_head": 5}, {"n_head": 0}, {"n_embd": None}, {"activation_function": ["gelu_new"]}]
    )
    def test_settings_that_make_no_model(self, tiny_folder, paths, change):
        change_config(tiny_folder, **change)
        self.refused(tiny_folder, paths, "describes no model")

    def test_no_tokenizer(self, tiny_folder, paths):
        for file in tiny_folder.glob("tokenizer*"):
            file.unlink()
        self.refused(tiny_folder, paths, "no tokenizer")

    def test_a_damaged_tokenizer(self, tiny_folder, paths):
        (tiny_folder / "tokenizer.json").write_text('{"version": "1.0"')
        self.refused(tiny_folder, paths, "cannot be loaded")

    def test_shards(self, tiny_folder, tiny_tokenizer, make_model, paths, tmp_path):
        make_model(len(tiny_tokenizer)).save_pretrained(tmp_path / "shards", max_shard_size="40KB")
        tiny_tokenizer.save_pretrained(tmp_path / "shards")
        files = find(str(tmp_path / "shards"), paths)
        assert files.parameters == find(str(tiny_folder), paths).parameters
        assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
        next((tmp_path / "shards").glob("*-00002-*")).unlink()
        self.refused(tmp_path / "shards", paths, "missing")

    def test_old_masks_are_not_learned(self, tmp_path):
        from safetensors.torch import save_file

        save_file({"h.0.attn.bias": torch.ones(9, 9), "wte.weight": torch.ones(2, 3)}, tmp_path / "a.safetensors")
        assert count_parameters(tmp_path / "a.safetensors") == 6


def test_estimates():
    config = {"vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12}
    files = ModelFiles("gpt2", None, "hub", config, 548_000_000, 124_439_808, 1024)
    assert files.kv_elements_per_token == 2 * 12 * 768
    sizes = [estimate_memory(files, one) for one in ("float32", "bfloat16", "8-bit", "4-bit")]
    assert sizes == sorted(sizes, reverse=True)
    assert 500e6 < sizes[0] < 1.2e9
    assert measure_free_memory("cpu") > 2**20
