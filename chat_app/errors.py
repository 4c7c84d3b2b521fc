"""Every error that this product raises on purpose.

An error says what happened, where (file, line, turn) and what to do next. It carries the exit code of the command line
and the HTTP status with which it is reported; it knows neither the command line nor the server.

* ChatAppError (exit code 1, HTTP 500)
  * UserError: something that the person can put right (exit code 2, HTTP 400)
    + DataError: conversations, or a file of them, that cannot be used
      x UnclearColumnsError: a table whose columns the person has to explain
      x ContextLengthError (`inference.remote.protocol`): the conversation is too long for another server's model
    + SettingError: a setting outside its limits
    + FormatError: a prompt format that is unknown or does not fit the tokenizer
    + ModelError: a model that cannot be found, trusted or loaded
      x ModelNotFoundError (HTTP 404)
      x NotEnoughMemoryError: a model that needs more memory than is free
    + RunError: a run that does not exist, or cannot do now what was asked of it
      x DecisionNeededError: a run that goes on only if a person allows it
    + TooLargeError: more than this server takes (HTTP 413)
    + AuthenticationError (`server.auth`): no name and password, or wrong ones (HTTP 401)
    + TooManyAttemptsError (`server.auth`): too many wrong passwords (HTTP 429)
  * BusyError: everything is in use (HTTP 503)
  * ChildProcessDiedError: a process that worked for this one ended, crashed or hung (HTTP 503)
  * RemoteEngineError (`inference.remote.protocol`): the server behind --engine failed (HTTP 502)
  * TrainingError: a training run ended early for a known reason
  * PeerProcessError: another process of the same training failed, and reports why

Outside the tree are RejectedError, which never leaves `data.readers`, and StoppedError (`system.progress`), which ends
work that was stopped on request.
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


class UnclearColumnsError(DataError):
    """A table in which no column is known to hold talk: a question to the person.

    `columns` holds the label of each column and a few of its cells.
    """

    def __init__(
        self,
        what: str,
        columns: tuple[tuple[str, tuple[str, ...]], ...],
        *,
        where: str | None = None,
        advice: str | None = None,
    ):
        self.columns = columns
        super().__init__(what, where=where, advice=advice)


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


class ModelNotFoundError(ModelError):
    """No model under that name."""

    http_status = 404


class NotEnoughMemoryError(ModelError):
    """A model that needs more memory than is free: `needed` and `free` in bytes."""

    def __init__(self, what: str, needed: int, free: int, *, advice: str | None = None):
        self.needed, self.free = needed, free
        super().__init__(what, advice=advice)


class RunError(UserError):
    """A run that does not exist, or cannot do now what was asked of it."""


class DecisionNeededError(RunError):
    """A run that goes on only if a person allows it: what it was trained with has changed, or is lost.

    `decision` names what has to be allowed, as `runs.state.Decision` lists it.
    """

    def __init__(self, decision: str, what: str, *, advice: str | None = None):
        self.decision = decision
        super().__init__(what, advice=advice)


class BusyError(ChatAppError):
    """Everything is in use: try again in a moment (HTTP 503)."""

    http_status = 503


class ChildProcessDiedError(ChatAppError):
    """A process that worked for this one ended, crashed or hung; the next request may succeed (HTTP 503)."""

    http_status = 503


class TooLargeError(UserError):
    """More than this server takes (HTTP 413)."""

    http_status = 413


class PeerProcessError(ChatAppError):
    """Another process of the same training has failed, and reports why."""

    def __init__(self) -> None:
        super().__init__("Another process of this training has failed.")


class TrainingError(ChatAppError):
    """A training run that ended early for a reason that is known."""
