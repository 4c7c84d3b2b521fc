"""The callbacks of long work: reports arrive, a count is reported now and then, and a stop ends the work."""

from __future__ import annotations

import pytest

from chat_app.system.progress import Progress, StoppedError, add_prefix, never_stop, report_items, stop_when


def test_a_stop_ends_the_work_at_its_next_report() -> None:
    seen: list[Progress] = []
    progress = stop_when(lambda: len(seen) == 2, seen.append)
    with pytest.raises(StoppedError):
        list(report_items("abcdefgh", progress, every=2))
    assert [one.done for one in seen] == [2, 4]


def test_without_a_stop_all_items_come_by() -> None:
    seen: list[Progress] = []
    assert list(report_items(range(5), stop_when(never_stop, seen.append), every=2)) == [0, 1, 2, 3, 4]
    assert [one.done for one in seen] == [2, 4]


def test_a_prefix_keeps_the_counts() -> None:
    seen: list[Progress] = []
    add_prefix("Model 1 of 2: ", seen.append)(Progress("Loading it.", done=1, total=3))
    assert seen == [Progress("Model 1 of 2: Loading it.", done=1, total=3)]
