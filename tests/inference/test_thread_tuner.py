"""The choice of threads, on made-up times."""

from __future__ import annotations

from chat_app.inference.thread_tuner import SETTINGS, ThreadTuner


def played(tuner: ThreadTuner, seconds: dict[int, float], steps: int, tokens: int = 1) -> list[int]:
    chosen = []
    for _ in range(steps):
        number = tuner.choose(tokens)
        tuner.record(number, tokens, seconds[number])
        chosen.append(number)
    return chosen


def test_every_number_is_tried_and_the_fastest_kept():
    tuner = ThreadTuner([4, 2, 1])
    assert played(tuner, {4: 1.0, 2: 3.0, 1: 2.0}, 12) == [4, 2, 1, 4, 2, 1] + [4] * 6


def test_each_of_the_others_has_its_turn():
    chosen = played(ThreadTuner([4, 2, 1]), {4: 1.0, 2: 3.0, 1: 2.0}, 700)
    assert chosen[6:].count(2) >= 3
    assert chosen[6:].count(1) >= 3


def test_a_first_step_that_finds_cold_memory_does_not_count():
    tuner = ThreadTuner([2, 1])
    for number, seconds in ((2, 400.0), (1, 2.0), (2, 1.0), (1, 2.0)):
        assert tuner.choose(1) == number
        tuner.record(number, 1, seconds)
    assert played(tuner, {2: 1.0, 1: 2.0}, 6) == [2] * 6


def test_one_step_that_was_held_up_is_soon_forgotten():
    tuner = ThreadTuner([2, 1])
    for number, seconds in ((2, 1.0), (1, 2.0), (2, 400.0), (1, 2.0)):
        assert tuner.choose(1) == number
        tuner.record(number, 1, seconds)
    assert played(tuner, {2: 1.0, 1: 2.0}, 30)[-10:].count(2) >= 8


def test_it_follows_when_another_program_takes_the_processor():
    tuner = ThreadTuner([2, 1])
    played(tuner, {2: 1.0, 1: 2.0}, 30)
    chosen = played(tuner, {2: 10.0, 1: 3.0}, 100)
    assert chosen[-20:].count(1) >= 19
    assert chosen.index(1) <= 4
    back = played(tuner, {2: 1.0, 1: 2.0}, 6 * int(SETTINGS.max_interval))
    assert back[-20:].count(2) >= 19


def test_the_others_are_tried_seldom():
    chosen = played(ThreadTuner([2, 1]), {2: 1.0, 1: 2.0}, 1000)
    assert chosen.count(1) <= 2 * (1000 // int(SETTINGS.max_interval)) + 10


def test_steps_of_other_sizes_have_their_own_choice():
    tuner = ThreadTuner([2, 1])
    assert played(tuner, {2: 2.0, 1: 1.0}, 8)[-1] == 1
    assert played(tuner, {2: 50.0, 1: 99.0}, 8, tokens=64)[-1] == 2


def test_steps_of_a_new_size_begin_with_what_is_best_for_the_next_one():
    tuner = ThreadTuner([4, 2, 1])
    played(tuner, {4: 2.0, 2: 1.0, 1: 3.0}, 8)
    played(tuner, {4: 9.0, 2: 8.0, 1: 7.0}, 40, tokens=1000)
    assert played(tuner, {4: 2.0, 2: 1.0, 1: 3.0}, 6, tokens=3) == [2] * 6
    assert played(tuner, {4: 9.0, 2: 8.0, 1: 7.0}, 6, tokens=200) == [1] * 6


def test_one_number_is_no_choice():
    assert set(played(ThreadTuner([0]), {0: 1.0}, 200)) == {0}


def test_what_is_a_little_faster_for_a_while_changes_nothing():
    tuner = ThreadTuner([2, 1])
    assert played(tuner, {2: 3.0, 1: 5.0}, 20)[-10:].count(2) >= 8
    held_up = played(tuner, {2: 6.0, 1: 5.0}, 100)
    assert held_up.count(1) < 10
    assert played(tuner, {2: 9.0, 1: 5.0}, 100)[-20:].count(1) >= 19


def test_a_page_that_draws_changes_nothing():
    tuner, chosen = ThreadTuner([2, 1]), []
    for step in range(400):
        held_up = 5.0 if step % 50 < 5 else 0.0
        number = tuner.choose(1)
        tuner.record(number, 1, {2: 3.4, 1: 6.0}[number] + held_up)
        chosen.append(number)
    assert chosen[20:].count(1) <= 7


def test_three_steps_that_take_very_long_are_enough_and_one_is_not():
    tuner = ThreadTuner([2, 1])
    played(tuner, {2: 1.0, 1: 2.0}, 12)
    tuner.record(2, 1, 30.0)
    assert played(tuner, {2: 1.0, 1: 2.0}, 6) == [2] * 6
    for _ in range(3):
        assert tuner.choose(1) == 2
        tuner.record(2, 1, 30.0)
    assert tuner.choose(1) == 1


def test_tries_take_a_small_share_of_the_time():
    tuner, seconds = ThreadTuner([2, 1]), {2: 10.0, 1: 1.0}
    chosen = played(tuner, seconds, 4000)
    assert 2 in chosen[1000:]
    assert sum(seconds[number] for number in chosen if number == 2) < 0.08 * 4000


def test_another_number_is_taken_only_when_all_steps_of_a_try_were_faster():
    tuner = ThreadTuner([2, 1])
    played(tuner, {2: 9.0, 1: 3.0}, 30)
    chosen = []
    for _ in range(600):  # Of the other program's work, every second step of two threads sees nothing.
        number = tuner.choose(1)
        chosen.append(number)
        tuner.record(number, 1, {2: 2.0 if chosen.count(2) % 2 else 9.0, 1: 3.0}[number])
    assert chosen.count(2) <= 30
    assert played(tuner, {2: 2.0, 1: 3.0}, 200)[-20:].count(2) >= 18


def test_a_try_that_is_held_up_is_not_the_last_word():
    tuner = ThreadTuner([2, 1])
    played(tuner, {2: 9.0, 1: 3.0}, 30)
    tries = iter([60.0, 1.0, 1.0])
    for _ in range(300):
        number = tuner.choose(1)
        tuner.record(number, 1, next(tries, 1.0) if number == 2 else 3.0)
    assert tuner.choose(1) == 2


def test_however_bad_a_try_was_there_is_another_one():
    tuner = ThreadTuner([2, 1])
    played(tuner, {2: 1000.0, 1: 3.0}, 100)
    assert 2 in played(tuner, {2: 1.0, 1: 3.0}, 420)
