"""Request schemas of the HTTP API: fields, types and limits; and errors in OpenAI's shape.

Knows no server and no model; the limits of sampling are those of `SamplingConfig`.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from chat_app.config.sampling import SamplingConfig
from chat_app.config.server import QuoteMode
from chat_app.conversation import Conversation, Message, Role
from chat_app.errors import DataError, SettingError

MAX_MESSAGES = 1000
MAX_CHARACTERS = 200_000
MAX_REPLIES = 8
MAX_TOP_LOGPROBS = 20
_LIMITS = {one.name: one.metadata for one in fields(SamplingConfig)}
_MAX_NEW_TOKENS = int(_LIMITS["max_new_tokens"]["high"])
_SEEDS = 2**31

Count = Annotated[int, Field(strict=True, ge=1)]


def _optional_number(name: str) -> Any:
    """An optional field with the limits and the explanation of the sampling setting of that name."""
    about = _LIMITS[name]
    return Field(None, ge=about["low"], le=about["high"], strict=True, description=about["help"])


class ChatMessage(BaseModel):
    """One message. Its content is text, or a list of parts that are all text."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str = Field(
        max_length=MAX_CHARACTERS,
        description="Text, or parts of the type text.",
        json_schema_extra={"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]},
    )

    @field_validator("content", mode="before")
    @classmethod
    def _join_parts(cls, content: Any) -> Any:
        if not isinstance(content, list):
            return content
        texts = []
        for part in content:
            if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
                raise ValueError("Only parts of the type text are understood.")
            texts.append(part["text"])
        return "\n".join(texts)


class ChatRequest(BaseModel):
    """A request for the next reply of a conversation. Fields that are not known here are ignored."""

    model_config = ConfigDict(
        allow_inf_nan=False,
        json_schema_extra={"examples": [{"messages": [{"role": "user", "content": "Hello!"}], "stream": False}]},
    )

    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    model: str | None = Field(None, max_length=4096, description="The model in use, or 'default'.")
    stream: bool | None = Field(None, description="Send the reply while it is written.")
    stream_options: dict[str, Any] | None = Field(
        None, description="`include_usage` adds a last piece with the counts."
    )
    temperature: float | None = _optional_number("temperature")
    top_p: float | None = _optional_number("top_p")
    top_k: int | None = Field(
        None, ge=-1, le=_LIMITS["top_k"]["high"], strict=True, description=_LIMITS["top_k"]["help"]
    )
    min_p: float | None = _optional_number("min_p")
    repetition_penalty: float | None = _optional_number("repetition_penalty")
    presence_penalty: float | None = _optional_number("presence_penalty")
    frequency_penalty: float | None = _optional_number("frequency_penalty")
    max_tokens: Count | None = Field(None, description="The longest the reply may become, in tokens.")
    max_completion_tokens: Count | None = Field(None, description="The newer name of max_tokens.")
    stop: str | list[str] | None = Field(None, description="The reply ends before any of these texts.")
    seed: Annotated[int, Field(strict=True)] | None = Field(None, description=_LIMITS["seed"]["help"])
    n: Annotated[int, Field(strict=True, ge=1, le=MAX_REPLIES)] | None = Field(None, description="How many replies.")
    logprobs: Annotated[bool, Field(strict=True)] | None = Field(
        None, description="Tell of each token of the reply how likely it was."
    )
    top_logprobs: Annotated[int, Field(strict=True, ge=0, le=MAX_TOP_LOGPROBS)] | None = Field(
        None, description="So many of the likeliest tokens in the place of each; wants logprobs."
    )

    answer_from_list: QuoteMode | None = Field(
        None,
        description="Quote the reply from the list that the model was taught: 'sure' where a question of it was surely "
        "meant, 'only' to say otherwise that it is not known. Left out: as the server was started.",
    )

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with the counts."""
        return bool((self.stream_options or {}).get("include_usage"))

    def requested_logprobs(self) -> int | None:
        """How many of the likeliest tokens are told in the place of each; None where no logprobs were asked for.

        Raises:
            SettingError: they are asked for without logprobs.
        """
        if self.top_logprobs is not None and not self.logprobs:
            raise SettingError("top_logprobs", "It is told with logprobs only.", advice="Set logprobs to true.")
        return self.top_logprobs or 0 if self.logprobs else None

    def conversation(self) -> Conversation:
        """The messages as a conversation that waits for the assistant.

        Raises:
            SettingError: it does not, or is too long.
        """
        if sum(len(message.content) for message in self.messages) > MAX_CHARACTERS:
            raise SettingError("messages", f"They are longer than {MAX_CHARACTERS:,} characters together.")
        roles: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
        try:
            conversation = Conversation.from_messages(
                Message(roles[message.role], message.content) for message in self.messages
            )
        except DataError as error:
            raise SettingError("messages", error.what, advice=error.advice) from error
        if conversation.turns[-1].role != "user":
            raise SettingError("messages", "The last message must be the user's.")
        return conversation

    def sampling(self, reply: int = 0) -> SamplingConfig:
        """How to draw the reply of that number; what was left out is as on the page.

        Raises:
            SettingError: a value outside its limits.
        """
        longest = self.max_completion_tokens or self.max_tokens
        values: dict[str, Any] = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": None if self.top_k is None else max(self.top_k, 0),
            "min_p": self.min_p,
            "repetition_penalty": self.repetition_penalty,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "max_new_tokens": None if longest is None else min(longest, _MAX_NEW_TOKENS),
            "seed": None if self.seed is None else (self.seed + reply) % _SEEDS,
            "stop": (self.stop,) if isinstance(self.stop, str) else self.stop and tuple(self.stop),
        }
        return SamplingConfig(**{name: value for name, value in values.items() if value is not None})


class GenerateRequest(BaseModel):
    """A request in GPTChat's schema."""

    context: str = Field(min_length=1, max_length=MAX_CHARACTERS, description="What was said.")
    response: str | None = Field(None, max_length=10_000, description="How the reply must begin.")


def error_body(message: str, kind: str, *, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def explain(errors: Any) -> tuple[str, str | None]:
    """What is wrong with a request, and with which field, from the errors of its validation."""
    first = errors[0] if errors else {}
    where = [str(part) for part in first.get("loc", ())[1:]]
    if first.get("type") == "json_invalid":
        return "The request is no JSON.", None
    if not where:
        return "The request must be a JSON object, sent with the header Content-Type: application/json.", None
    if where[:1] == ["stop"]:  # The other parts name the kinds of value it could have been.
        where = ["stop"]
    field = ".".join(where)
    message = str(first.get("msg", "The request cannot be understood.")).removeprefix("Value error, ")
    return f"{field}: {message}", field
