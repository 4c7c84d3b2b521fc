"""Parses what an OpenAI-compatible server sends: server-sent events, error responses, the list of models.

Everything is read within limits; what cannot be parsed becomes an error in one sentence. Knows bytes and JSON, no
network.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from chat_app.errors import BusyError, ChatAppError, DataError
from chat_app.inference.backend import FinishReason, TokenLogprob

MAX_LINE_BYTES = 2**20
MAX_REPLY_CHARACTERS = 400_000
_MAX_MESSAGE_CHARACTERS = 300
_MAX_NAME_CHARACTERS = 500
# What servers write in their errors where the conversation does not fit into the context window.
_CONTEXT_LENGTH_SIGNS = ("context length", "context size", "context_length", "exceed_context", "maximum input length")


class RemoteEngineError(ChatAppError):
    """The server behind --engine failed, refused the request, or cannot be reached (HTTP 502)."""

    http_status = 502


class ContextLengthError(DataError):
    """The conversation does not fit into the context window of the server's model."""


@dataclass(frozen=True)
class StreamDelta:
    """The contents of one event.

    Attributes:
        text: more of the reply.
        tokens: of that text, if log probabilities were requested.
        reason: why the reply ended, if it did.
        counts: (prompt tokens, reply tokens), if the event reports usage.
    """

    text: str = ""
    tokens: tuple[TokenLogprob, ...] = ()
    reason: FinishReason | None = None
    counts: tuple[int, int] | None = None


@dataclass(frozen=True)
class ListedModel:
    """A model of the server's list. `window`: the most tokens of a prompt and its reply; 0 where it is unknown."""

    name: str
    window: int


async def parse_stream(chunks: AsyncIterator[bytes], where: str) -> AsyncIterator[StreamDelta]:
    """The deltas of a reply, from the bytes of its server-sent events.

    Args:
        where: what to call the server in messages.

    Raises:
        RemoteEngineError: the bytes are no such events, too many, or end in the middle of the reply.
    """
    has_ended, length = False, 0
    async for line in _split_lines(chunks, where):
        if not line.startswith(b"data:"):
            continue  # An empty line, a comment, or another field.
        data = line[5:].strip()
        if data == b"[DONE]":
            return
        delta = _parse_event(_parse_object(data, where), where)
        length += len(delta.text)
        if length > MAX_REPLY_CHARACTERS:
            raise RemoteEngineError(f"The reply of {where} does not end.", advice="Ask for a shorter one.")
        has_ended = has_ended or delta.reason is not None
        yield delta
    if not has_ended:
        raise RemoteEngineError(f"The connection to {where} broke in the middle of the reply.", advice="Try again.")


async def _split_lines(chunks: AsyncIterator[bytes], where: str) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line
        if len(rest) > MAX_LINE_BYTES:
            raise _unreadable(where)
    if rest:
        yield rest


def _parse_object(data: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _unreadable(where) from error
    if not isinstance(value, dict):
        raise _unreadable(where)
    return value


def _parse_event(event: dict[str, Any], where: str) -> StreamDelta:
    if event.get("error"):
        raise RemoteEngineError(f"The reply of {where} failed: {_error_message(event) or 'no reason given'}")
    choices, usage = event.get("choices"), event.get("usage")
    choice = choices[0] if isinstance(choices, list) and choices else {}
    delta = choice.get("delta") if isinstance(choice, dict) else None
    text = delta.get("content") if isinstance(delta, dict) else None
    if not isinstance(choice, dict) or not isinstance(text, (str, type(None))):
        raise _unreadable(where)
    finish = choice.get("finish_reason")
    reason: FinishReason | None = None if not finish else "length" if finish == "length" else "end"
    counts = (_count(usage, "prompt_tokens"), _count(usage, "completion_tokens")) if isinstance(usage, dict) else None
    return StreamDelta(text or "", _parse_logprobs(choice.get("logprobs")), reason, counts)


def _count(usage: dict[str, Any], name: str) -> int:
    value = usage.get(name)
    return value if isinstance(value, int) and 0 <= value < 2**40 else 0


def _parse_logprobs(logprobs: Any) -> tuple[TokenLogprob, ...]:
    rows = logprobs.get("content") if isinstance(logprobs, dict) else None
    return tuple(_parse_token(row) for row in rows if isinstance(row, dict)) if isinstance(rows, list) else ()


def _parse_token(row: dict[str, Any]) -> TokenLogprob:
    raw, value, top = row.get("bytes"), row.get("logprob"), row.get("top_logprobs")
    known = isinstance(raw, list) and all(isinstance(byte, int) and 0 <= byte < 256 for byte in raw)
    return TokenLogprob(
        str(row.get("token", "")),
        float(value) if isinstance(value, (int, float)) else 0.0,
        tuple(raw) if known and raw is not None else None,
        tuple(_parse_token(other) for other in top if isinstance(other, dict)) if isinstance(top, list) else (),
    )


def parse_models(body: bytes, where: str) -> list[ListedModel]:
    """The models of a server, from its response to /v1/models.

    Raises:
        RemoteEngineError: it is no such list.
    """
    rows = _parse_object(body, where).get("data")
    if not isinstance(rows, list):
        raise _unreadable(where)
    return [ListedModel(row["id"], _window(row)) for row in rows if isinstance(row, dict) and _is_name(row.get("id"))]


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_NAME_CHARACTERS and value.isprintable()


def _window(row: dict[str, Any]) -> int:
    meta = row.get("meta")
    n_ctx = meta.get("n_ctx") if isinstance(meta, dict) else None  # llama.cpp; vLLM and chat_app use max_model_len.
    value = row.get("max_model_len") or n_ctx
    return value if isinstance(value, int) and 0 < value < 2**40 else 0


def error_for_status(status: int, body: bytes, where: str, key_variable: str) -> ChatAppError:
    """The error for an HTTP status other than 200.

    Args:
        body: of the response, or its beginning.
        key_variable: the environment variable that has the API key.
    """
    try:
        reason = _error_message(_parse_object(body, where))
    except RemoteEngineError:
        reason = ""
    said = f": {reason.rstrip('.')}." if reason else f" ({status})."
    name = f"{where[0].upper()}{where[1:]}"
    if status in (401, 403):
        return RemoteEngineError(
            f"{name} refuses the key.", advice=f"Put the right one into {key_variable} and start again."
        )
    if status == 404:
        return RemoteEngineError(
            f"{name} does not know the model or the address{said}", advice="Check --engine and --model."
        )
    if status in (429, 503):
        return BusyError(f"{name} is busy{said}", advice="Try again in a moment.")
    if status in (400, 413, 422):
        kind = ContextLengthError if any(sign in reason.lower() for sign in _CONTEXT_LENGTH_SIGNS) else DataError
        return kind(f"{name} does not take this{said}")
    if 300 <= status < 400:
        return RemoteEngineError(f"{name} has moved.", advice="Give --engine the new address.")
    return RemoteEngineError(f"{name} failed{said}", advice="Try again in a moment.")


def _error_message(value: dict[str, Any]) -> str:
    """The message of an error, on one line. OpenAI sends {"error": {"message"}}; others put it one level higher."""
    inner = value.get("error")
    found = inner.get("message") if isinstance(inner, dict) else inner or value.get("message") or value.get("detail")
    text = found if isinstance(found, str) else json.dumps(found) if found else ""
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable())[:_MAX_MESSAGE_CHARACTERS]


def _unreadable(where: str) -> RemoteEngineError:
    return RemoteEngineError(
        f"What came from {where} is no reply.", advice="Check that --engine is an OpenAI-compatible server."
    )
