"""Says in words what is wrong with broken JSON. Knows the parser's messages; knows no conversations."""

from __future__ import annotations

import orjson

from chat_app.reading.messages import SHAPES
from chat_app.reading.report import Rejected
from chat_app.reading.texts import not_utf8

BRACKETS = "Check the quotes, commas and brackets there."
CUT_OFF = "It may have been cut off while it was saved or sent: get it again. Otherwise check the brackets at its end."
MISSING_NUMBERS = ("NaN", "Infinity")


def explained(raw: bytes, error: orjson.JSONDecodeError, what: str = "line") -> Rejected:
    """Why something is not JSON, for a person who has never read its grammar."""
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as bad:
        return not_utf8(bad.start, what)
    if not raw.lstrip().startswith((b"{", b"[")):
        return Rejected(f"This {what} is not JSON: it does not begin with {{ or [.", SHAPES)
    where = f"at character {error.colno}"
    rest = error.doc[error.pos : error.pos + 16].lstrip("-")
    if "surrogate" in error.msg:
        return Rejected(f"This {what} has half of a character (a lone \\ud800-\\udfff), {where}.", "Write it again.")
    if rest.startswith(MISSING_NUMBERS):
        return Rejected(
            f"This {what} has a number that JSON does not have, {where}.", "Write null or a number instead."
        )
    if rest.startswith("'"):
        return Rejected(f"This {what} has single quotes, {where}.", "JSON texts stand in double quotes.")
    if "depth" in error.msg:
        return Rejected(f"This {what} has too many brackets inside each other.", BRACKETS)
    if "end of data" in error.msg:
        advice = CUT_OFF if what == "file" else BRACKETS
        return Rejected(f"This {what} ends too early: something that was opened is not closed.", advice)
    if "trailing comma" in error.msg:
        return Rejected(f"This {what} has a comma too many, {where}.", "Delete that comma.")
    if "after document" in error.msg:
        return Rejected(f"This {what} goes on after its end, {where}.", "Put each conversation on its own line.")
    if "control character" in error.msg:
        return Rejected(
            f"This {what} has a tab or another control character in a text, {where}.", "Write a tab as \\t."
        )
    return Rejected(f"This {what} is not JSON, {where}.", BRACKETS)
