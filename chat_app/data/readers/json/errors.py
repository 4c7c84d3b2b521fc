"""Explains JSON syntax errors to people, from the messages of the parser (orjson)."""

from __future__ import annotations

import orjson

from chat_app.data.readers.json.messages import SHAPES
from chat_app.data.readers.turn_text import not_utf8_error
from chat_app.data.readers.types import RejectedError

BRACKETS = "Check the quotes, commas and brackets there."
CUT_OFF = "It may have been cut off while it was saved or sent: get it again. Otherwise check the brackets at its end."
WHOLE_LINE = "Write the whole conversation on this one line, and close its quotes and brackets."
ONE_LIST = "Put [ before the first conversation, commas between them and ] after the last, or write each on one line."
MISSING_NUMBERS = ("NaN", "Infinity")


def explain_json_error(raw: bytes, error: orjson.JSONDecodeError, what: str = "line") -> RejectedError:
    """An error that explains a JSON syntax error to a user who does not know the grammar.

    Args:
        raw: the bytes that were parsed.
        error: the parser's exception.
        what: what to call the bytes: "line" or "file".
    """
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as bad:
        return not_utf8_error(bad.start, what)
    if not raw.lstrip().startswith((b"{", b"[")):
        return RejectedError(f"This {what} is not JSON: it does not begin with {{ or [.", SHAPES)
    where = f"at character {error.colno}"
    rest = error.doc[error.pos : error.pos + 16].lstrip("-")
    if "surrogate" in error.msg:
        return RejectedError(
            f"This {what} has half of a character (a lone \\ud800-\\udfff), {where}.", "Write it again."
        )
    if rest.startswith(MISSING_NUMBERS):
        return RejectedError(
            f"This {what} has a number that JSON does not have, {where}.", "Write null or a number instead."
        )
    if rest.startswith("'"):
        return RejectedError(f"This {what} has single quotes, {where}.", "JSON texts stand in double quotes.")
    if "depth" in error.msg:
        return RejectedError(f"This {what} has too many brackets inside each other.", BRACKETS)
    if rest.startswith(("“", "”", "„", "‘", "’", "«")):
        return RejectedError(f"This {what} has curly quotes, {where}.", 'JSON texts stand in straight quotes: ".')
    if rest.startswith(("True", "False", "None")):
        return RejectedError(f"This {what} has a word of Python, {where}.", "Write true, false or null.")
    if rest.startswith(("//", "/*", "#")):
        return RejectedError(f"This {what} has a comment, {where}.", "JSON has no comments: delete it.")
    if "end of data" in error.msg:
        advice = CUT_OFF if what == "file" else WHOLE_LINE
        return RejectedError(f"This {what} ends too early: something that was opened is not closed.", advice)
    if "trailing comma" in error.msg:
        return RejectedError(f"This {what} has a comma too many, {where}.", "Delete that comma.")
    if "after document" in error.msg and rest.strip() == ",":
        return RejectedError(f"This {what} has a comma after its end, {where}.", "Delete that comma.")
    if "after document" in error.msg:
        advice = ONE_LIST if what == "file" else "Put each conversation on its own line."
        return RejectedError(f"This {what} goes on after its end, {where}.", advice)
    if "control character" in error.msg:
        return RejectedError(
            f"This {what} has a tab or another control character in a text, {where}.", "Write a tab as \\t."
        )
    if "expected ','" in error.msg and rest.startswith(("}", "]")):
        advice = "What begins with [ ends with ], and what begins with { ends with }."
        return RejectedError(f"This {what} has a wrong closing bracket, {where}.", advice)
    if "expected ','" in error.msg:
        return RejectedError(f"This {what} has no comma where one must be, {where}.", BRACKETS)
    if "expected ':'" in error.msg:
        return RejectedError(
            f"This {what} has no colon between a name and its value, {where}.", 'Write "name": "value".'
        )
    if "string key" in error.msg:
        return RejectedError(f"This {what} has a name without quotes, {where}.", 'Write "name": "value".')
    if "infinity" in error.msg:
        return RejectedError(f"This {what} has a number that is far too large, {where}.", "Write a smaller number.")
    return RejectedError(f"This {what} is not JSON, {where}.", BRACKETS)
