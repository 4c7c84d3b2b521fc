"""Gathered conversations on disk, their split and their rows: the same as in memory, found again, stopped, bounded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chat_app.config.paths import Paths
from chat_app.conversation import Conversation, Message
from chat_app.data.dataset import load_files
from chat_app.data.readers import Located, Reading, ReadingOptions, read_file
from chat_app.data.readers.chat_exports import threading
from chat_app.data.readers.json import document
from chat_app.data.splitting import hash_conversation, write_split
from chat_app.data.text_corpus import is_plain_text, iterate_chunks, read_chunks, write_chunks
from chat_app.data.tokenized_dataset import (
    ConcatenatedDataset,
    TokenizationOptions,
    tokenize_conversations,
    tokenize_text,
)
from chat_app.errors import DataError
from chat_app.system.progress import Progress
from chat_app.tokenization.chat_formats import get_format
from chat_app.tokenization.encoder import Encoder
from tests.conftest import reading_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "talk.jsonl"
    lines = [
        json.dumps({"messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": f"Question {number} é😀"},
            {"role": "assistant", "content": "no", "weight": 0},
            {"role": "user", "content": "Sure?"},
            {"role": "assistant", "content": f"Answer {number}"},
        ]})
        for number in range(50)
    ]  # fmt: skip
    path.write_text("\n".join([*lines[:20], '["alone"]', *lines[20:]]) + "\n", encoding="utf-8")
    return path


def test_what_was_gathered_is_what_was_read_with_its_lines(file: Path, paths: Paths) -> None:
    material, reading = load_files([file], paths.open_cache("material")), read_file(file)
    assert list(material.iterate_conversations()) == reading.conversations
    assert [item.line for item in material.iterate_located()] == reading.lines
    assert {item.file for item in material.iterate_located()} == {"talk.jsonl"}
    assert material.list_problems() == reading.problems
    facts = material.facts
    assert (facts.conversations, facts.turns, facts.problems) == (50, 200, 1)
    assert (facts.files, facts.parts) == (("talk.jsonl",), {"train": 50})
    assert [preview.kind for preview in facts.previews] == ["jsonl"]


def test_the_second_time_nothing_is_read(file: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_files([file], paths.open_cache("material"))
    monkeypatch.setattr("chat_app.data.dataset.iterate_together", lambda *_, **__: pytest.fail("it was read again"))
    assert load_files([file], paths.open_cache("material")) == first


@pytest.mark.parametrize("indent", [1, None], ids=["over several lines", "on one line"])
def test_a_chat_export_is_parsed_once_and_its_people_are_counted_once(
    indent: int | None, tmp_path: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def noted(module: Any, name: str) -> None:
        own = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given: (done.append(name), own(*given))[1])

    said = [{"type": "message", "from": who, "text": "hello", "date": "2024-01-01T10:00:00"} for who in "ABAB"]
    path = tmp_path / "result.json"
    path.write_text(json.dumps({"name": "A", "type": "personal_chat", "id": 1, "messages": said}, indent=indent))
    noted(document, "parse")
    noted(threading, "survey")
    facts = load_files([path], paths.open_cache("material")).facts
    assert (facts.previews[0].kind, facts.previews[0].bot, facts.turns) == ("telegram", "B", 4)
    assert done == ["parse", "survey"]


def test_other_content_other_options_or_another_name_is_read_anew(file: Path, paths: Paths) -> None:
    cache = paths.open_cache("material")
    folders = {
        load_files([file], cache).folder,
        load_files([file], cache, need_reply=False).folder,
        load_files([file], cache, ReadingOptions(pause=5)).folder,
        load_files([file], cache, names=["mine.jsonl"]).folder,
    }
    file.write_bytes(file.read_bytes() + b'["a", "b"]\n')
    folders.add(load_files([file], cache).folder)
    assert len(folders) == 5


def test_a_damaged_entry_is_made_again(file: Path, paths: Paths) -> None:
    material = load_files([file], paths.open_cache("material"))
    (material.folder / "facts.json").write_text("{")
    assert load_files([file], paths.open_cache("material")) == material


def test_reading_can_be_stopped_and_leaves_nothing(tmp_path: Path, paths: Paths) -> None:
    path = tmp_path / "many.tsv"
    path.write_text("".join(f"hello {number}\thi\n" for number in range(5000)))
    seen: list[int] = []

    def progress(now: Progress) -> None:
        seen.append(now.done)
        if now.done >= 4000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_files([path], paths.open_cache("material"), progress=progress)
    assert seen == [2000, 4000]
    assert not list((paths.home / "cache" / "material").iterdir())


def test_a_file_that_cannot_be_opened_is_told_of(file: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: Path, *_: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", closed)
    with pytest.raises(DataError, match=r"talk\.jsonl: .*allowed"):
        load_files([file], paths.open_cache("material"))


def test_official_parts_stay_apart(tmp_path: Path, paths: Paths) -> None:
    for name, count in (("train", 9), ("valid", 2), ("test", 3)):
        (tmp_path / f"{name}.tsv").write_text("".join(f"{name} {number}\tyes\n" for number in range(count)))
    files = [tmp_path / f"{name}.tsv" for name in ("train", "valid", "test")]
    material = load_files(files, paths.open_cache("material"))
    assert material.facts.parts == {"train": 9, "valid": 2, "test": 3}
    folder = tmp_path / "data"
    folder.mkdir()
    counts = write_split(folder, 0.5, 0, material, None)
    assert dict(counts) == {"train": 9, "valid": 2, "test": 3}
    for name in ("train", "valid", "test"):
        texts = [found.texts[0] for found in read_file(folder / f"{name}.jsonl").conversations]
        assert all(text.startswith(name) for text in texts)


def test_a_file_called_test_that_comes_alone_is_learned(tmp_path: Path, paths: Paths) -> None:
    path = tmp_path / "test.tsv"
    path.write_text("hello\thi\nbye\tsee you\n")
    material = load_files([path], paths.open_cache("material"))
    assert material.facts.parts == {"train": 2}
    assert {item.part for item in material.iterate_located()} == {"train"}


def test_repairs_are_applied_and_the_gathered_set_stays(tmp_path: Path, paths: Paths) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("hello\thi\nhello\thi\nbye\tsee you\n")
    material = load_files([path], paths.open_cache("material"))
    mended = material.with_repairs({"duplicates"})
    assert [item.line for item in mended.iterate_located()] == [1, 3]
    assert [item.line for item in material.iterate_located()] == [1, 2, 3]
    assert path.read_text() == "hello\thi\nhello\thi\nbye\tsee you\n"


FORMATS = ["roles", "sep", "speaker", "pair", "eos"]


@pytest.mark.parametrize("name", FORMATS)
def test_rows_on_disk_are_the_rows_of_the_encoder(name: str, tmp_path: Path, paths: Paths, tiny_tokenizer: Any) -> None:
    long = Conversation.from_turns([f"turn number {number} of a long one" for number in range(30)], last="assistant")
    reading = reading_of(20)
    everything = Reading([*reading.conversations, long], [], list(range(1, 22)), "tsv", "utf-8")
    write_split(tmp_path, 0.0, 0, everything, None)
    encoder = Encoder(tiny_tokenizer, get_format(name), 64)
    expected = [row for one in everything.conversations for row in encoder.examples(one)]
    rows = tokenize_conversations(tmp_path / "train.jsonl", encoder, TokenizationOptions(), paths.open_cache("rows"))
    assert len(rows) == len(expected)
    assert [(row.ids, row.types, row.labels) for row in rows] == [(row.ids, row.types, row.labels) for row in expected]
    assert rows.lengths() == [len(row.ids) for row in expected]
    assert rows[-1] == rows[len(rows) - 1]
    assert [row.ids for row in rows[1:3]] == [row.ids for row in expected[1:3]]
    with pytest.raises(IndexError):
        rows[len(rows)]


def test_rows_are_made_once_and_anew_when_anything_changes(
    tmp_path: Path, paths: Paths, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_split(tmp_path, 0.2, 0, reading_of(20), None)
    file, cache = tmp_path / "train.jsonl", paths.open_cache("rows")
    encoder = Encoder(tiny_tokenizer, get_format("roles"), 64)
    made: list[Path] = []
    original: Callable[..., Any] = __import__("chat_app.data.tokenized_dataset", fromlist=["_make"])._make
    monkeypatch.setattr(
        "chat_app.data.tokenized_dataset._make", lambda folder, *rest: (made.append(folder), original(folder, *rest))
    )
    for _ in range(2):
        tokenize_conversations(file, encoder, TokenizationOptions(), cache)
    assert len(made) == 1
    tokenize_conversations(file, encoder, TokenizationOptions(learn="all"), cache)
    tokenize_conversations(file, Encoder(tiny_tokenizer, get_format("roles"), 63), TokenizationOptions(), cache)
    tokenize_conversations(tmp_path / "valid.jsonl", encoder, TokenizationOptions(), cache)
    assert len(made) == 4


def test_no_conversations_give_no_rows(tmp_path: Path, paths: Paths, tiny_tokenizer: Any) -> None:
    encoder = Encoder(tiny_tokenizer, get_format("roles"), 64)
    rows = tokenize_conversations(tmp_path / "absent.jsonl", encoder, TokenizationOptions(), paths.open_cache("rows"))
    assert (len(rows), list(rows), rows.lengths()) == (0, [], [])


def test_what_is_prepared_in_one_go_is_the_same(tiny_tokenizer: Any) -> None:
    encoder = Encoder(tiny_tokenizer, get_format("roles"), 64)
    texts = ["hello", "<|End|> is text", "", "naïve 😀", "hello"]
    alone = [encoder.text_ids(text) for text in texts]
    encoder.prepare(texts)
    assert [encoder.text_ids(text) for text in texts] == alone
    encoder.forget()
    assert [encoder.text_ids(text) for text in texts] == alone


def test_the_mark_of_a_conversation_does_not_depend_on_what_is_learned_of_it() -> None:
    one = Conversation((Message("user", "a"), Message("assistant", "b")))
    same = Conversation((Message("user", "a"), Message("assistant", "b", in_loss=False)))
    assert hash_conversation(one, 0) == hash_conversation(same, 0) != hash_conversation(one, 1)


def test_located_of_a_reading() -> None:
    items: Iterator[Located] = reading_of(3).iterate_located()
    assert [item.line for item in items] == [1, 2, 3]


def test_running_text_fills_windows_from_end_to_end(tmp_path: Path, paths: Paths, tiny_tokenizer: Any) -> None:
    folder = tmp_path / "books"
    (folder / "more").mkdir(parents=True)
    (folder / "a.txt").write_text("It was a dark night.\n\nThe wind, the rain, and nobody on the road.\n" * 40)
    (folder / "more" / "b.md").write_text("Another book begins here. " * 60)
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))
    assert is_plain_text(folder)
    assert is_plain_text(folder / "a.txt")
    texts = list(iterate_chunks(folder))
    assert len(texts) == 2
    counts = write_chunks(tmp_path, texts, None, 0.0, 0)
    assert dict(counts) == {"train_text": 2, "valid_text": 0}
    encoder = Encoder(tiny_tokenizer, get_format("roles"), 64)
    rows = tokenize_text(tmp_path / "train_text.jsonl", encoder, paths.open_cache("rows"))
    ids = [token for row in rows for token in row.ids]
    separator = tiny_tokenizer.bos_token_id
    assert ids == [token for text in texts for token in (*encoder.text_ids(text), separator)]
    assert {len(row.ids) for row in rows[:-1]} == {64}
    assert all(row.labels == row.ids for row in rows)


def test_rows_of_conversations_and_of_text_are_counted_as_one(
    tmp_path: Path, paths: Paths, tiny_tokenizer: Any
) -> None:
    write_split(tmp_path, 0.0, 0, reading_of(3), None)
    write_chunks(tmp_path, ["It was a dark night. " * 60], None, 0.0, 0)
    encoder, cache = Encoder(tiny_tokenizer, get_format("roles"), 64), paths.open_cache("rows")
    said = tokenize_conversations(tmp_path / "train.jsonl", encoder, TokenizationOptions(), cache)
    read = tokenize_text(tmp_path / "train_text.jsonl", encoder, cache)
    both, expected = ConcatenatedDataset(said, read), [*said, *read]
    assert len(read) > len(said) == 3
    assert [list(both), both[:], both[-2:]] == [expected, expected, expected[-2:]]
    assert [both[index - len(both)] for index in range(len(both))] == expected
    for wrong in (len(both), -len(both) - 1):
        with pytest.raises(IndexError):
            both[wrong]


@pytest.mark.parametrize("content", ["hello\thi\n", '["a", "b"]\n', "User: hi\nBot: hello\n\nUser: a\nBot: b\n", ""])
def test_conversations_are_no_running_text(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.txt").write_text(content)
    assert not is_plain_text(tmp_path / "a.txt")


def test_a_share_of_the_text_is_kept_aside(tmp_path: Path) -> None:
    texts = [f"piece {number}" for number in range(50)]
    assert dict(write_chunks(tmp_path, texts, None, 0.1, 0)) == {"train_text": 45, "valid_text": 5}
    learned, aside = list(read_chunks(tmp_path / "train_text.jsonl")), list(read_chunks(tmp_path / "valid_text.jsonl"))
    assert sorted(learned + aside) == sorted(texts)
    assert dict(write_chunks(tmp_path, texts, ["other"], 0.1, 0)) == {"train_text": 50, "valid_text": 1}
