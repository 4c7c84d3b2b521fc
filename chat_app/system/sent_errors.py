"""Errors on their way from one process to another: what a person reads arrives, and what a log needs stays behind.

An error of `chat_app.errors` comes out of it as the same class with the same fields. Any other exception becomes a
sentence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from chat_app.errors import ChatAppError
from chat_app.system.memory import is_out_of_memory

_FIELD_TYPES = (str, int, float, bool, type(None))


@dataclass(frozen=True)
class SentError:
    """An error without its traceback.

    Attributes:
        classes: names of its class and of the classes above that, up to ChatAppError.
        fields: what the error carries: its sentence in parts, and what its class adds.
    """

    classes: tuple[str, ...]
    fields: dict[str, Any]

    @classmethod
    def of(cls, error: BaseException, what: str = "This") -> SentError:
        """What is sent of an error.

        Args:
            what: what has failed, as the beginning of the sentence that an unexpected exception becomes.
        """
        if not isinstance(error, ChatAppError):
            error = explain(error, what)
        classes = [one.__name__ for one in type(error).__mro__ if issubclass(one, ChatAppError)]
        fields = {name: value for name, value in vars(error).items() if isinstance(value, _FIELD_TYPES)}
        return cls(tuple(classes), fields)

    def rebuild(self) -> ChatAppError:
        """A new error of the same class, or of the nearest class above it that this process knows."""
        known = {one.__name__: one for one in _subclasses(ChatAppError)}
        chosen = next((known[name] for name in self.classes if name in known), ChatAppError)
        error = chosen.__new__(chosen)
        vars(error).update(self.fields)
        error.args = (error.sentence(),)
        return error


def explain(error: BaseException, what: str) -> ChatAppError:
    """The sentence for an exception that no one has foreseen."""
    if is_out_of_memory(error):
        return ChatAppError("The memory ran out.", advice="Use a smaller model, or shorter conversations.")
    return ChatAppError(f"{what} failed ({type(error).__name__}: {error}).")


def _subclasses(one: type[ChatAppError]) -> Iterator[type[ChatAppError]]:
    yield one
    for below in one.__subclasses__():
        yield from _subclasses(below)
