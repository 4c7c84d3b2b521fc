"""Bad files, by the hundred: each ends soon, in words for people, and nothing of it is lost without a word.

To see what is said about the files that were made by hand: `python -m chat_app inspect tests/bad_inputs/files/NAME`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from chat_app.cli import main
from chat_app.conversation import Conversation
from chat_app.data.dataset import load_files
from chat_app.data.quality import Checker
from chat_app.data.readers import Located, Note, Problem, iterate, read_file, read_files
from chat_app.data.writers import write_tsv
from chat_app.errors import DataError
from chat_app.system.disk_cache import Cache
from tests.data.readers.bad_inputs.case import TSV, Bad, jsonl
from tests.data.readers.bad_inputs.make import all_cases
from tests.data.readers.bad_inputs.values import FEW, SCHEMAS, WHOLE, mutants

HERE = Path(__file__).parent / "bad_inputs"
CASES = all_cases()
LIGHT = [case for case in CASES if not case.heavy]
# What only those who write programs understand.
FOREIGN = re.compile(
    r"NoneType|codec|Traceback|\b0x|\bstr\b|\bint\b|\bdict\b|Errno|errno|Exception|object at|\bnan\b|surrogateescape"
    r"|unicode|argument|<class|\bUTF8|\btuple\b|\bbytes object|lambda|self\.\w|__"
)
# A guard against what never ends; nothing here takes a tenth of it.
pytestmark = [pytest.mark.timeout(180), pytest.mark.slow_file]


@dataclass
class Outcome:
    """What became of a file."""

    conversations: int = 0
    numbers: set[int | None] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    error: DataError | None = None


def outcome(path: Path) -> Outcome:
    found = Outcome()
    try:
        for item in iterate(path):
            if isinstance(item, Located):
                assert isinstance(item.conversation, Conversation)
                found.conversations += 1
                found.numbers.add(item.line)
            elif not isinstance(item, Note):
                found.problems.append(item)
                found.numbers.add(item.line)
    except DataError as error:
        found.error = error
    return found


def assert_readable(sentence: str) -> None:
    """A sentence for people: it begins and ends as sentences do, and has no words of the machinery."""
    assert re.match(r'"|[A-Z0-9]', sentence), sentence
    assert sentence.rstrip().endswith((".", "!", "?", '"', "…")), sentence
    assert len(sentence) < 1_500
    assert sentence.isprintable(), ascii(sentence)
    quoteless = re.sub(r'"[^"]*"', "", sentence)
    assert not FOREIGN.search(quoteless), sentence


def assert_said_well(found: Outcome, name: str) -> None:
    shown = "".join(sign if sign.isprintable() else "?" for sign in name)
    stem = shown.removesuffix(".gz")
    for problem in found.problems[:200]:
        assert problem.file.startswith((shown, stem)) or name.startswith("slack"), problem
        assert problem.line is None or problem.line >= 1
        assert_readable(problem.reason)
        assert_readable(problem.advice)
    if found.error:
        assert (found.error.where or "").startswith((shown, stem)), found.error
        assert_readable(found.error.what)
        assert_readable(found.error.advice or "")


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 150
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", LIGHT, ids=lambda case: ascii(case.name).strip("'"))
def test_every_bad_input_ends_in_words_and_loses_nothing(case: Bad, tmp_path: Path) -> None:
    path = case.write(tmp_path)
    found = outcome(path)
    assert_said_well(found, case.name)
    assert found.conversations == case.conversations
    if not found.error:
        assert case.numbers() - found.numbers == set()
    cache = Cache(tmp_path / "cache", 10**10, 3_600)
    if not case.conversations:
        with pytest.raises(DataError) as refused:
            load_files([path], cache)
        assert_readable(refused.value.what)
        assert_readable(refused.value.advice or "Fine.")
        assert not (tmp_path / "cache").exists() or not list((tmp_path / "cache").iterdir())
        return
    material = load_files([path], cache)
    assert material.facts.conversations == case.conversations
    assert [problem.sentence() for problem in material.iterate_problems()] == [one.sentence() for one in found.problems]
    checker = Checker(count_tokens=lambda texts: [len(text) for text in texts], window=128)
    checker.add_all(material.iterate_unrepaired())
    check = checker.summarize()
    assert check.conversations == case.conversations
    for finding in check.findings:
        assert all(spot.quote.isprintable() and len(spot.quote) < 500 for spot in finding.spots)


@pytest.mark.timeout(660)
@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell how much memory a process has had")
def test_what_is_huge_is_read_in_bounded_memory(tmp_path: Path) -> None:
    heavy = {case.name: case for case in CASES if case.heavy}
    for case in heavy.values():
        case.write(tmp_path)
    run = [sys.executable, "-m", "tests.data.readers.bad_inputs.heavy", str(tmp_path)]
    done = subprocess.run(run, cwd=HERE.parents[3], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert {result["name"] for result in results} == set(heavy)
    for result in results:
        case = heavy[result["name"]]
        assert result["conversations"] == case.conversations, result
        assert result["error"] or case.numbers() <= set(result["numbers"])
    assert results[-1]["peak"] - results[0]["before"] < 200, results  # megabytes


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_wrong_value_at_any_place_of_a_record_costs_that_record_at_most(name: str, tmp_path: Path) -> None:
    good = SCHEMAS[name]
    path = tmp_path / "records.jsonl"
    changed = list(mutants(good))
    path.write_bytes(jsonl(good, good, *changed))
    found = outcome(path)
    assert_said_well(found, path.name)
    rows = name in ("empathetic row", "message row", "personachat row")  # a conversation is several of them
    assert found.error is None
    assert rows or set(range(1, len(changed) + 3)) == found.numbers
    for value in mutants(good, FEW):
        path.write_bytes(json.dumps(value).encode())
        assert_said_well(outcome(path), path.name)


@pytest.mark.parametrize("name", WHOLE)
def test_a_wrong_value_at_any_place_of_a_file_is_said_in_words(name: str, tmp_path: Path) -> None:
    path = tmp_path / "all.json"
    for value in mutants(WHOLE[name], FEW):
        path.write_bytes(json.dumps(value, indent=1).encode())
        found = outcome(path)
        assert_said_well(found, path.name)
        assert found.conversations or found.problems or found.error or nothing_in(value)


def nothing_in(value: Any) -> bool:
    """Whether a value holds no text that anybody could have said."""
    if isinstance(value, dict):
        return all(nothing_in(one) for key, one in value.items() if key != "columns")
    return all(nothing_in(one) for one in value) if isinstance(value, list) else not isinstance(value, str)


def sentences() -> Iterator[tuple[str, int | None, list[str]]]:
    for block in (HERE / "sentences.txt").read_text(encoding="utf-8").strip().split("\n\n"):
        head, *said = block.split("\n")
        name, _, count = head.partition(": ")
        yield name, None if count == "refused" else int(count), [one.strip() for one in said]


@pytest.mark.parametrize(
    ("name", "conversations", "said"), list(sentences()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_is_said_about_the_most_common_mistakes(name: str, conversations: int | None, said: list[str]) -> None:
    found: tuple[int | None, list[str]]
    try:
        reading = read_file(HERE / "files" / name)
        found = len(reading.conversations), [problem.sentence() for problem in reading.problems]
    except DataError as error:
        found = None, [error.sentence()]
    assert found == (conversations, said)


def test_something_is_said_about_every_file_made_by_hand() -> None:
    assert [name for name, _, _ in sentences()] == sorted(path.name for path in (HERE / "files").iterdir())


INSPECTED = [
    ("no-reply.tsv", 0), ("open-quote.csv", 0), ("comma-after-each-line.jsonl", 0), ("cut-off.json", 2),
    ("empty.csv", 2), ("a-story.txt", 2), ("telegram.html", 2), ("one-person.txt", 2), ("letter.rtf", 2),
    ("single-quotes.jsonl", 2), ("one-other-byte.tsv", 0), ("two-values.json", 2), ("weights.tsv", 0),
]  # fmt: skip


@pytest.mark.parametrize(("name", "code"), INSPECTED)
def test_inspect_says_the_same_on_one_line_and_never_a_traceback(
    name: str, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CHAT_APP_HOME", str(tmp_path))
    assert main(["inspect", "--no-check", str(HERE / "files" / name)]) == code
    shown = capsys.readouterr()
    said = next(one for file, _, one in sentences() if file == name)
    if code:
        assert shown.err.strip().splitlines()[-1] == f"chat_app: {said[0]}"
        assert shown.out == ""
    else:
        assert [line.strip() for line in shown.out.splitlines()[-len(said) :]] == said
    assert "Traceback" not in shown.err + shown.out


def test_a_name_that_would_move_the_cursor_or_is_no_text_is_shown_harmlessly(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CHAT_APP_HOME", str(tmp_path / "home"))
    path = tmp_path / ("\x1b[31m\n.tsv" if sys.platform != "win32" else "red.tsv")
    path.write_bytes(b"Hello\n")
    assert main(["inspect", "--no-check", str(path)]) == 2
    shown = capsys.readouterr().err.strip().splitlines()[-1]
    assert shown.startswith(
        "chat_app: ?[31m?.tsv: Nothing" if sys.platform != "win32" else "chat_app: red.tsv: Nothing"
    )


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="there are no users to change to")
def test_a_file_that_may_not_be_read_is_named() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "inner").mkdir()
        (folder / "a.tsv").write_bytes(TSV)
        (folder / "inner" / "b.tsv").write_bytes(TSV)
        for path, mode in ((folder / "a.tsv", 0), (folder / "inner", 0), (folder, 0o755)):
            path.chmod(mode)
        before = os.geteuid()
        if not before:
            os.seteuid(65534)
        try:
            told = "Reading this file is not allowed. Allow it, or copy the file to a folder of your own."
            with pytest.raises(DataError) as refused:
                read_file(folder / "a.tsv")
            assert refused.value.sentence() == f"a.tsv: {told}"
            with pytest.raises(DataError) as refused:
                read_file(folder / "inner" / "b.tsv")
            assert refused.value.sentence() == f"b.tsv: {told}"
            found = outcome(folder)
        finally:
            os.seteuid(before)
            (folder / "inner").chmod(0o755)
        assert found.error is not None
        assert "not allowed" in found.error.what


def test_a_file_that_vanishes_while_it_is_read_is_an_error_and_not_an_end(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.tsv").write_bytes(TSV)
    items = iterate(folder)
    assert isinstance(next(items), Located)
    for number in (1, 2):
        (folder / f"{number}.tsv").unlink()
    problems = [item for item in items if isinstance(item, Problem)]
    assert [problem.file for problem in problems] == ["data/1.tsv", "data/2.tsv"]
    for problem in problems:
        assert_readable(problem.reason)


def test_one_bad_file_of_several_is_named(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.tsv", tmp_path / "bad.tsv"
    good.write_bytes(TSV)
    bad.write_bytes(b"Hello\n")
    with pytest.raises(
        DataError, match=r"^bad\.tsv: Nothing in this file can be used\. Line 1: This line has 1 column"
    ):
        read_files([good, bad])


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\x01", "'=", "''@", "=cmd|' /C calc'!A0"])
def test_no_cell_that_is_written_for_a_spreadsheet_is_a_formula(start: str, tmp_path: Path) -> None:
    path = tmp_path / "out.tsv"
    write_tsv([Conversation.from_turns([f"{start}1", f"{start}SUM(A1)"], last="assistant")], path)
    for cell in path.read_text(encoding="utf-8").splitlines()[1].split("\t"):
        assert cell[0] not in "=+-@\t\r"
