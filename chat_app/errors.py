"""Every error that this product raises on purpose.

An error says what happened, where (file, line, turn) and what to do next. It knows how the doors should show it (an
exit code for the command line, a status for HTTP); it does not know the doors.
"""

from __future__ import annotations


class ChatAppError(Exception):
    """A failure that is explained in one sentence.

    Args:
        what: what happened, in words of a person who does not program.
        where: file, line or turn, if there is one.
        advice: what to do next, if something can be done.
    """

    exit_code = 1
    http_status = 500

    def __init__(self, what: str, *, where: str | None = None, advice: str | None = None):
        self.what, self.where, self.advice = what, where, advice
        super().__init__(self.sentence())

    def sentence(self) -> str:
        """The whole message on one line: where, what, advice."""
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text} {self.advice}" if self.advice else text


class UserError(ChatAppError):
    """Something that the person can put right: exit code 2, HTTP 400."""

    exit_code = 2
    http_status = 400


class DataError(UserError, ValueError):
    """Conversations, or a file of them, that cannot be used."""


class SettingError(UserError, ValueError):
    """A setting outside its limits. `field` names it.

    It is also a ValueError, which is what code that builds a settings object expects.
    """

    def __init__(self, field: str, what: str, *, advice: str | None = None):
        self.field = field
        super().__init__(what, where=field, advice=advice)


class FormatError(UserError):
    """A prompt format that is unknown or does not fit the tokenizer."""


class ModelError(UserError):
    """A model that cannot be found, trusted or loaded."""


class ModelNotFound(ModelError):
    """No model under that name."""

    http_status = 404


class RunError(UserError):
    """A run that does not exist, or cannot do now what was asked of it."""


class BusyError(ChatAppError):
    """Everything is in use: try again in a moment (HTTP 503)."""

    http_status = 503


class TooLargeError(UserError):
    """More than this server takes (HTTP 413)."""

    http_status = 413


class Elsewhere(ChatAppError):
    """The failure is that of another process of the same training, which tells what it was."""

    def __init__(self) -> None:
        super().__init__("Another process of this training has failed.")


class TrainingFailed(ChatAppError):
    """A training run that ended early for a reason that is known."""
