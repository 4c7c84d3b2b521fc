"""What the page says of runs and lets one do with them: the verdict, the plan, the queue, the list, rights."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from chat_app.cli import main
from chat_app.config.fields import from_mapping
from chat_app.config.training import TrainConfig
from chat_app.data.readers import ReadingOptions
from chat_app.data.source import DataSource, load_source
from chat_app.errors import RunError
from chat_app.runs.compare import list_differences
from chat_app.runs.data_manifest import describe_changes, seal_data
from chat_app.runs.run import Run, State
from chat_app.training.recipe import FILE, read_besides, read_recipe
from chat_app.ui.components import escape
from chat_app.ui.training import all_runs_panel as runs_panel
from chat_app.ui.training import export_panel as run_export
from chat_app.ui.training import run_actions, run_queue, run_report
from chat_app.ui.training.data_panel import Upload
from chat_app.ui.training.run_view import RunView
from chat_app.ui.training.tab import TeachTab
from chat_app.ui.visitor import Visitors
from tests.ui.test_ui import HOSTILE, fake_services


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", TrainConfig(), {"files": ["a.tsv"], "valid_conversations": 1})


def curve(losses: list[float]) -> list[dict[str, Any]]:
    """A training loss a step, and an evaluation every ten steps that is the same."""
    lines: list[dict[str, Any]] = []
    for step, loss in enumerate(losses):
        lines.append({"step": step, "train_loss": loss, "learning_rate": 1e-3})
        if step % 10 == 0:
            lines.append({"step": step, "valid_loss": loss, "valid_perplexity": 2.0})
    return lines


@pytest.mark.parametrize(
    ("losses", "status", "steps", "action", "said"),
    [([4 - step / 40 for step in range(80)], "running", 80, "", "Let it go on."),
     ([4 - step / 40 for step in range(80)], "done", 80, "more-epochs", "more epochs may help"),
     ([4 - step / 40 for step in range(80)], "done", 500, "", "stopped by itself"),
     ([2 + step / 10 for step in range(40)], "running", 80, "lower-rate", "lower learning rate"),
     ([max(4 - step / 10, 2) for step in range(100)], "running", 200, "keep-best-and-stop", "You can stop now")],
)  # fmt: skip
def test_the_verdict_stands_under_the_facts_with_its_button(
    run: Run, losses: list[float], status: Any, steps: int, action: Any, said: str
) -> None:
    state = State(status, "", len(losses), steps, 120.0)
    judged = run_report.diagnose_run(run, state, curve(losses))
    assert judged is not None
    assert judged.action == action
    assert said in run_report.render_status(run, state, curve(losses), now=120.0, said=judged)
    assert bool(run_report.ACTION_WORDS.get(judged.action)) == bool(action)
    assert run_report.diagnose_run(run, State("queued"), []) is None


def test_the_plan_is_told_with_its_reason_and_what_was_measured(run: Run) -> None:
    assert run_report.describe_plan(run) == ""
    run.note(plan={"words": "LoRA, <4> at a time", "sentence": "about 6 minutes, 1.9 GB of 4.0 GB"})
    told = run_report.describe_plan(run)
    assert "the best that fits" in told
    assert "about 6 minutes, 1.9 GB of 4.0 GB" in told
    assert "&lt;4&gt;" in run_report.render_status(run, State("running"), [])
    run.change(method="lora")
    assert "as you chose" in run_report.describe_plan(run)


def test_runs_of_the_same_name_are_told_apart(run: Run, tmp_path: Path) -> None:
    other = Run.create(tmp_path / "other-beef", TrainConfig())
    for one in (run, other):
        one.note(title="Shop")
    assert run_report.title_runs([run, other]) == {"run": "Shop (run)", "other-beef": "Shop (beef)"}
    assert run_report.title_runs([run]) == {"run": "Shop"}


def test_the_queue_and_the_warning_are_escaped(run: Run) -> None:
    run.note(title=HOSTILE)
    title = escape.escape(HOSTILE)
    listed = run_queue.render_queue([(2, "run", HOSTILE), (4, "other", "second")])
    assert listed.count("<img") == 0
    assert title in listed
    assert listed.count(" disabled") == 2  # The first cannot move up, nor the last down.
    warning = runs_panel.render_warning([run])
    assert title in warning
    assert "no model yet" in warning
    table = runs_panel.render_comparison([HOSTILE], list_differences([run]), {HOSTILE: "#123456"})
    assert title in table
    assert "<img" not in table


def test_on_a_shared_server_nobody_touches_the_run_of_another(tmp_path: Path) -> None:
    shared = fake_services(tmp_path, host="0.0.0.0")
    visitors = Visitors(shared)
    ann, bob = visitors.issue(None), visitors.issue(None)
    run = Run.create(shared.paths.runs / "of-ann", TrainConfig(), {"by": visitors.identify(ann, None)})
    run.set_state("stopped")
    request: Any = None
    with gr.Blocks():
        panel = runs_panel.AllRunsPanel(shared, visitors, gr.State(""))
        panel.draw()
        export: Any = run_export.ExportPanel(shared, visitors, gr.State(""))
        export.draw()
    with pytest.warns(UserWarning, match="no run"):
        panel.delete_runs([run.id], bob, request)
    with pytest.warns(UserWarning, match="no run"):
        panel.rename_run([run.id], "mine", bob, request)
    with pytest.warns(UserWarning, match="no run"):
        panel.compare_runs([run.id, run.id], bob, request)
    with pytest.warns(UserWarning, match="no run"):
        assert panel.ask_before_deleting([run.id], bob, request)[panel.doomed] == []
    with pytest.warns(UserWarning, match="no run"):
        list(export.make_zip(run.id, "merged", "", bob, request))
    with pytest.raises(RunError):
        shared.find_model(visitors.identify(bob, None), "of-ann@4")
    assert shared.find_model(visitors.identify(ann, None), "of-ann@4") == "of-ann@4"
    assert run.about().get("title") is None
    panel.delete_runs([run.id], ann, request)
    assert not run.folder.exists()


def test_a_decision_is_offered_in_the_place_of_resume(tmp_path: Path) -> None:
    services = fake_services(tmp_path)
    submitted: list[str] = []
    services.jobs = SimpleNamespace(submit=lambda run: submitted.append(run.id))
    run = Run.create(services.paths.runs / "one", TrainConfig(), {"files": ["a.tsv"]})
    (run.data / "train.jsonl").write_text("{}\n")
    seal_data(run.data)
    (run.data / "train.jsonl").write_text("")
    with gr.Blocks():
        actions = run_actions.RunActions(services, Visitors(services), gr.State(""))
        actions.draw()
    request: Any = None
    run.set_state("failed", "The conversations have changed.", decision="changed-data")
    shown = actions.show(run, run.state(), [])
    assert not shown[actions.resume].visible
    assert shown[actions.allow].visible
    assert shown[actions.allow].value == "Go on with what has changed"
    actions.allow_and_resume(run.id, "", request)
    assert submitted == ["one"]
    assert describe_changes(run.data) == []
    shown = actions.show(run, run.state(), [])
    assert shown[actions.resume].visible
    assert not shown[actions.allow].visible


def test_a_list_of_runs_that_is_only_passed_leaves_the_view_as_it_is(tmp_path: Path) -> None:
    services = fake_services(tmp_path)
    for name in ("first", "second"):
        Run.create(services.paths.runs / name, TrainConfig())
    with gr.Blocks():
        view = RunView(services, Visitors(services), gr.State(""))
        view.draw()
    request: Any = None
    seen = view.choose("first", None, {}, "", request)[view.seen]
    assert view.choose("first", 0, seen, "", request) == {view.seen: seen}
    other = view.choose("second", 0, seen, "", request)
    assert other[view.picker].value == "second"
    assert view.curves.samples in other


def test_a_run_begun_on_the_page_has_its_recipe(tmp_path: Path) -> None:
    services = fake_services(tmp_path)
    submitted: list[Run] = []
    services.jobs = SimpleNamespace(submit=submitted.append, waiting=list)
    services.models = SimpleNamespace(current=None)
    with gr.Blocks():
        tab = TeachTab(services, Visitors(services), gr.State(""))
        tab.draw(lambda *_: None, [], gr.State())
    (tmp_path / "a.csv").write_text("number,we say,they say\n1,b,a\n2,d,c\n3,f,e\n")
    options = ReadingOptions(columns=("they say=context", "we say=reply"))
    wanted = DataSource((tmp_path / "a.csv",), ("shop.csv",), options=options, repairs=frozenset({"emails"}))
    upload = Upload(wanted, load_source(wanted, services.paths))
    request: Any = SimpleNamespace(username=None)
    list(tab.begin(request, upload, "starter", "Who?", "", *tab.settings.get_defaults()))
    (run,) = submitted
    values, files, _ = read_recipe(run.folder / FILE)
    assert from_mapping(TrainConfig, values) == run.config()
    assert files == ["shop.csv"]
    assert read_besides(run.folder / FILE) == {
        "columns": ["they say=context", "we say=reply"],
        "repair": ["emails"],
        "question": ["Who?"],
    }


def test_the_page_and_the_command_line_prepare_equal_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    services = fake_services(tmp_path)
    submitted: list[Run] = []
    services.jobs = SimpleNamespace(submit=submitted.append, waiting=list)
    services.models = SimpleNamespace(current=None)
    with gr.Blocks():
        tab = TeachTab(services, Visitors(services), gr.State(""))
        tab.draw(lambda *_: None, [], gr.State())
    file = tmp_path / "shop.csv"
    file.write_text("number,we say,they say\n" + "".join(f"{n},b{n} a@b.org,a{n}\n" for n in range(20)) + "7,,\n")
    options = ReadingOptions(columns=("they say=context", "we say=reply"))
    wanted = DataSource((file,), ("shop.csv",), options=options, repairs=frozenset({"emails"}))
    request: Any = SimpleNamespace(username=None)
    list(
        tab.begin(
            request,
            Upload(wanted, load_source(wanted, services.paths)),
            "starter",
            "Who?",
            "",
            *tab.settings.get_defaults(),
        )
    )
    (page,) = submitted
    monkeypatch.setenv("CHAT_APP_HOME", str(services.paths.home))
    monkeypatch.setattr("chat_app.cli.train._run_to_end", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    command = ["train", "--data", "shop.csv", "--columns", "they say=context", "--columns", "we say=reply"]
    assert main([*command, "--repair", "emails", "--question", "Who?", "--run", "command"]) == 0
    line = Run(tmp_path / "command")
    assert line.config() == page.config()
    own = {"created", "by"}
    facts = [{name: value for name, value in run.about().items() if name not in own} for run in (page, line)]
    assert facts[0] == facts[1]
    assert facts[0]["repairs"] == ["emails"]
    files = [{path.name: path.read_bytes() for path in run.data.iterdir()} for run in (page, line)]
    assert files[0] == files[1]
    assert files[0].keys() == {"train.jsonl", "variants.jsonl", "valid.jsonl", "problems.jsonl", "manifest.json"}
    recipes = [(run.folder / FILE).read_text() for run in (page, line)]
    assert recipes[0].replace("- shop.csv", f"- {file}") == recipes[1]
