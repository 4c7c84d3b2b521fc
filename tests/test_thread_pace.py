"""The choice of threads, on made-up times."""

from __future__ import annotations

from chat_app.thread_pace import _TRY_EVERY, Pace


def played(pace: Pace, seconds: dict[int, float], steps: int, tokens: int = 1) -> list[int]:
    chosen = []
    for _ in range(steps):
        number = pace.choose(tokens)
        pace.took(number, tokens, seconds[number])
        chosen.append(number)
    return chosen


def test_every_number_is_tried_and_the_fastest_kept():
    pace = Pace([4, 2, 1])
    assert played(pace, {4: 1.0, 2: 3.0, 1: 2.0}, 20) == [4, 2, 1] + [4] * 17


def test_it_follows_when_another_program_takes_the_processor():
    pace = Pace([2, 1])
    played(pace, {2: 1.0, 1: 2.0}, 30)
    chosen = played(pace, {2: 10.0, 1: 3.0}, 100)
    assert chosen[-20:].count(1) >= 19
    assert chosen.index(1) <= 4
    back = played(pace, {2: 1.0, 1: 2.0}, 6 * _TRY_EVERY)
    assert back[-20:].count(2) >= 19


def test_the_others_are_tried_seldom():
    chosen = played(Pace([2, 1]), {2: 1.0, 1: 2.0}, 1000)
    assert chosen.count(1) <= 1000 // _TRY_EVERY + 1


def test_steps_of_other_sizes_have_their_own_choice():
    pace = Pace([2, 1])
    assert played(pace, {2: 2.0, 1: 1.0}, 10)[-1] == 1
    assert played(pace, {2: 50.0, 1: 99.0}, 10, tokens=64)[-1] == 2


def test_one_number_is_no_choice():
    assert set(played(Pace([0]), {0: 1.0}, 200)) == {0}
