"""Proof that it learned: two evaluations compared, copies found with the person's own lines, corrections made a run."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from chat_app.config.loading import LoadConfig
from chat_app.config.paths import Paths
from chat_app.config.sampling import SamplingConfig
from chat_app.config.training import TrainConfig
from chat_app.conversation import Conversation
from chat_app.data.readers import Located, Problem, iterate
from chat_app.errors import DataError
from chat_app.evaluation import metrics as scoring
from chat_app.evaluation.comparison import MEASURES, as_csv, compare, figure, summary
from chat_app.evaluation.evaluation import Evaluation
from chat_app.evaluation.memorization import RunMemorizationIndex
from chat_app.evaluation.runner import evaluate_models, generate_replies
from chat_app.evaluation.selection import extract_prompts, sample_evenly
from chat_app.runs.run import Run
from chat_app.system.progress import Progress
from chat_app.training.corrections_run import open_corrections, prepare_corrections_run
from chat_app.training.prepare import write_run

BEFORE = Evaluation(200.0, 2.0, 1.0, 0.5, 0.8, 0.1, 0.02, 8.0, 10, 100, 5)
AFTER = Evaluation(50.0, 1.5, 20.0, 0.5, 0.9, 0.4, 0.05, 12.0, 10, 100, 5)


def verdicts(before: Evaluation, after: Evaluation) -> dict[str, str]:
    return {one.measure.name: one.verdict for one in compare(before.as_dict(), after.as_dict())}


def test_each_number_has_its_own_good_direction() -> None:
    assert verdicts(BEFORE, AFTER) == {
        "perplexity": "better",
        "bits_per_byte": "better",
        "bleu": "better",
        "reward": "better",
        "penalty": "worse",
        "distinct_1": "the same",
        "distinct_2": "better",
        "reply_words": "longer",
    }
    arrows = {one.measure.name: one.arrow for one in compare(BEFORE.as_dict(), AFTER.as_dict())}
    assert (arrows["perplexity"], arrows["bleu"], arrows["distinct_1"]) == ("↓", "↑", "=")


def test_the_comparison_in_one_sentence() -> None:
    said = summary(compare(BEFORE.as_dict(), AFTER.as_dict()))
    assert said.startswith("What was said surprises it 25 % less than before: it is better.")
    assert said.endswith("Of the other numbers 4 are better and 1 worse.")
    assert "33 % more than before: it is worse" in summary(compare(AFTER.as_dict(), BEFORE.as_dict()))
    assert "neither better nor worse" in summary(compare(AFTER.as_dict(), AFTER.as_dict()))


def test_perplexities_of_different_vocabularies_are_not_compared() -> None:
    other = Evaluation(**{**asdict(AFTER), "learned_tokens": 90})
    assert verdicts(BEFORE, other)["perplexity"] == ""
    assert verdicts(BEFORE, other)["bits_per_byte"] == "better"


def test_what_was_not_measured_has_no_verdict() -> None:
    silent = Evaluation(**{**asdict(AFTER), "bleu": None, "replies": 0})
    assert verdicts(BEFORE, silent)["bleu"] == ""
    assert figure(MEASURES[2], None) == "–"


def test_the_table_as_a_file_opens_in_a_spreadsheet_and_holds_no_formula() -> None:
    rows = list(csv.reader(io.StringIO(as_csv({"=HYPERLINK(1)": BEFORE.as_dict(), "b, c": AFTER.as_dict()}))))
    assert rows[0] == ["measure", "'=HYPERLINK(1)", "b, c", "change"]
    assert ["perplexity", "200.0", "50.0", "better"] in rows
    assert {one.name for one in MEASURES} < {row[0] for row in rows}
    assert "change" not in as_csv({"one": BEFORE.as_dict()}).splitlines()[0]


def test_the_length_of_replies_counts_words_only() -> None:
    assert scoring.mean_words(["It's nine, I think.", "", "Yes!"]) == pytest.approx(5 / 3)
    assert scoring.mean_words([]) == 0.0


def test_conversations_are_taken_evenly() -> None:
    numbers: Any = range(10)
    assert sample_evenly(numbers, 10, 4) == [0, 2, 5, 7]
    assert sample_evenly(numbers, 10, 99) == list(range(10))


def test_openings_are_asked_once() -> None:
    said = [Conversation.from_turns(one) for one in (["a", "b"], ["a", "c"], ["d", "e", "f", "g"])]
    assert [one.texts for one in extract_prompts(said, 5)] == [["a"], ["d"]]
    assert [one.texts for one in extract_prompts(said, 1)] == [["a"]]


def test_a_measurement_can_be_stopped_and_repeated(tiny_folder: Path, paths: Paths) -> None:
    said = [Conversation.from_turns([f"question {n}", f"answer {n}"]) for n in range(4)]
    told: list[str] = []
    found = evaluate_models(
        [str(tiny_folder)] * 2, said, paths, most_replies=2, progress=lambda now: told.append(now.message)
    )
    assert found[0] == found[1]
    assert found[0].replies == 2
    assert found[0].reply_words is not None
    assert told[0] == "Model 1 of 2: Loading it."
    assert "Model 1 of 2: Wrote 1 of 2 replies." in told

    class Enough(Exception):
        pass

    def stop(now: Progress) -> None:
        if "Read" in now.message:
            raise Enough

    with pytest.raises(Enough):
        evaluate_models([str(tiny_folder)], said, paths, progress=stop)


def test_replies_with_a_seed_are_always_the_same(tiny_folder: Path, paths: Paths) -> None:
    prompts = [Conversation.from_turns(["Hello"]), Conversation.from_turns(["Where is the shop?"])]
    sampling = SamplingConfig(seed=1, max_new_tokens=8)
    first = generate_replies(str(tiny_folder), prompts, paths, sampling)
    assert first == generate_replies(str(tiny_folder), prompts, paths, sampling)
    assert len(first) == 2


class FromFiles:
    """Conversations of two files with places that are not those in the run's data."""

    def iterate_located(self) -> Any:
        yield Located(Conversation.from_turns(["Do you ship?", "We only ship within the whole country."]), 12, "a.tsv")
        yield Located(Conversation.from_turns(["Hi", "Good morning to you, dear friend of teapots!"]), 7, "b<i>.csv")

    def iterate_problems(self) -> Any:
        return iter(())


@pytest.fixture
def learned(paths: Paths) -> Run:
    return write_run(TrainConfig(valid_share=0.0), FromFiles(), paths, folder=paths.runs / "learned")


def test_a_copy_is_found_on_the_line_of_the_persons_own_file(learned: Run, paths: Paths) -> None:
    index = RunMemorizationIndex.open(learned, paths)
    copy = index.classify_reply("We only ship within the whole country.")
    assert (copy.kind, copy.file, copy.line) == ("copied", "a.tsv", 12)
    assert copy.label == "copied (line 12 of a.tsv)"
    assert copy.sentence == "All 7 words of the reply stand in a row in line 12 of a.tsv."
    assert index.classify_reply("Good morning to you, dear friend of teapots").line == 7
    new = index.classify_reply("Nothing of this was ever said there, I promise.")
    assert (new.kind, new.label, new.line) == ("new", "new", None)


def test_the_index_is_made_once_and_anew_when_the_data_change(learned: Run, paths: Paths) -> None:
    told: list[str] = []
    RunMemorizationIndex.open(learned, paths)
    kept = list((paths.home / "cache" / "sources").iterdir())
    RunMemorizationIndex.open(learned, paths, lambda now: told.append(now.message))
    assert told == []
    assert list((paths.home / "cache" / "sources").iterdir()) == kept
    assert not list(learned.data.glob("*words*"))  # What can be made again lies in the cache.
    with (learned.data / "train.jsonl").open("a") as file:
        file.write(json.dumps({"turns": ["And now?", "Now there is one more line here."]}) + "\n")
    copy = RunMemorizationIndex.open(learned, paths).classify_reply("Now there is one more line here.")
    assert (copy.kind, copy.line) == ("copied", 3)


def test_without_the_data_a_copy_cannot_be_found(learned: Run, paths: Paths) -> None:
    (learned.data / "train.jsonl").unlink()
    with pytest.raises(DataError, match="no longer there"):
        RunMemorizationIndex.open(learned, paths)


def rows_of(run: Run) -> list[Located]:
    return [item for item in iterate(run.data / "train.jsonl", need_reply=False) if not isinstance(item, Problem)]


def test_corrections_become_a_run_among_what_the_model_learned_before(learned: Run, paths: Paths) -> None:
    kept = open_corrections(paths, "me")
    kept.add(Conversation.from_turns(["When do you open?"]), "Hm.", "At nine.")
    run = prepare_corrections_run(learned.id, kept.list(), paths, about={"by": "me"})
    assert run.config().model == learned.id
    assert run.about()["by"] == "me"
    assert run.about()["files"] == ["1 correction"]
    replies = [row.conversation.turns[-1].text for row in rows_of(run)]
    assert replies.count("At nine.") > 10
    assert replies.count("We only ship within the whole country.") == 1
    copy = RunMemorizationIndex.open(run, paths).describe_match
    assert copy  # Its replies can be searched for copies too.


def test_the_starter_is_taught_among_what_the_starter_knows(paths: Paths) -> None:
    kept = open_corrections(paths, "me")
    kept.add(Conversation.from_turns(["When do you open?"]), "Hm.", "At nine.")
    run = prepare_corrections_run("starter", kept.list(), paths)
    learned = iterate(paths.assets / "starter_earlier.jsonl", need_reply=False)
    known = {text for item in learned if isinstance(item, Located) for text in item.conversation.texts}
    others = [row.conversation for row in rows_of(run) if row.conversation.turns[-1].text != "At nine."]
    assert len(others) > 10
    assert all(one.turns[-1].text in known for one in others)


@pytest.mark.parametrize("visitor", ["user:../../etc", "a/b", "", "\ud800", "x" * 5000])
def test_no_name_of_a_visitor_leads_out_of_the_folder(paths: Paths, visitor: str) -> None:
    folder = open_corrections(paths, visitor).folder
    assert folder.parent == paths.home / "corrections"
    assert folder.name.isalnum()
    assert folder != open_corrections(paths, visitor + "y").folder


def test_measuring_leaves_settings_to_the_person(
    tiny_folder: Path, paths: Paths, make_model: Callable[..., Any]
) -> None:
    said = [Conversation.from_turns(["Hello", "Hi there"])]
    roles, eos = (
        evaluate_models([str(tiny_folder)], said, paths, most_replies=0, asked=LoadConfig(format=name))[0]
        for name in ("roles", "eos")
    )
    assert roles.bleu is None
    assert roles.bits_per_byte != eos.bits_per_byte
