"""What another server sends: the events of a reply, its refusals, its list of models. Knows bytes and JSON, no network.

Whatever comes is read within limits, and what cannot be understood is a sentence that says so.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from chat_app.errors import BusyError, ChatAppError, DataError
from chat_app.inference.backend import FinishReason, TokenLogprob

LONGEST_LINE = 2**20
LONGEST_REPLY = 400_000  # Characters.
_LONGEST_REASON = 300
_LONGEST_NAME = 500
_TOO_LONG = ("context length", "context size", "context_length", "exceed_context", "maximum input length")


class RemoteEngineError(ChatAppError):
    """The server behind --engine failed, refused us, or cannot be reached (HTTP 502)."""

    http_status = 502


class ContextLengthError(DataError):
    """The conversation does not fit into the window of the server's model."""


@dataclass(frozen=True)
class Piece:
    """What one event brings.

    Attributes:
        text: more of the reply.
        tokens: of that text, if they were asked for.
        reason: why the reply ended, if it did.
        counts: (tokens read, tokens written) if it tells them.
    """

    text: str = ""
    tokens: tuple[TokenLogprob, ...] = ()
    reason: FinishReason | None = None
    counts: tuple[int, int] | None = None


@dataclass(frozen=True)
class Listed:
    """A model that a server has. `window`: the most tokens of a prompt and its reply; 0 where it does not say."""

    name: str
    window: int


async def pieces(chunks: AsyncIterator[bytes], where: str) -> AsyncIterator[Piece]:
    """The pieces of a reply, from the bytes of its server-sent events.

    Args:
        where: what to call the server in messages.

    Raises:
        RemoteEngineError: they are none, too long, or end in the middle.
    """
    has_ended, length = False, 0
    async for line in _lines(chunks, where):
        if not line.startswith(b"data:"):
            continue  # An empty line, a comment, or a field that says nothing of the reply.
        data = line[5:].strip()
        if data == b"[DONE]":
            return
        piece = _piece(_object(data, where), where)
        length += len(piece.text)
        if length > LONGEST_REPLY:
            raise RemoteEngineError(f"The reply of {where} does not end.", advice="Ask for a shorter one.")
        has_ended = has_ended or piece.reason is not None
        yield piece
    if not has_ended:
        raise RemoteEngineError(f"The connection to {where} broke in the middle of the reply.", advice="Try again.")


async def _lines(chunks: AsyncIterator[bytes], where: str) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line
        if len(rest) > LONGEST_LINE:
            raise _garbage(where)
    if rest:
        yield rest


def _object(data: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _garbage(where) from error
    if not isinstance(value, dict):
        raise _garbage(where)
    return value


def _piece(event: dict[str, Any], where: str) -> Piece:
    if event.get("error"):
        raise RemoteEngineError(f"The reply of {where} failed: {_reason(event) or 'no reason given'}")
    choices, usage = event.get("choices"), event.get("usage")
    choice = choices[0] if isinstance(choices, list) and choices else {}
    delta = choice.get("delta") if isinstance(choice, dict) else None
    text = delta.get("content") if isinstance(delta, dict) else None
    if not isinstance(choice, dict) or not isinstance(text, (str, type(None))):
        raise _garbage(where)
    ended = choice.get("finish_reason")
    reason: FinishReason | None = None if not ended else "length" if ended == "length" else "end"
    counts = (_count(usage, "prompt_tokens"), _count(usage, "completion_tokens")) if isinstance(usage, dict) else None
    return Piece(text or "", _tokens(choice.get("logprobs")), reason, counts)


def _count(usage: dict[str, Any], name: str) -> int:
    value = usage.get(name)
    return value if isinstance(value, int) and 0 <= value < 2**40 else 0


def _tokens(logprobs: Any) -> tuple[TokenLogprob, ...]:
    rows = logprobs.get("content") if isinstance(logprobs, dict) else None
    return tuple(_token(row) for row in rows if isinstance(row, dict)) if isinstance(rows, list) else ()


def _token(row: dict[str, Any]) -> TokenLogprob:
    raw, value, top = row.get("bytes"), row.get("logprob"), row.get("top_logprobs")
    known = isinstance(raw, list) and all(isinstance(one, int) and 0 <= one < 256 for one in raw)
    return TokenLogprob(
        str(row.get("token", "")),
        float(value) if isinstance(value, (int, float)) else 0.0,
        tuple(raw) if known and raw is not None else None,
        tuple(_token(one) for one in top if isinstance(one, dict)) if isinstance(top, list) else (),
    )


def listed(body: bytes, where: str) -> list[Listed]:
    """The models of a server, from its answer to /v1/models.

    Raises:
        RemoteEngineError: it is no such list.
    """
    rows = _object(body, where).get("data")
    if not isinstance(rows, list):
        raise _garbage(where)
    return [Listed(row["id"], _window(row)) for row in rows if isinstance(row, dict) and _is_name(row.get("id"))]


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME and value.isprintable()


def _window(row: dict[str, Any]) -> int:
    meta = row.get("meta")
    of_meta = meta.get("n_ctx") if isinstance(meta, dict) else None  # llama.cpp; vLLM and chat_app say the other.
    value = row.get("max_model_len") or of_meta
    return value if isinstance(value, int) and 0 < value < 2**40 else 0


def refusal(status: int, body: bytes, where: str, key_variable: str) -> ChatAppError:
    """What a status other than 200 means.

    Args:
        body: what came with it, or its beginning.
        key_variable: the environment's variable that has the key.
    """
    try:
        reason = _reason(_object(body, where))
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
        kind = ContextLengthError if any(sign in reason.lower() for sign in _TOO_LONG) else DataError
        return kind(f"{name} does not take this{said}")
    if 300 <= status < 400:
        return RemoteEngineError(f"{name} has moved.", advice="Give --engine the new address.")
    return RemoteEngineError(f"{name} failed{said}", advice="Try again in a moment.")


def _reason(value: dict[str, Any]) -> str:
    """What an error says, on one line. OpenAI's shape is {"error": {"message"}}; others put it one level higher."""
    inner = value.get("error")
    found = inner.get("message") if isinstance(inner, dict) else inner or value.get("message") or value.get("detail")
    text = found if isinstance(found, str) else json.dumps(found) if found else ""
    return "".join(one for one in " ".join(text.split()) if one.isprintable())[:_LONGEST_REASON]


def _garbage(where: str) -> RemoteEngineError:
    return RemoteEngineError(
        f"What came from {where} is no reply.", advice="Check that --engine is an OpenAI-compatible server."
    )
