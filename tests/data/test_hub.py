"""Data sets from a folder that was downloaded from the Hub; names, splits and errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chat_app.config.paths import Paths
from chat_app.data import hub as hub_data
from chat_app.data.readers.options import ReadingOptions
from chat_app.data.readers.types import Located, Problem
from chat_app.data.source import DataSource, HubData, load_source
from chat_app.errors import DataError

pytestmark = pytest.mark.dependencies

CARD = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
  - split: validation
    path: data/validation-*
  - split: test
    path: data/test-*
---
# A data set
"""


def folder_with(tmp_path: Path, card: str = CARD, **splits: list[dict[str, Any]]) -> Path:
    import pyarrow
    import pyarrow.parquet

    folder = tmp_path / "downloaded"
    (folder / "data").mkdir(parents=True)
    if card:
        (folder / "README.md").write_text(card)
    for split, rows in splits.items():
        table = pyarrow.Table.from_pylist(rows)
        pyarrow.parquet.write_table(table, folder / f"data/{split}-00000-of-00001.parquet")
    return folder


def row(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": f"{text}!"}]}


def short(items: list[Located | Problem]) -> list[Any]:
    return [
        (item.line, item.part, item.conversation.texts) if isinstance(item, Located) else (item.line, item.reason)
        for item in items
    ]


def test_all_splits_are_kept_apart(tmp_path: Path) -> None:
    nobody = {"messages": [{"role": "user", "content": "alone"}]}
    folder = folder_with(tmp_path, train=[row("a"), nobody, row("b")], validation=[row("c")], test=[row("d")])
    found = list(hub_data.stream_conversations(str(folder)))
    assert short(found) == [
        (1, "train", ["a", "a!"]),
        (2, "No message is the assistant's: there is nothing to learn in it."),
        (3, "train", ["b", "b!"]),
        (1, "valid", ["c", "c!"]),
        (1, "test", ["d", "d!"]),
    ]
    assert [item.file for item in found][-2:] == ["downloaded (validation)", "downloaded (test)"]
    assert short(list(hub_data.stream_conversations(str(folder), split="validation"))) == [(1, "valid", ["c", "c!"])]


def test_fields_get_their_meaning_by_name(tmp_path: Path) -> None:
    rows = [{"q": "Where?", "a": "Here."}, {"q": "When?", "a": "Now."}]
    folder = folder_with(tmp_path, card="", train=rows)
    options = ReadingOptions(columns=("q=context", "a=reply"))
    assert short(list(hub_data.stream_conversations(str(folder), options=options))) == [
        (1, "train", ["Where?", "Here."]),
        (2, "train", ["When?", "Now."]),
    ]


def test_rows_of_a_corpus_are_read_as_that_corpus(tmp_path: Path) -> None:
    said = [("c1", 1, 5, "I fell_comma_ badly."), ("c1", 2, 7, "Oh no!"), ("c2", 1, 5, "Hi."), ("c2", 2, 7, "Hello.")]
    rows = [
        {
            "conv_id": conv,
            "utterance_idx": index,
            "context": "sad",
            "prompt": "p",
            "speaker_idx": who,
            "utterance": text,
        }
        for conv, index, who, text in said
    ]
    folder = folder_with(tmp_path, train=rows, validation=rows[:2], test=rows[2:])
    assert short(list(hub_data.stream_conversations(str(folder)))) == [
        (1, "train", ["I fell, badly.", "Oh no!"]),
        (3, "train", ["Hi.", "Hello."]),
        (1, "valid", ["I fell, badly.", "Oh no!"]),
        (1, "test", ["Hi.", "Hello."]),
    ]


def test_wrong_splits_and_configurations_name_the_right_ones(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, train=[row("a")], validation=[row("b")], test=[row("c")])
    with pytest.raises(DataError, match=r"downloaded: It has no split 'nope'. Choose one of train, validation, test"):
        hub_data.stream_conversations(str(folder), split="nope")
    with pytest.raises(DataError, match=r"It has no configuration 'nope'. Choose one of default"):
        hub_data.stream_conversations(str(folder), config="nope")
    configs = [
        {"config_name": "one", "data_files": "data/train-*"},
        {"config_name": "two", "data_files": "data/test-*"},
    ]
    (folder / "README.md").write_text(f"---\nconfigs: {json.dumps(configs)}\n---\n")
    with pytest.raises(DataError, match=r"several configurations. Choose one of one, two"):
        hub_data.stream_conversations(str(folder))
    assert short(list(hub_data.stream_conversations(str(folder), config="two"))) == [(1, "train", ["c", "c!"])]


def test_a_download_without_the_files_of_its_card_names_no_split_that_nobody_asked_for(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, train=[row("a")])
    with pytest.raises(DataError, match=r"^downloaded: The rows of this data set cannot be read\."):
        hub_data.stream_conversations(str(folder))


def test_code_is_never_run(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, card="", train=[row("a")])
    (folder / "downloaded.py").write_text("raise SystemExit('this code was run')")
    with pytest.raises(DataError, match="running its own code, which is never done"):
        list(hub_data.stream_conversations(str(folder)))


def test_a_broken_table_says_so(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, card="", train=[row("a")])
    (folder / "data" / "train-00000-of-00001.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match="downloaded"):
        list(hub_data.stream_conversations(str(folder)))


@pytest.mark.parametrize(
    "name",
    [
        "../owner",
        "a/b/c",
        "/etc",
        "owner/../x",
        "x" * 300,
        "a\0b/c",
        "https://x/y",
        "a b/c",
        "-a/b",
        "~nobody-of-this-name/x",
    ],
)
def test_only_names_and_downloads_are_taken(name: str) -> None:
    with pytest.raises(DataError, match="is no name of a data set"):
        hub_data.stream_conversations(name)


def test_a_folder_without_data_is_no_download(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("hello")
    with pytest.raises(DataError, match="is no name of a data set"):
        hub_data.stream_conversations(str(tmp_path))


def test_folders_can_be_forbidden(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, card="", train=[row("a")])
    with pytest.raises(DataError, match="is no name of a data set"):
        hub_data.stream_conversations(str(folder), folders=False)


def test_a_data_set_that_was_read_before_is_not_asked_for_again(
    tmp_path: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = DataSource(hub=HubData(str(folder_with(tmp_path, card="", train=[row("a")]))))
    first = load_source(wanted, paths)
    monkeypatch.setattr(hub_data, "stream_conversations", lambda *_, **__: pytest.fail("it was asked for again"))
    assert load_source(wanted, paths) == first


def test_a_download_that_has_changed_is_read_anew(tmp_path: Path, paths: Paths) -> None:
    folder = folder_with(tmp_path, card="", train=[row("a")])
    wanted = DataSource(hub=HubData(str(folder)))
    assert [one.texts[0] for one in load_source(wanted, paths).iterate_conversations()] == ["a"]
    folder_with(tmp_path / "other", card="", train=[row("b"), row("c")])
    name = "data/train-00000-of-00001.parquet"
    (tmp_path / "other" / "downloaded" / name).replace(folder / name)
    assert [one.texts[0] for one in load_source(wanted, paths).iterate_conversations()] == ["b", "c"]


@pytest.mark.parametrize("revision", ["../x", "", "a b", "-x"])
def test_revisions_are_checked(revision: str) -> None:
    with pytest.raises(DataError, match="is no revision"):
        hub_data.stream_conversations("owner/name", revision=revision)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Stands in for the network: fails with what is given, and remembers what was asked for."""
    import datasets

    calls: list[tuple[Any, ...]] = []

    def fail_with(*errors: Exception) -> list[tuple[Any, ...]]:
        left = list(errors)

        def load_dataset(place: str, config: Any, *, split: Any, revision: Any, streaming: bool) -> Any:
            calls.append((place, revision, streaming))
            raise left.pop(0)

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return calls

    return fail_with


@pytest.mark.parametrize(
    ("short_name", "repository", "revision"),
    [
        ("dailydialog", "li2017dailydialog/daily_dialog", "refs/convert/parquet"),
        ("empathetic", "facebook/empathetic_dialogues", "refs/convert/parquet"),
        ("PersonaChat", "AlekseyKorshuk/persona-chat", None),
        ("blended-skill-talk", "ParlAI/blended_skill_talk", None),
    ],
)
def test_short_names(asked: Any, short_name: str, repository: str, revision: str | None) -> None:
    calls = asked(ConnectionError("Couldn't reach it (OfflineModeIsEnabled)"))
    with pytest.raises(DataError, match="set to work offline"):
        hub_data.stream_conversations(short_name)
    assert calls == [(repository, revision, True)]


def test_where_a_script_is_needed_the_converted_tables_are_tried(asked: Any) -> None:
    script = RuntimeError("Dataset scripts are no longer supported, but found x.py")
    calls = asked(script, FileNotFoundError("refs/convert/parquet"))
    with pytest.raises(DataError, match="running its own code"):
        hub_data.stream_conversations("owner/name")
    assert calls == [("owner/name", None, True), ("owner/name", "refs/convert/parquet", True)]


def test_what_the_hub_refuses_is_explained(asked: Any) -> None:
    from datasets.exceptions import DatasetNotFoundError

    cases = [
        (DatasetNotFoundError("Dataset 'o/n' doesn't exist on the Hub or cannot be accessed."), "no such data set"),
        (DatasetNotFoundError("Dataset 'o/n' is a gated dataset on the Hub."), "given only to people who asked"),
        (ConnectionError("Couldn't reach 'o/n' on the Hub"), "cannot be fetched"),
    ]
    for error, message in cases:
        asked(error)
        with pytest.raises(DataError, match=message):
            hub_data.stream_conversations("o/n")
