"""What leaves the computer: a zip that plain transformers loads to the same ids, a card, a push that keeps no token."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from chat_app.config.training import TrainConfig
from chat_app.conversation import Conversation
from chat_app.errors import BusyError, ModelError, SettingError
from chat_app.models.export import export, push
from chat_app.models.model_card import public_name
from chat_app.models.tokenizer import load_tokenizer
from chat_app.runs.files import write_json
from chat_app.runs.loss_plot import curves_svg
from chat_app.runs.run import Run
from chat_app.tokenization.chat_formats import get_format
from chat_app.tokenization.encoder import Encoder

TOKEN = "hf_a-secret-that-nobody-may-read"


@pytest.fixture
def model(make_folder: Callable[..., Path]) -> Path:
    """A model folder with a chat template, and with things in it that are nobody else's business."""
    folder = make_folder()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.update(chat_template=get_format("roles").chat_template, name_or_path="/home/ann/secret/model")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "training_args.bin").write_bytes(b"pickle")
    (folder / "optimizer.pt").write_bytes(b"pickle")
    (folder / "notes.txt").write_text("private")
    (folder / ".env").write_text(TOKEN)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = Run.create(
        tmp_path / "runs" / "shop",
        TrainConfig(model="/home/ann/models/my-start", epochs=3, learning_rate=2e-4),
        {"train_conversations": 1200, "valid_conversations": 60, "format": "roles", "files": ["ann.tsv"]},
    )
    made.append("metrics.jsonl", {"step": 0, "epoch": 0, "valid_loss": 5.0})
    for step in range(1, 31):
        made.append("metrics.jsonl", {"step": step, "epoch": step / 10, "train_loss": 5 / step, "learning_rate": 1e-3})
        if step % 10 == 0:
            made.append("metrics.jsonl", {"step": step, "epoch": step / 10, "valid_loss": 2 + abs(step - 20) / 10})
    made.set_state("done", "All epochs are done.", 30, 30)
    return made


def unzipped(path: Path) -> Path:
    folder = path.with_suffix("")
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        archive.extractall(folder)
    return folder


PLAIN = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder = sys.argv[1]
tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, use_safetensors=True)
messages = [{"role": "user", "content": "Where is the shop?"}]
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
ids = model.generate(**prompt, max_new_tokens=12, do_sample=False)
print(json.dumps([prompt["input_ids"][0].tolist(), ids[0].tolist()]))
assert "chat_app" not in sys.modules
"""


def test_plain_transformers_loads_the_zip_and_writes_the_same_ids(model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = unzipped(export(model, tmp_path / "out.zip"))
    there = subprocess.run(
        [sys.executable, "-I", "-c", PLAIN, str(folder)], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    prompt, ids = json.loads(there.stdout.splitlines()[-1])
    here = Encoder(load_tokenizer(model), get_format("roles"), 128).prompt(
        Conversation.from_turns(["Where is the shop?"])
    )
    assert prompt == here.ids
    import torch

    own = AutoModelForCausalLM.from_pretrained(model).generate(
        input_ids=torch.tensor([here.ids]), max_new_tokens=12, do_sample=False
    )
    assert ids == own[0].tolist()


def test_only_what_a_model_needs_leaves(model: Path, run: Run, tmp_path: Path) -> None:
    folder = unzipped(export(model, tmp_path / "out.zip", run=run))
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "chat_format.json", "config.json", "curves.svg", "generation_config.json", "model.safetensors",
        "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    for path in folder.iterdir():
        content = path.read_bytes()
        for secret in (TOKEN.encode(), b"/home/ann", b"ann.tsv", str(tmp_path).encode()):
            assert secret not in content, path.name
    assert (folder / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()


def test_a_link_out_of_the_folder_is_not_followed(model: Path, tmp_path: Path) -> None:
    (tmp_path / "passwords").write_text("x")
    (model / "vocab.txt").symlink_to(tmp_path / "passwords")
    assert not (unzipped(export(model, tmp_path / "out.zip")) / "vocab.txt").exists()


def test_the_same_model_gives_the_same_zip(model: Path, run: Run, tmp_path: Path) -> None:
    first, second = (export(model, tmp_path / name, run=run).read_bytes() for name in ("a.zip", "b.zip"))
    assert first == second
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_card_says_how_it_was_made_and_the_hub_understands_it(model: Path, run: Run, tmp_path: Path) -> None:
    folder = unzipped(export(model, tmp_path / "out.zip", run=run, licence="MIT"))
    card = ModelCard((folder / "README.md").read_text())
    assert card.data.to_dict() == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["chat", "conversational", "gpt2"],
        "license": "mit",
    }
    for said in (
        "| started from | my-start |",
        "| conversations learned | 1,200 |",
        "| best validation loss | 2.0000 nats a token, at step 20 |",
        "| epochs | 3 |",
        "| learning_rate | 0.0002 |",
        "(curves.svg)",
    ):
        assert said in card.text


def test_the_licence_is_left_to_be_filled_in(model: Path, tmp_path: Path) -> None:
    text = (unzipped(export(model, tmp_path / "out.zip")) / "README.md").read_text()
    assert "license" not in ModelCard(text).data.to_dict()
    assert "To be filled in by whoever publishes this model." in text
    with pytest.raises(SettingError, match="no licence's name"):
        export(model, tmp_path / "bad.zip", licence="mit\nlicense: evil")


def test_a_base_model_of_the_hub_is_named(model: Path, run: Run, tmp_path: Path) -> None:
    run.change(model="microsoft/DialoGPT-small")
    text = (unzipped(export(model, tmp_path / "out.zip", run=run)) / "README.md").read_text()
    assert ModelCard(text).data.base_model == "microsoft/DialoGPT-small"


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("gpt2", "gpt2"),
        ("owner/model", "owner/model"),
        ("/home/ann/x", "x"),
        ("C:\\Users\\ann\\x", "x"),
        ("../ann/x", "x"),
        ("~/x", "x"),
        ("ann/private/x", "x"),
    ],
)
def test_a_path_of_this_computer_is_not_told(name: str, public: str) -> None:
    assert public_name(name) == public


def test_the_picture_draws_both_curves(run: Run) -> None:
    from xml.etree import ElementTree

    picture = ElementTree.fromstring(curves_svg(run.metrics()))
    lines = picture.findall("{http://www.w3.org/2000/svg}polyline")
    assert [len(line.attrib["points"].split()) for line in lines] == [30, 4]
    for line in lines:
        for point in line.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= 720
            assert 0 <= y <= 360


def test_odd_metrics_do_not_break_the_picture() -> None:
    assert curves_svg([]) == ""
    assert curves_svg([{"step": 1, "train_loss": 1.0}]) == ""
    assert "polyline" in curves_svg([{"step": 0, "train_loss": 0}, {"step": 0, "train_loss": 0}, {"train_loss": "x"}])


@pytest.fixture
def adapter(tmp_path: Path, model: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    write_json(folder / "adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": str(tmp_path / "base")})
    (folder / "adapter_model.safetensors").write_bytes((model / "model.safetensors").read_bytes())
    return folder


def test_an_adapter_is_exported_as_one(adapter: Path, tmp_path: Path) -> None:
    folder = unzipped(export(adapter, tmp_path / "out.zip", as_="adapter"))
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "base"
    assert ModelCard((folder / "README.md").read_text()).data.library_name == "peft"
    with pytest.raises(ModelError, match="Merge it with its base model first"):
        export(adapter, tmp_path / "whole.zip")


def test_what_is_no_model_is_not_exported(tmp_path: Path, model: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        export(tmp_path, tmp_path / "out.zip")
    with pytest.raises(ModelError, match="no model to export"):
        export(tmp_path / "nowhere", tmp_path / "out.zip")
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors with its weights is missing"):
        export(model, tmp_path / "out.zip")
    assert not (tmp_path / "out.zip").exists()


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as a push speaks with; `server.answer` is what it answers to the first request."""

    def do_POST(self) -> None:
        server: Any = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        server.seen.append((self.path, self.headers.get("Authorization"), body))
        if server.answer != 200:
            return self.say(server.answer, {"error": f"no: {self.headers.get('Authorization')}"})
        if self.path == "/api/repos/create":
            return self.say(200, {"url": f"{server.address}/ann/shop"})
        if "/preupload/" in self.path:
            files = [{**one, "uploadMode": "regular", "shouldIgnore": False} for one in json.loads(body)["files"]]
            return self.say(200, {"files": files})
        if "/commit/" in self.path:
            return self.say(
                200, {"commitUrl": f"{server.address}/ann/shop/commit/1", "commitOid": "1", "success": True}
            )
        if self.path == "/api/validate-yaml":
            return self.say(200, {"errors": [], "warnings": []})
        return self.say(404, {})

    def do_GET(self) -> None:
        self.say(404, {})

    def say(self, status: int, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *parts: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.address = f"http://127.0.0.1:{server.server_port}"
    server.seen, server.answer = [], 200
    for name, value in {  # Whatever the library asks besides goes to this server, too.
        "HF_HUB_OFFLINE": False,
        "ENDPOINT": server.address,
        "AGENT_HARNESSES_PATH": str(tmp_path / "harnesses.json"),
    }.items():
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value, raising=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_push_sends_every_file_in_one_private_repository(
    hub: Any, model: Path, run: Run, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level("DEBUG")
    address = push(model, "ann/shop", TOKEN, run=run, licence="mit", endpoint=hub.address)
    assert address == f"{hub.address}/ann/shop"
    asked = next(json.loads(body) for path, _, body in hub.seen if path == "/api/repos/create")
    assert asked.get("private") is True or asked.get("visibility") == "private"
    commits = [body for path, _, body in hub.seen if "/commit/" in path]
    lines = [json.loads(line) for line in commits[0].splitlines()]
    sent = {one["value"]["path"]: base64.b64decode(one["value"]["content"]) for one in lines if one["key"] == "file"}
    assert len(commits) == 1
    assert sent["model.safetensors"] == (model / "model.safetensors").read_bytes()
    assert {"README.md", "curves.svg", "tokenizer.json"} <= sent.keys()
    assert all(TOKEN.encode() not in content for content in sent.values())
    assert {header for _, header, _ in hub.seen} == {f"Bearer {TOKEN}"}
    assert TOKEN not in caplog.text
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert kept == [model / ".env"]


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (401, ModelError, "does not know this token"),
        (403, ModelError, "may not write to ann/shop"),
        (404, ModelError, "no place called ann/shop"),
        (400, ModelError, "refused the model (answer 400)"),
    ],
)
def test_a_refusal_is_explained_without_the_token(
    hub: Any, model: Path, answer: int, kind: type[Exception], said: str
) -> None:
    hub.answer = answer
    with pytest.raises(kind) as caught:
        push(model, "ann/shop", TOKEN, endpoint=hub.address)
    assert said in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_no_connection_is_explained(hub: Any, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.server_close()
    with pytest.raises(BusyError, match="cannot be reached"):
        push(model, "ann/shop", TOKEN, endpoint=hub.address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BusyError, match="set to stay offline"):
        push(model, "ann/shop", TOKEN, endpoint=hub.address)
    assert hub.seen == []


@pytest.mark.parametrize("name", ["", "a b", "a/b/c", "../x", "-x", "a--b", "x" * 200])
def test_a_name_that_cannot_be_one_is_refused_at_once(model: Path, name: str) -> None:
    with pytest.raises(SettingError, match="no name for the Hub"):
        push(model, name, TOKEN)


@pytest.mark.parametrize("token", ["", "   ", "two words", "with\nline", "short"])
def test_a_token_that_cannot_be_one_is_refused_without_showing_it(model: Path, token: str) -> None:
    with pytest.raises(SettingError, match="This is no token") as caught:
        push(model, "ann/shop", token)
    assert not token.strip() or token not in str(caught.value)
