"""What the page computes before anything is drawn: texts made safe, turns, words, controls, visitors."""

from __future__ import annotations

import copy
import warnings
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from chat_app.config.loading import LoadConfig
from chat_app.config.paths import Paths
from chat_app.config.sampling import SamplingConfig
from chat_app.config.server import ServerRules
from chat_app.config.training import CAREFULNESS, TrainConfig
from chat_app.conversation import Conversation
from chat_app.data.dataset import load_files
from chat_app.errors import ModelError, RunError, SettingError, UserError
from chat_app.formatting import format_bytes
from chat_app.inference.backend import ModelDescription
from chat_app.inference.quoting import AnswerLists
from chat_app.runs.run import Run, State
from chat_app.services import LOCAL_VISITOR, Services
from chat_app.ui.chat.session import MAX_MESSAGE_LENGTH, ChatSession, ChatTurn
from chat_app.ui.chat.streaming import LiveReplies
from chat_app.ui.chat.tab import ChatTab
from chat_app.ui.components import escape, formatting
from chat_app.ui.components.settings_form import SettingsForm
from chat_app.ui.models import model_choices
from chat_app.ui.models import tab as models_tab
from chat_app.ui.page import SECONDS_BETWEEN_QUEUE_CHECKS, build_page
from chat_app.ui.training import run_report
from chat_app.ui.training.data_report import make_preview, render_report
from chat_app.ui.training.tab import GROUPS
from chat_app.ui.visitor import Visitors

pytestmark = pytest.mark.dependencies

HOSTILE = "<img src=x onerror=alert(1)> \"quoted\" 'single' & $$x$$"


def make_session(*texts: str) -> ChatSession:
    roles: Any = ("user", "assistant")
    return ChatSession([ChatTurn(roles[index % 2], text) for index, text in enumerate(texts)])


def texts(session: ChatSession) -> list[str]:
    return [turn.text for turn in session.turns]


def test_escaped_text_has_no_mark_that_html_knows() -> None:
    shown = escape.escape(HOSTILE)
    assert not set("<>\"'") & set(shown)
    assert "&amp;" in shown


def test_clean_takes_what_no_tokenizer_takes() -> None:
    assert escape.clean_text("a\ud800b\0") == "a\ufffdb"
    assert escape.clean_text("\U0001f600") == "\U0001f600"
    assert escape.clean_text(None) == escape.clean_text([1]) == ""


def test_a_setting_is_called_by_its_label() -> None:
    assert escape.describe_error(SettingError("max_new_tokens", "0 is out of range.")).startswith("Longest reply:")
    assert escape.find_label("batch_size") == "Batch size"


def test_again_answers_the_same_message_anew() -> None:
    session = make_session("one", "1", "two", "2")
    session.again(1)
    assert texts(session) == ["one"]
    session = make_session("one", "1", "two")
    session.again(2)
    assert texts(session) == ["one", "1", "two"]


def test_take_back_gives_the_words_back() -> None:
    session = make_session("one", "1", "two", "2")
    assert session.take_back(3) == "two"
    assert texts(session) == ["one", "1"]
    assert session.take_back(0) == "one"
    assert texts(session) == []


def test_a_changed_message_ends_the_conversation_there() -> None:
    session = make_session("one", "1", "two", "2")
    assert session.change(0, "other")
    assert texts(session) == ["other"]
    session = make_session("one", "1", "two", "2")
    assert not session.change(1, "another reply")
    assert texts(session) == ["one", "another reply"]


@pytest.mark.parametrize("index", [-1, 4, True, "0", None, 1.0, [0], {}])
def test_an_index_from_the_page_is_not_trusted(index: Any) -> None:
    for act in (ChatSession.again, ChatSession.take_back, lambda session, at: session.change(at, "x")):
        session = make_session("one", "1", "two", "2")
        with pytest.raises(UserError):
            act(session, index)
        assert len(session.turns) == 4


def test_a_message_has_a_longest_length_and_an_edit_a_shortest() -> None:
    session = make_session("one")
    session.say("x" * MAX_MESSAGE_LENGTH)
    for act in (lambda: session.say("x" * (MAX_MESSAGE_LENGTH + 1)), lambda: session.change(0, "")):
        with pytest.raises(UserError):
            act()
    assert len(session.turns) == 2


def test_a_reply_that_the_person_went_on_without_has_no_place() -> None:
    session = make_session("one")
    cancel_event = session.begin_reply()
    session.stop()
    assert cancel_event.is_set()
    assert session.end_reply(cancel_event, ChatTurn("assistant", "half"))
    assert texts(session) == ["one", "half"]
    cancel_event = session.begin_reply()
    session.clear()
    assert cancel_event.is_set()
    assert not session.end_reply(cancel_event, ChatTurn("assistant", "late"))
    assert texts(session) == []


def test_an_empty_talk_can_be_copied_for_each_visitor() -> None:
    first = ChatSession()
    second = copy.deepcopy(first)
    second.say("hello")
    assert not first.turns


def test_the_model_is_given_the_texts_as_they_were_typed() -> None:
    session = make_session(HOSTILE, "reply", "<|End|>")
    conversation = session.build_conversation("You are <b>kind</b>.")
    assert conversation.texts == [HOSTILE, "reply", "<|End|>"]
    assert conversation.system == "You are <b>kind</b>."
    assert session.build_conversation("  ").system is None


def test_the_line_under_a_reply() -> None:
    note = formatting.describe_reply(31, 52.3, 180, 512)
    assert note == "31 tokens, 52 a second, 180 of 512 tokens of memory used."
    assert "oldest turn no longer fits" in formatting.describe_reply(1, 5, 500, 512, dropped_turns=1)
    assert "3 oldest turns no longer fit " in formatting.describe_reply(1, 5, 500, 512, dropped_turns=3)
    assert "beginning" in formatting.describe_reply(1, 5, 500, 512, cut_tokens=9)


def test_sizes_in_words() -> None:
    assert [format_bytes(size) for size in (0, 1_400, 999_000, 10**6)] == ["0 KB", "1 KB", "999 KB", "1.0 MB"]
    assert [format_bytes(size) for size in (9.94e6, 9.96e6, 2**30)] == ["9.9 MB", "10 MB", "1.1 GB"]
    assert format_bytes(269_000_000) == "269 MB"
    assert format_bytes(1_520_000_000) == "1.5 GB"
    assert formatting.format_parameters(124_439_808) == "124 million"
    assert formatting.format_parameters(14_000_000) == "14 million"
    assert formatting.format_parameters(532_000) == "532 thousand"


def test_time_left_follows_the_newest_steps() -> None:
    steady = [(100.0 + step, step) for step in range(11)]
    assert formatting.estimate_time_left(steady, 110, now=110) == pytest.approx(100)
    assert formatting.estimate_time_left(steady, 110, now=115) == pytest.approx(95)
    assert formatting.estimate_time_left(steady, 10, now=120) == 0
    assert formatting.estimate_time_left(steady[:1], 110, now=101) is None
    assert formatting.estimate_time_left([], 110, now=101) is None


def test_time_left_does_not_count_the_night_between_stop_and_resume() -> None:
    before = [(100.0 + step, step) for step in range(10)]
    after = [(90_000.0 + step, step) for step in range(9, 20)]
    assert formatting.estimate_time_left([*before, *after], 119, now=90_019) == pytest.approx(100)


@pytest.mark.parametrize("kind", [SamplingConfig, LoadConfig, TrainConfig])
def test_every_setting_has_a_control_with_its_default(kind: Any) -> None:
    controls = SettingsForm(kind)
    with gr.Blocks():
        controls.draw()
    assert set(controls.controls) == {one.name for one in fields(kind)}
    assert controls.parse([one.value for one in controls.components]) == kind()
    assert controls.parse(controls.get_defaults()) == kind()
    assert all(one.info for one in controls.components)


def test_what_the_page_sends_is_checked_again() -> None:
    controls = SettingsForm(SamplingConfig)
    with gr.Blocks():
        controls.draw()
    values = dict(zip(controls.controls, controls.get_defaults(), strict=True))
    assert controls.parse(list({**values, "stop": "a\n\n b \n"}.values())).stop == ("a", " b ")
    for name, value in {
        "temperature": 2.5,
        "top_p": float("nan"),
        "top_k": None,
        "seed": "1",
        "stop": "x" * 201,
    }.items():
        with pytest.raises(SettingError):
            controls.parse(list({**values, name: value}.values()))


def test_carefulness_and_groups_name_real_settings() -> None:
    names = {one.name for one in fields(TrainConfig)}
    assert {name for values in CAREFULNESS.values() for name in values} <= names
    grouped = [name for group in GROUPS.values() for name in group]
    assert sorted([*grouped, "model", "epochs", "method"]) == sorted(names)


def test_what_was_read_is_shown_escaped_and_by_line(tmp_path: Path) -> None:
    file = tmp_path / "a.tsv"
    file.write_text("<b>hi</b>\tyes\n<script>x\n" + "long\t" + "y" * 900 + "\n", encoding="utf-8")
    material = load_files([file], Paths(tmp_path).open_cache("material"), names=["<i>.tsv"])
    report = render_report(material.facts, material.list_problems())
    assert "<i>" not in report
    assert "<script" not in report
    assert "1 line was left out" in report
    assert "<td>2</td>" in report
    rows = make_preview(material.iterate_conversations())["rows"]
    assert rows[0]["text"] == "<b>hi</b>"  # As text: the view makes no markup of it.
    assert len(rows[3]["text"]) < 500


def fake_services(home: Path, **rules: Any) -> Any:
    """Real rules and runs, without a model or a queue."""
    services = Services.__new__(Services)
    services.remote = None
    services.rules, services.paths, services.jobs = ServerRules(**rules), Paths(home), None
    services.answers = AnswerLists(services.paths.runs)
    return services


def test_on_ones_own_computer_everybody_is_the_same_visitor(tmp_path: Path) -> None:
    visitors = Visitors(fake_services(tmp_path))
    assert visitors.identify("anything", None) == LOCAL_VISITOR
    assert not list(tmp_path.iterdir())


def test_a_visitor_of_a_shared_server_cannot_choose_a_name(tmp_path: Path) -> None:
    visitors = Visitors(fake_services(tmp_path, host="0.0.0.0"))
    token = visitors.issue(None)
    other = visitors.issue("me.signed")
    assert token != other
    assert visitors.issue(token) == token
    assert visitors.identify(token, None) != visitors.identify(other, None)
    name = token.partition(".")[0]
    for wrong in ("", "me", name, f"{name}.", f"x{token}", f"{name}.{other.partition('.')[2]}", None, 7, "é.é"):
        with pytest.raises(UserError):
            visitors.identify(wrong, None)
    again = Visitors(fake_services(tmp_path, host="0.0.0.0"))  # After a restart.
    assert again.identify(token, None) == visitors.identify(token, None)


def test_who_has_logged_in_is_known_by_that_name(tmp_path: Path) -> None:
    visitors = Visitors(fake_services(tmp_path, auth_file=tmp_path / "who"))
    request: Any = SimpleNamespace(username="ann")
    assert visitors.identify("", request) == "user:ann"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    about = {"files": ["<b>.tsv"], "train_conversations": 9, "valid_conversations": 1}
    return Run.create(tmp_path / "run", TrainConfig(), about)


def test_a_run_tells_its_state_escaped(run: Run) -> None:
    metrics = [
        {"step": 0, "time": 100.0, "valid_loss": 2.0, "valid_perplexity": 7.4},
        {"step": 10, "time": 110.0, "train_loss": 1.5, "tokens_per_second": 1234.0},
        {"step": 20, "time": 120.0, "valid_loss": 1.5, "valid_perplexity": 4.5},
    ]
    page = run_report.render_status(run, State("running", "<i>why</i>", 20, 120, 120.0), metrics, now=120.0)
    assert "<i>" not in page
    assert "20 of 120" in page
    assert "2 minutes" in page
    assert "1,234 tokens a second" in page
    assert "7.4 → 4.5" in page
    behind = run_report.render_status(run, State("running", "", 15, 120, 115.0), metrics, now=120.0)
    assert "2 minutes" in behind
    assert 'aria-valuenow="17"' in page
    assert "&lt;b&gt;.tsv" in escape.escape(run_report.label_runs([run])[0][0])


def test_the_curves_always_have_both_names(run: Run) -> None:
    for metrics in ([], [{"step": 0, "valid_loss": 2.0}], [{"step": 1, "train_loss": 2.0, "learning_rate": 0.1}]):
        assert set(run_report.make_loss_table(metrics)["which"]) == {run_report.TRAINING, run_report.VALIDATION}


def test_long_curves_are_thinned_and_keep_their_end() -> None:
    metrics = [{"step": step, "train_loss": 1.0} for step in range(5001)]
    curve = run_report.make_loss_table(metrics)
    assert len(curve) < 700
    assert curve["step"].max() == 5000


def test_replies_before_and_now_stand_side_by_side_escaped() -> None:
    samples = [
        {"step": step, "prompt": prompt, "reply": f"<b>{step}</b>"} for step in (0, 5, 10) for prompt in ("<i>", "two")
    ]
    table = run_report.render_samples(samples)
    assert "<b>" not in table
    assert "<i>" not in table
    assert "&lt;b&gt;0" in table
    assert "&lt;b&gt;10" in table
    assert "&lt;b&gt;5" in run_report.render_samples(samples, 5)
    assert "&lt;b&gt;10" in run_report.render_samples(samples, 777)


def test_a_conversation_of_many_turns_is_shortened_in_the_preview() -> None:
    rows = make_preview([Conversation.from_turns([str(number) for number in range(9)])])["rows"]
    assert len(rows) == 6
    assert rows[-1]["note"] == "and 3 more"


@pytest.fixture
def shared(tmp_path: Path) -> Any:
    """A shared server whose model lies in a folder; loading another would be an error of the page."""

    def never(*_: Any) -> None:
        raise AssertionError("a visitor has changed the model for all")

    model = ModelDescription("/home/owner/secret/mine", "folder", is_ready=True, window=8, parameters=1)
    loaded = SimpleNamespace(name=model.name, description=model)
    services = fake_services(tmp_path, host="0.0.0.0")
    here = {None: loaded}
    services.models = SimpleNamespace(current=loaded, use=never, unload=never, guest=here.get, here=here.get)
    return services


def test_on_a_shared_server_nobody_changes_the_model_for_all(shared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models_tab, "render_card", lambda services: "card")
    visitors = Visitors(shared)
    token, request = visitors.issue(None), None
    tab: Any = models_tab.ModelsTab(shared, visitors, None)
    with gr.Blocks():
        tab.draw()
    with pytest.warns(UserWarning, match="owner"):
        [update] = tab.load_model(request, "gpt2", token, *tab.settings.get_defaults())
    assert update[tab.card] == "card"
    assert tab.cancel_loading()[tab.cancel].visible is False
    with pytest.warns(UserWarning, match="owner"):
        tab.unload_model()
    assert "owner" in tab.show_estimate(request, "/etc", token, *tab.settings.get_defaults())
    chat = ChatTab(shared, visitors, None, LiveReplies())
    with pytest.raises(RunError, match="no run"):
        chat.choose("gpt2", ChatSession(), visitors.identify(token, request))


def test_on_a_shared_server_everybody_talks_to_their_own_model(shared: Any) -> None:
    visitors = Visitors(shared)
    ann, bob = visitors.issue(None), visitors.issue(None)
    run = Run.create(
        shared.paths.runs / "of-ann", TrainConfig(), {"by": visitors.identify(ann, None), "files": ["a.tsv"]}
    )
    run.model.mkdir()
    (run.model / "config.json").write_text("{}")
    model = ModelDescription(run.id, "run", is_ready=True, window=8, parameters=1)
    loaded = SimpleNamespace(name=run.id, description=model)
    here = {None: shared.models.current, run.id: loaded}
    shared.models.guest = shared.models.here = here.get
    with gr.Blocks():
        chat: Any = ChatTab(shared, visitors, gr.State(""), LiveReplies())
        chat.draw()
    session = ChatSession()
    assert chat.pick(run.id, model_choices.IN_USE, session, ann, None)[chat.view]["name"] == "Your model"
    assert session.model == run.id
    chat.pick(model_choices.IN_USE, run.id, session, ann, None)
    assert session.model is None
    with pytest.warns(UserWarning, match="no longer here"):
        chat.pick(run.id, model_choices.IN_USE, session, bob, None)
    with pytest.raises(RunError, match="no run"):
        chat.choose(run.id, session, visitors.identify(bob, None))
    assert session.model is None
    assert [name for _, name in model_choices.list_own_models(shared, visitors.identify(bob, None))] == [
        model_choices.IN_USE
    ]


@pytest.mark.parametrize(
    ("name", "shown"),
    [(None, ""), ("", ""), (None, "mine"), ("mine", "mine"), ("other", "other"), ("mine", "other"), ("other", "mine"),
     ("gone", "starter")],
)  # fmt: skip
def test_what_nobody_has_chosen_is_not_loaded(
    name: str | None, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = fake_services(tmp_path)
    loaded: list[str] = []
    now = SimpleNamespace(name="starter", description=ModelDescription("starter", "starter", is_ready=True, window=8))
    services.models = SimpleNamespace(current=now, use=lambda name, config: loaded.append(name), here=lambda name: now)
    rows = [(one, one) for one in ("starter", "mine", "other")]
    monkeypatch.setattr(model_choices, "list_models", lambda services, visitor: rows)
    with gr.Blocks():
        chat = ChatTab(services, Visitors(services), gr.State(""), LiveReplies())
        chat.draw()
    request: Any = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Those of the page: some of these were meant, and are too late.
        updates = chat.pick(name, shown, ChatSession(), "", request)
    assert updates[chat.picker].value == updates[chat.shown_model] == "starter"
    assert not loaded
    chat.pick("other", "starter", ChatSession(), "", request)
    assert loaded == ["other"]
    assert chat.pick("starter", "starter", ChatSession(), "", request) == {chat.picker: gr.skip()}


def test_no_list_acts_when_it_only_loses_the_focus(tmp_path: Path) -> None:
    page = build_page(Services(Paths(tmp_path), ServerRules(training=False)), LiveReplies())
    config = page.get_config_file()
    lists = {one["id"] for one in config["components"] if one["type"] == "dropdown"}
    assert lists
    targets = [tuple(target) for event in config["dependencies"] for target in event["targets"]]
    assert not [target for target in targets if target[0] in lists and target[1] == "input"]


def test_a_shared_server_does_not_tell_where_its_model_lies(shared: Any) -> None:
    rows = model_choices.list_models(shared, "ann")
    assert rows[-1] == ("mine", model_choices.IN_USE)
    assert model_choices.check_allowed(shared, "ann", model_choices.IN_USE) == "/home/owner/secret/mine"
    for name in ("/home/owner/secret/mine", "/etc", "gpt2", "../mine", "", None, 7, "x" * 2000):
        with pytest.raises(ModelError):
            model_choices.check_allowed(shared, "ann", name)


def test_the_page_looks_for_work_seldom_and_marks_nothing_while_it_is_done(tmp_path: Path) -> None:
    page = build_page(Services(Paths(tmp_path), ServerRules(training=False)), LiveReplies())
    with gr.Blocks() as plain:
        plain.queue()
    names = ("sleep_when_free", "progress_update_sleep_when_free")
    assert all(hasattr(plain._queue, name) for name in names), "Gradio calls them otherwise now"
    assert page._queue.sleep_when_free == SECONDS_BETWEEN_QUEUE_CHECKS
    events = page.get_config_file()["dependencies"]
    names = ("say", "open", "refresh")
    assert [event["show_progress_on"] for event in events if event["api_name"] in names] == [[]] * 3
