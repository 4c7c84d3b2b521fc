"""Numbers in words: lengths of time, which every part of the product rounds in the same way."""

from __future__ import annotations

import pytest

from chat_app.formatting import format_duration


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        *((0, "1 second"), (0.2, "1 second"), (7.4, "7 seconds"), (9.6, "10 seconds"), (42, "40 seconds")),
        *((54.9, "55 seconds"), (55, "1 minute"), (60, "1 minute"), (89, "1 minute"), (200, "3 minutes")),
        *((350, "6 minutes"), (3600, "1 hour"), (5300, "1 hour 28 minutes"), (7300, "2 hours 2 minutes")),
        *((7800, "2 hours 10 minutes"), (50_000, "14 hours")),
    ],
)
def test_a_duration_is_rounded_as_people_say_it(seconds: float, said: str) -> None:
    assert format_duration(seconds) == said
