"""Outputs that grow line by line: what is kept, and where it goes on."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chat_app.cli import main
from chat_app.cli.resumable_output import ResumableOutput
from chat_app.errors import DataError
from chat_app.inference import backend, loaded_model


def lines_of(path: Path) -> list[Any]:
    """The JSON lines of a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class TestFile:
    """The file by itself."""

    def test_it_appears_when_all_is_done(self, tmp_path: Path) -> None:
        target = tmp_path / "out.jsonl"
        target.write_text("before")
        with ResumableOutput(target, "a") as output:
            output.write(0, {"reply": "é"})
            assert target.read_text() == "before"
            output.finish()
        assert lines_of(target) == [{"reply": "é"}]
        assert list(tmp_path.iterdir()) == [target]

    @pytest.mark.parametrize("lost", range(0, 60, 7))
    def test_a_cut_log_loses_only_what_it_lost(self, tmp_path: Path, lost: int) -> None:
        target = tmp_path / "out.jsonl"
        with ResumableOutput(target, "a") as output:
            for number in range(3):
                output.write(number, {"reply": number})
        log = tmp_path / "out.jsonl.partial.log"
        log.write_bytes(log.read_bytes()[: len(log.read_bytes()) - lost])
        with ResumableOutput(target, "a") as output:
            for number in {0, 1, 2} - output.done:
                output.write(number, {"reply": number})
            output.finish()
        assert lines_of(target) == [{"reply": 0}, {"reply": 1}, {"reply": 2}]

    def test_replies_of_other_settings_are_not_mixed(self, tmp_path: Path) -> None:
        with ResumableOutput(tmp_path / "out.jsonl", "a") as output:
            output.write(0, {})
        with pytest.raises(DataError, match="other settings"), ResumableOutput(tmp_path / "out.jsonl", "b"):
            pass
        assert lines_of(tmp_path / "out.jsonl.partial") == [{}]

    def test_nothing_is_left_of_nothing(self, tmp_path: Path) -> None:
        with ResumableOutput(tmp_path / "out.jsonl", "a"):
            pass
        assert not list(tmp_path.iterdir())

    def test_a_folder_that_is_not_there_is_a_sentence(self, tmp_path: Path) -> None:
        with (
            pytest.raises(DataError, match="cannot be written"),
            ResumableOutput(tmp_path / "no" / "out.jsonl", "a"),
        ):
            pass


def test_generate_goes_on_where_it_was_interrupted_and_names_what_it_cannot_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []
    interrupt_at: list[str] = ["c"]

    def answer(model: Any, conversation: Any, sampling: Any) -> Any:
        text = conversation.texts[-1]
        asked.append(text)
        if text in interrupt_at:
            raise KeyboardInterrupt
        if text == "b":
            raise DataError("This is too long.", advice="Shorten it.")
        return SimpleNamespace(text=text.upper())

    monkeypatch.setattr(loaded_model, "load", lambda *_: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(backend, "reply", answer)
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(f'["{text}"]\n' for text in "abcd"))
    command = ["generate", "--input", str(source), "--output", str(target)]

    assert main(command) == 130
    assert "out.jsonl.partial: 1. The same command goes on there." in capsys.readouterr().err
    interrupt_at.clear()
    assert main(command) == 0
    told = capsys.readouterr().err
    assert "in.jsonl, line 2: This is too long. Shorten it." in told
    assert "3 replies in" in told
    assert [line["reply"] for line in lines_of(target)] == ["A", "C", "D"]
    assert asked == ["a", "b", "c", "b", "c", "d"]
