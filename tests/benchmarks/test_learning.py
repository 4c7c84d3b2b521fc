"""The restated procedures keep to what their originals do, and the comparison counts right."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import get_constant_schedule_with_warmup, get_polynomial_decay_schedule_with_warmup

from benchmarks.learning import Trial, measure_of, run_other, run_ours
from benchmarks.learning_curves import Curve, Point, Stopwatch, Watch, draw, summary_of, table
from benchmarks.learning_seeds import DIALOGUE, GPTCHAT, constant, learn, padded, polynomial, tokenize_conversations
from chat_app.config.paths import Paths
from chat_app.conversation import Conversation
from chat_app.tokenization.chat_formats import get_format
from chat_app.tokenization.encoder import IGNORE_INDEX, Encoder, Example


def rates(make: Callable[[torch.optim.Optimizer], Any], rate: float, steps: int) -> list[float]:
    """The rates of a schedule of transformers, step by step."""
    optimiser = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    schedule = make(optimiser)
    found = []
    for _ in range(steps):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    return found


def test_the_defaults_are_those_of_the_originals() -> None:
    assert (DIALOGUE.rate, DIALOGUE.warmup, DIALOGUE.batch_size, DIALOGUE.epochs) == (2e-5, 0.1, 8, 10)
    assert (DIALOGUE.max_turns, DIALOGUE.window, DIALOGUE.seed, DIALOGUE.patience) == (5, 1024, 0, None)
    assert (GPTCHAT.rate, GPTCHAT.warmup, GPTCHAT.batch_size, GPTCHAT.epochs) == (5e-5, 0.1, 16, 10)
    assert (GPTCHAT.patience, GPTCHAT.seed, GPTCHAT.decay) == (3, 1234, None)


def test_the_polynomial_is_that_of_transformers() -> None:
    wanted = rates(lambda one: get_polynomial_decay_schedule_with_warmup(one, 5, 50, power=2), 2e-5, 50)
    assert [polynomial(step, 50, 2e-5, 0.1) for step in range(50)] == pytest.approx(wanted)
    assert polynomial(0, 50, 2e-5, 0.1) == 0
    assert polynomial(5, 50, 2e-5, 0.1) == pytest.approx(2e-5)
    assert polynomial(50, 50, 2e-5, 0.1) == pytest.approx(1e-7)


def test_the_constant_rate_is_whole_at_the_end_of_the_warm_up() -> None:
    wanted = rates(lambda one: get_constant_schedule_with_warmup(one, 5), 5e-5, 51)[1:]  # It counts from 1.
    assert [constant(step, 50, 5e-5, 0.1) for step in range(50)] == pytest.approx(wanted)
    assert constant(4, 50, 5e-5, 0.1) == pytest.approx(5e-5)


def test_a_batch_is_padded_to_its_longest_and_learns_nothing_there() -> None:
    rows = [Example([5, 6, 7], [0, 0, 1], [IGNORE_INDEX, IGNORE_INDEX, 7]), Example([8], [0], [8])]
    batch = padded(rows, 2)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 2, 2]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[-100, -100, 7], [8, -100, -100]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 1], [0, 2, 2]]
    assert padded(rows, 2, length=6)["input_ids"].shape == (2, 6)
    assert "token_type_ids" not in padded([replace(row, types=None) for row in rows], 2)


TALK = Conversation.from_turns(["one", "two", "three", "four", "five", "six", "seven", "eight"])


def learned_text(encoder: Encoder, row: Example) -> str:
    return encoder.text_of([label for label in row.labels if label != IGNORE_INDEX and label not in encoder.end_ids])


@pytest.mark.parametrize("layout", ["roles", "speaker"])
def test_each_reply_is_an_example_of_at_most_five_turns(tiny_tokenizer: Any, layout: str) -> None:
    encoder = Encoder(tiny_tokenizer, get_format(layout), 128)
    rows = tokenize_conversations(DIALOGUE, encoder, [TALK], DIALOGUE.learn_all)
    assert [learned_text(encoder, row) for row in rows] == ["two", "four", "six", "eight"]
    assert "three" not in encoder.text_of(rows[3].ids)
    assert all(word in encoder.text_of(rows[3].ids) for word in ("four", "five", "six", "seven", "eight"))
    end = encoder.special_token_ids["eos" if layout == "speaker" else "end"]
    assert all(row.labels[-1] == row.ids[-1] == end for row in rows)


def test_gptchat_learns_the_context_too_but_is_measured_on_the_reply(tiny_tokenizer: Any) -> None:
    encoder = Encoder(tiny_tokenizer, get_format("pair"), 128)
    pair = Conversation.from_turns(["one", "two"])
    (row,) = tokenize_conversations(GPTCHAT, encoder, [pair], GPTCHAT.learn_all)
    assert row.labels == row.ids
    (tested,) = tokenize_conversations(GPTCHAT, encoder, [pair], learn_all=False)
    assert learned_text(encoder, tested) == "two"


def watch_of(losses: list[float]) -> Watch:
    """A watch that measures given losses, with a clock of one second a look at it."""
    seconds, values = iter(range(10**6)), iter(losses)
    return Watch("x", Stopwatch(lambda: float(next(seconds))), lambda model: next(values), looks=1)


def test_a_procedure_stops_when_its_patience_ends(tiny_tokenizer: Any, tiny_model: Any) -> None:
    encoder = Encoder(tiny_tokenizer, get_format("eos"), 128)
    rows = tokenize_conversations(GPTCHAT, encoder, [Conversation.from_turns(["one", "two"])], learn_all=True)
    watch = watch_of([9.0, 5.0, 4.0, 6.0, 5.0, 4.5, 1.0])
    learn(GPTCHAT, tiny_model, rows, 0, watch)
    assert [point.step for point in watch.curve.points] == [0, 1, 2, 3, 4, 5]
    assert (watch.curve.final, watch.curve.ended) == (4.0, "it stopped getting better")


def test_a_step_is_taken_at_the_rate_of_the_schedule_and_lowers_the_loss(tiny_tokenizer: Any, tiny_model: Any) -> None:
    encoder = Encoder(tiny_tokenizer, get_format("eos"), 128)
    talks = [Conversation.from_turns([f"Where is shop {number}?", f"In street {number}."]) for number in range(16)]
    rows = tokenize_conversations(DIALOGUE, encoder, talks, learn_all=False)
    measure = measure_of(rows, talks)
    before = measure(tiny_model)
    watch = Watch("x", Stopwatch(), measure, looks=2)
    learn(replace(DIALOGUE, rate=3e-3), tiny_model, rows, 0, watch)
    assert watch.curve.points[0].loss == pytest.approx(before)
    assert [point.step for point in watch.curve.points] == list(range(0, 21, 2))  # Epochs of two steps, each seen.
    assert watch.curve.final < 0.7 * before


def test_the_clock_stands_still_while_it_is_held() -> None:
    times = iter([0.0, 3.0, 10.0, 12.0])
    clock = Stopwatch(lambda: next(times))
    with clock.held():  # From 3 to 10.
        pass
    assert clock.seconds == 5.0


def test_it_is_time_to_look_after_a_share_of_the_steps_or_of_the_time() -> None:
    seconds = 0.0
    watch = Watch("x", Stopwatch(lambda: seconds), lambda model: 1.0, looks=4, most_seconds=40.0)
    assert [step for step in range(1, 18) if watch.is_due(step, 17)] == [4, 8, 12, 16, 17]
    watch.look(None, 0)
    seconds = 9.5
    assert not watch.is_due(1, 17)
    seconds = 10.5
    assert watch.is_due(1, 17)
    watch.look(None, 1)
    assert not watch.is_due(2, 17)
    assert not watch.is_over
    seconds = 40.0
    assert watch.is_over


def curve(name: str, *points: tuple[float, float], final: float = math.nan) -> Curve:
    return Curve(name, [Point(seconds, step, loss) for step, (seconds, loss) in enumerate(points)], final)


def test_the_summary_counts_from_the_lowest_loss_of_the_others() -> None:
    others = [curve("a", (0, 3.0), (60, 2.0), (120, 2.5)), curve("b", (0, 3.0), (90, 2.2))]
    ours = curve("ours", (1, 3.0), (5, 2.1), (9, 1.9), (20, 1.5), final=1.5)
    found = summary_of(ours, others)
    assert (found.rival, found.best) == ("a", Point(60, 1, 2.0))
    assert found.reached == Point(9, 2, 1.9)
    assert found.ratio == pytest.approx(0.15)
    assert found.is_met
    assert "0.150 of the time, 6.7 times as fast" in found.sentences()
    assert "Ours ends at 1.5000, -0.5000 beside that." in found.sentences()


def test_the_goal_is_missed_when_ours_is_late_ends_higher_or_never_comes() -> None:
    others = [curve("a", (0, 3.0), (60, 2.0))]
    late = summary_of(curve("ours", (0, 3.0), (11, 2.0), final=1.5), others)
    assert late.ratio == pytest.approx(11 / 60)
    assert not late.is_met
    assert not summary_of(curve("ours", (0, 3.0), (9, 2.0), final=2.0), others).is_met
    never = summary_of(curve("ours", (0, 3.0), (9, 2.1), final=2.1), others)
    assert (never.reached, never.is_met) == (None, False)
    assert "never came so low" in never.sentences()


def test_the_table_shows_the_newest_loss_and_brackets_after_the_end(tmp_path: Path) -> None:
    curves = [curve("ours", (0, 3.0), (1, 2.0)), curve("a", (0, 3.0), (4, 2.5), (16, 2.25))]
    lines = table(curves).splitlines()
    assert lines[0].split() == ["seconds", "ours", "a"]
    assert lines[1].split() == ["1.0", "2.0000", "3.0000"]
    assert lines[-1].split() == ["16.0", "(2.0000)", "2.2500"]
    draw(curves, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_all_are_run_from_the_same_start_on_the_same_split(tmp_path: Path, tiny_folder: Path, paths: Paths) -> None:
    data = tmp_path / "shop.tsv"
    data.write_text("".join(f"Where is shop {number}?\tIn street {number}.\n" for number in range(20)), "utf-8")
    clock = iter(range(10**6))
    trial = Trial(str(tiny_folder), data, paths, lambda: float(next(clock)), math.inf, looks=4)
    ours, run = run_ours(trial)
    others = [run_other(trial, replace(one, epochs=1), run, "") for one in (DIALOGUE, GPTCHAT)]
    assert ours.points[0].step == 0
    assert ours.points[-1].step == 30
    assert ours.final <= ours.points[0].loss
    assert all(other.points[0].loss == pytest.approx(ours.points[0].loss) for other in others)
    assert [other.points[-1].step for other in others] == [3, 2]
