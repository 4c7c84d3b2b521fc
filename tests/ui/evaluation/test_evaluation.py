"""The Evaluate tab, the marks for copies and the corrections: what their handlers do, whoever calls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from chat_app.config.paths import Paths
from chat_app.config.server import ServerRules
from chat_app.config.training import TrainConfig
from chat_app.conversation import Conversation
from chat_app.errors import DataError, ModelError, RunError, UserError
from chat_app.evaluation.blind_test import Duel
from chat_app.evaluation.comparison import MEASURES
from chat_app.evaluation.evaluation import Evaluation
from chat_app.evaluation.memorization import CopyFinding
from chat_app.inference.backend import ModelDescription
from chat_app.runs.run import Run
from chat_app.services import Services
from chat_app.training.corrections_run import open_corrections
from chat_app.ui.chat.corrections_panel import CorrectionsPanel, render_corrections
from chat_app.ui.chat.memorization_marks import MemorizationMarks
from chat_app.ui.chat.session import ChatSession, ChatTurn, make_rows
from chat_app.ui.evaluation import blind_test_panel as duel_panel
from chat_app.ui.evaluation import memorization_panel as copies_panel
from chat_app.ui.evaluation import metrics_panel as numbers_panel
from chat_app.ui.evaluation.subjects import (
    KEPT_ASIDE,
    NOTHING,
    OWN_FILE,
    START,
    EvaluationSubjects,
    Subject,
    describe_failure,
)
from chat_app.ui.evaluation.tab import EvaluateTab
from chat_app.ui.models.model_choices import IN_USE
from chat_app.ui.visitor import Visitors

HOSTILE = "<img src=x onerror=alert(1)>"
FOUND = Evaluation(200.0, 2.0, 1.0, 0.5, 0.8, 0.1, 0.0, 8.0, 10, 100, 5)


def services_in(home: Path, **rules: Any) -> Any:
    """Real rules and runs, without a model or a queue that trains."""
    services = Services.__new__(Services)
    services.remote = None
    services.rules, services.paths = ServerRules(**rules), Paths(home)
    model = ModelDescription("starter", "starter", is_ready=True, window=8, parameters=1)
    services.models = SimpleNamespace(current=SimpleNamespace(name="starter", description=model))  # type: ignore[assignment]
    services.jobs = SimpleNamespace(submit=lambda run: submitted.append(run.id))  # type: ignore[assignment]
    submitted: list[str] = []
    services.jobs.submitted = submitted  # type: ignore[union-attr]
    return services


def run_in(services: Any, name: str, by: str = "local", model: str = "starter") -> Run:
    run = Run.create(services.paths.runs / name, TrainConfig(model=model), {"by": by, "files": [f"{name}.tsv"]})
    for part, text in (("train", "We only ship within the whole country."), ("valid", "At nine.")):
        record = {"turns": ["A question", text], "file": f"{name}.tsv", "line": 12}
        (run.data / f"{part}.jsonl").write_text(json.dumps(record) + "\n")
    run.model.mkdir()
    (run.model / "config.json").write_text("{}")
    return run


@pytest.fixture
def local(tmp_path: Path) -> Any:
    return services_in(tmp_path)


@pytest.fixture
def shared(tmp_path: Path) -> Any:
    return services_in(tmp_path, host="0.0.0.0")


def last(values: Iterator[Any]) -> Any:
    *_, end = values
    return end


def test_a_visitor_judges_only_their_own_models_and_the_servers(shared: Any) -> None:
    run_in(shared, "of-ann", "ann")
    run_in(shared, "of-bob", "bob")
    subjects = EvaluationSubjects(shared, Visitors(shared))
    assert [name for _, name in subjects.list_models("ann")] == ["of-ann", IN_USE]
    assert subjects.get_subject("of-ann", "ann").name == "of-ann"
    assert subjects.get_subject(IN_USE, "ann").name == "starter"
    for name in ("of-bob", "gpt2", "/etc", "../of-bob", "", None, 7):
        with pytest.raises(ModelError):
            subjects.get_subject(name, "ann")
    for name in ("of-bob", START, "gpt2"):
        with pytest.raises((ModelError, RunError)):
            subjects.get_baseline(name, "of-bob", "ann")
    for after in ("of-bob", IN_USE):
        with pytest.raises(RunError):
            subjects.load_conversations(KEPT_ASIDE, after, None, "ann")


def test_a_run_offers_the_model_that_it_started_from(local: Any) -> None:
    run_in(local, "mine")
    subjects = EvaluationSubjects(local, Visitors(local))
    earlier = subjects.get_baseline(START, "mine", "local")
    assert earlier == Subject("starter", "Starter: comes with this app")
    assert subjects.get_baseline(NOTHING, "mine", "local") is None
    read, what = subjects.load_conversations(KEPT_ASIDE, "mine", None, "local")
    assert [one.texts[-1] for one in read(lambda text: None)] == ["At nine."]
    assert "did not learn" in what


def test_what_can_be_measured_on_follows_the_model(shared: Any) -> None:
    visitors = Visitors(shared)
    ann = visitors.issue(None)
    run_in(shared, "mine", visitors.identify(ann, None))
    with gr.Blocks():
        tab = EvaluateTab(shared, visitors, gr.State(""))
        tab.draw()
    request: Any = None
    found = tab.refresh("", NOTHING, KEPT_ASIDE, ann, request)
    assert found[tab.after].value == found[tab.shown_after] == "mine"
    assert (found[tab.before].value, found[tab.source].value, found[tab.files].visible) == (START, KEPT_ASIDE, False)
    for passed in ("mine", "", None):  # The list was only passed: what was chosen stays.
        assert tab.choose(passed, "mine", NOTHING, KEPT_ASIDE, ann, request) == {tab.shown_after: gr.skip()}
    found = tab.choose(IN_USE, "mine", START, KEPT_ASIDE, ann, request)
    assert found[tab.shown_after] == IN_USE
    assert (found[tab.before].value, found[tab.source].value, found[tab.files].visible) == (NOTHING, OWN_FILE, True)


def test_without_conversations_the_page_says_what_to_do(local: Any) -> None:
    run = run_in(local, "mine")
    (run.data / "valid.jsonl").write_text("")
    subjects = EvaluationSubjects(local, Visitors(local))
    with pytest.raises(DataError, match="kept no conversations aside"):
        subjects.load_conversations(KEPT_ASIDE, "mine", None, "local")
    for files in (None, [], ["/tmp/that/is/not/there.tsv"]):
        with pytest.raises(DataError):
            subjects.load_conversations(OWN_FILE, "mine", files, "local")


def test_one_test_at_a_time_and_the_next_one_waits(local: Any) -> None:
    subjects = EvaluationSubjects(local, Visitors(local))
    with subjects._lock:
        work = subjects.start(lambda progress: 7)
        assert "waits for its turn" in next(text for text in work if text)
    second = subjects.start(lambda progress: 8)
    list(second)
    assert second.result() == 8


def test_an_unknown_fault_is_one_sentence_for_the_page() -> None:
    assert describe_failure(DataError("It is empty.", advice="Bring another.")) == "It is empty. Bring another."
    assert HOSTILE not in describe_failure(ValueError(HOSTILE))
    assert "memory" in describe_failure(MemoryError())


def panels(services: Any) -> Any:
    """Those that measure, vote, and search for copies."""
    with gr.Blocks():
        tab = EvaluateTab(services, Visitors(services), gr.State(""))
        tab.draw()
    return tab.panels


@pytest.mark.parametrize("number", [-1, 1e9, float("nan"), True, None, "5", [1]])
def test_amounts_from_the_page_are_checked_again(number: Any, shared: Any) -> None:
    run_in(shared, "a", "user:ann")
    request: Any = SimpleNamespace(username="ann")
    numbers, duel, copies = panels(shared)
    chosen: Any = (request, "", "a", START, KEPT_ASIDE, None)
    assert "0 to 200 replies can be written." in last(numbers.begin(*chosen, number))[numbers.report]
    assert "2 to 50 questions can be asked." in last(duel.begin(*chosen, "", number))[duel.card]
    assert "1 to 60 questions can be asked." in last(copies.begin(*chosen, number))[copies.report]


def test_the_table_escapes_names_and_says_better_or_worse() -> None:
    after = Evaluation(**{**FOUND.as_dict(), "perplexity": 20.0, "distinct_1": 0.2})
    page = numbers_panel.render_report([Subject("a", HOSTILE), Subject("b", HOSTILE)], [FOUND, after], HOSTILE, 99)
    assert HOSTILE not in page
    assert "↓ better" in page
    assert "↑ worse" not in page
    assert "↓ worse" in page
    assert "10 of 99" in page
    alone = numbers_panel.render_report([Subject("a", "one")], [FOUND], "conversations", 10)
    assert alone.count("<tr>") == len(MEASURES) + 1
    assert "10 conversations" in alone


def contest() -> duel_panel.BlindTest:
    prompts = [f"{HOSTILE} {number}" for number in range(3)]
    return duel_panel.BlindTest(Duel(prompts, ["mine"] * 3, [HOSTILE] * 3, 5), "Taught model", "Starter model")


def test_a_card_tells_no_name_and_the_end_tells_both(local: Any) -> None:
    panel = panels(local)[1]
    fight = contest()
    page = panel.show(fight)[panel.card]
    for _ in range(3):
        assert "Taught model" not in page
        assert HOSTILE not in page
        card = fight.duel.next_card
        assert card is not None
        page = panel.make_vote_handler("first" if card.first == "mine" else "second")(fight)[panel.card]
    assert "“Taught model” was preferred in 3 of 3 answers" in page
    assert page.count('class="liked"') == 3
    assert HOSTILE not in page
    assert panel.make_vote_handler("first")(None) == panel.take_back(None) == panel.finish(None)


def test_a_vote_can_be_taken_back_and_a_duel_ended_early(local: Any) -> None:
    panel = panels(local)[1]
    fight = contest()
    with pytest.warns(UserWarning, match="Nobody has voted"):
        panel.finish(fight)
    panel.make_vote_handler("tie")(fight)
    assert "Question 1 of 3" in panel.take_back(fight)[panel.card]
    panel.make_vote_handler("tie")(fight)
    assert "Nobody has won an answer yet" in panel.finish(fight)[panel.card]


def test_typed_questions_are_one_a_line_and_bounded() -> None:
    asked = duel_panel.parse_questions(" one \n\none\ntwo\nthree", 2)
    assert [one.texts for one in asked] == [["one"], ["two"]]
    assert duel_panel.parse_questions(None, 5) == []
    with pytest.raises(UserError):
        duel_panel.parse_questions("x" * 30_000, 5)


def test_the_leak_report_is_escaped_and_counts(local: Any) -> None:
    copy = CopyFinding("partly copied", "partly copied (line 3)", HOSTILE, "a", 3)
    page = copies_panel.render_report([(HOSTILE, HOSTILE, copy)])
    assert HOSTILE not in page
    assert "Of 1 reply: 0 copied, 1 partly copied, 0 new." in page
    run = run_in(local, "mine")
    assert [one.texts for one in copies_panel.choose_questions(run, 5)] == [["A question"]]


def make_session_with(run: str, *replies: str) -> ChatSession:
    turns = [turn for text in replies for turn in (ChatTurn("user", "Hi"), ChatTurn("assistant", text, model=run))]
    return ChatSession(turns)


def test_marks_come_when_they_are_wanted_and_go_again(local: Any) -> None:
    run_in(local, "mine")
    marks: Any = MemorizationMarks(local, Visitors(local), None)
    marks._show = lambda session: make_rows(session.turns)
    session = make_session_with(
        "mine", "We only ship within the whole country.", "Something else that nobody has written."
    )
    session.turns.append(ChatTurn("assistant", "By hand, of no model."))
    rows = last(marks.mark(True, session, "", None))
    assert [row.get("mark", {}).get("label") for row in rows] == [None, "copied (line 12)", None, "new", None]
    assert "line 12 of mine.tsv" in rows[1]["mark"]["why"]
    rows = last(marks.mark(False, session, "", None))
    assert not any("mark" in row for row in rows)
    assert len(list(marks.mark(False, session, "", None))) == 1  # The view is emptied by a handler that gives nothing.


def test_nobody_searches_in_what_another_visitor_taught(shared: Any) -> None:
    visitors = Visitors(shared)
    ann, bob = visitors.issue(None), visitors.issue(None)
    run_in(shared, "of-ann", visitors.identify(ann, None))
    marks: Any = MemorizationMarks(shared, visitors, None)
    marks._show = lambda session: make_rows(session.turns)
    for token, is_marked in ((bob, False), (ann, True)):
        session = make_session_with("of-ann", "We only ship within the whole country.")
        last(marks.mark(True, session, token, None))
        assert (session.turns[1].mark is not None) is is_marked


def test_a_reply_that_was_put_right_remembers_what_the_model_said() -> None:
    session = make_session_with("mine", "Wrong")
    with pytest.raises(UserError, match="not changed"):
        session.extract_correction(1)
    session.change(1, "Right")
    session.change(1, "Quite right")
    conversation, turn = session.extract_correction(1, "Be kind.")
    assert (turn.original, turn.text, turn.model) == ("Wrong", "Quite right", "")
    assert (conversation.system, conversation.texts[-1]) == ("Be kind.", "Hi")
    assert make_rows(session.turns, can_teach=True)[1]["teach"]
    assert "teach" not in make_rows(session.turns)[1]
    for index in (0, 5, None, True):
        with pytest.raises(UserError):
            session.extract_correction(index)


def event(**data: Any) -> Any:
    return SimpleNamespace(_data=data)


@pytest.fixture
def panel(local: Any) -> Any:
    return corrections_panel(local, Visitors(local))


def corrections_panel(services: Any, visitors: Visitors) -> Any:
    """The panel beside a view that shows the rows of the conversation, and a page that shows a run by its id."""
    with gr.Blocks():
        made: Any = CorrectionsPanel(services, visitors, gr.State(""))
        made.draw()
        made.run = gr.State("")
        made._view = gr.State("")
    made._show = lambda session: make_rows(session.turns, can_teach=True)
    made._show_run = lambda run, visitor: {made.run: run.id}
    return made


def extract_correction() -> ChatSession:
    session = make_session_with("", "Wrong")
    session.change(1, HOSTILE)
    return session


def test_corrections_are_kept_changed_removed_and_taught(panel: Any, local: Any) -> None:
    session = extract_correction()
    found = panel.keep(event(index=1), session, "", "", None)
    assert "teach" not in found[panel._view][1]
    assert found[panel.panel]["label"] == "Teach by correcting (1)"
    assert HOSTILE not in found[panel.list]
    assert found[panel.teach].value == "Teach this correction"
    kept = open_corrections(local.paths, "local")
    one = kept.list()[0]
    assert (one.prompt, one.bad, one.good) == ("Hi", "Wrong", HOSTILE)
    panel.change(one.id, "Better", "", None)
    assert kept.list()[0].good == "Better"
    end = last(panel.begin(session, "", None))
    assert local.jobs.submitted == [end[panel.run]]
    run = Run(local.paths.runs / end[panel.run])
    assert (run.config().model, run.about()["by"]) == ("starter", "local")
    assert panel.remove(event(id=one.id), session, "", None)[panel._view][1]["teach"]
    assert kept.list() == []
    with pytest.warns(UserWarning, match="no corrections to teach"):
        last(panel.begin(session, "", None))


def test_one_visitor_never_sees_or_removes_anothers_corrections(shared: Any) -> None:
    visitors = Visitors(shared)
    ann, bob = visitors.issue(None), visitors.issue(None)
    panel = corrections_panel(shared, visitors)
    panel.keep(event(index=1), extract_correction(), "", ann, None)
    name = open_corrections(shared.paths, visitors.identify(ann, None)).list()[0].id
    assert panel.refresh(bob, None)[panel.list] == ""
    for act in (
        lambda: panel.remove(event(id=name), ChatSession(), bob, None),
        lambda: panel.change(name, "x", bob, None),
    ):
        with pytest.warns(UserWarning, match="no longer there"):
            act()
    assert "Wrong" in panel.refresh(ann, None)[panel.list]
    session = ChatSession(model="of-nobody")
    with pytest.warns(UserWarning, match="no run"):
        last(panel.begin(session, ann, None))


def test_without_training_nothing_can_be_kept(panel: Any, local: Any) -> None:
    local.jobs = None
    assert not panel.can_teach
    with pytest.warns(UserWarning, match="switched off"):
        panel.keep(event(index=1), extract_correction(), "", "", None)
    assert open_corrections(local.paths, "local").list() == []


def test_a_long_list_shows_the_newest_escaped(local: Any) -> None:
    kept = open_corrections(local.paths, "local")
    for number in range(3):
        kept.add(Conversation.from_turns([f"{HOSTILE} {number}"]), HOSTILE, HOSTILE)
    page = render_corrections(kept.list())
    assert HOSTILE not in page
    assert page.index("&gt; 2") < page.index("&gt; 0")
