"""Replies in OpenAI's response schema: as a whole, as server-sent events (SSE), and with logprobs.

Requests are parsed in `openai_schema` and handled in `openai_api`.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from chat_app.errors import ChatAppError
from chat_app.inference.backend import ReplyEnd, TextDelta, TokenLogprob
from chat_app.server.openai_schema import error_body
from chat_app.server.streaming import ThreadToAsyncStream

LOGGER = logging.getLogger(__name__)
FLUSH_SECONDS = 0.05
"""Seconds between two server-sent events. Tokens generated meanwhile are sent together: waking the server and the
client for every token takes a tenth of the CPU time from the engine."""


@dataclass
class CollectedReply:
    """A finished reply: its tokens, if logprobs were requested, and its end."""

    tokens: list[TokenLogprob] | None
    end: ReplyEnd | None = field(default=None)

    def add(self, item: TextDelta | ReplyEnd) -> None:
        """Add an item of the stream."""
        if isinstance(item, ReplyEnd):
            self.end = item
        elif item.tokens is not None and self.tokens is not None:
            self.tokens += item.tokens


def build_completion(model: str, replies: Sequence[CollectedReply]) -> dict[str, Any]:
    """The response body for finished replies to one request."""
    ends = [reply.end for reply in replies if reply.end is not None]
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": end.text, "refusal": None},
            "logprobs": _logprobs(reply.tokens),
            "finish_reason": _finish_reason(end),
            **_quote(end),
        }
        for index, (reply, end) in enumerate(zip(replies, ends, strict=True))
    ]
    head = {"id": _new_id(), "object": "chat.completion", "created": int(time.time()), "model": model}
    return {**head, "choices": choices, "usage": _count_usage(ends)}


class ChunkEncoder:
    """Encodes the replies to one request as chat.completion.chunk events.

    Args:
        model: the public name of the model.
        replies: their number (`n`).
        wants_usage: whether a last chunk has the token counts.
    """

    def __init__(self, model: str, replies: int, wants_usage: bool):
        self._head = {"id": _new_id(), "object": "chat.completion.chunk", "created": int(time.time()), "model": model}
        self._replies, self._wants_usage = replies, wants_usage
        self._ends: list[ReplyEnd] = []

    def encode_roles(self) -> str:
        """The first chunk of each reply: the role."""
        opening = {"role": "assistant", "content": ""}
        return "".join(self._event([_build_choice(index, opening)]) for index in range(self._replies))

    def encode(self, index: int, item: TextDelta | ReplyEnd) -> str:
        """A chunk with a text delta, or with the finish reason."""
        if isinstance(item, TextDelta):
            return self._event([_build_choice(index, {"content": item.text}, _logprobs(item.tokens))])
        self._ends.append(item)
        last = self._event([{**_build_choice(index, {}, None, _finish_reason(item)), **_quote(item)}])
        is_all = self._wants_usage and len(self._ends) == self._replies
        return last + self._event([], usage=_count_usage(self._ends)) if is_all else last

    def encode_error(self, error: ChatAppError) -> str:
        """An error after the stream has begun."""
        return _format_event(error_body(error.sentence(), "server_error"))

    def _event(self, choices: list[dict[str, Any]], **more: Any) -> str:
        usage = {"usage": None} if self._wants_usage and not more else more
        return _format_event({**self._head, "choices": choices, **usage})


class EventStreamResponse(StreamingResponse):
    """Sends the items of a stream as server-sent events; the generators stop when sending ends, for whatever reason."""

    def __init__(
        self,
        stream: ThreadToAsyncStream[TextDelta | ReplyEnd],
        events: ChunkEncoder,
        first: tuple[int, TextDelta | ReplyEnd] | None,
    ):
        self._stream, self._events, self._first = stream, events, first
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(self._generate_events(), media_type="text/event-stream", headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle the response."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._stream.stopped.set()

    async def _generate_events(self) -> AsyncIterator[str]:
        yield self._events.encode_roles()
        item = self._first
        try:
            while item is not None:
                yield "".join(self._events.encode(*pair) for pair in (item, *self._stream.ready()))
                await self._stream.pause(FLUSH_SECONDS)
                item = await self._stream.next()
        except ChatAppError as error:
            yield self._events.encode_error(error)
        except Exception:  # The edge of the response: its status is already sent.
            LOGGER.exception("a reply failed")
            yield self._events.encode_error(ChatAppError("The reply failed."))
        yield "data: [DONE]\n\n"


def _count_usage(ends: Sequence[ReplyEnd]) -> dict[str, int]:
    prompt, written = ends[0].prompt_tokens, sum(end.reply_tokens for end in ends)
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


def _finish_reason(end: ReplyEnd) -> str:
    return "length" if end.reason in ("length", "window") else "stop"


def _quote(end: ReplyEnd) -> dict[str, Any]:
    """What OpenAI's schema has no field for: that a reply stands in the list, and for which taught question."""
    return {} if end.quoted is None else {"quoted": {"question": end.quoted}}


def _build_choice(
    index: int, delta: dict[str, str], logprobs: dict[str, Any] | None = None, finish_reason: str | None = None
) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}


def _logprobs(tokens: Sequence[TokenLogprob] | None) -> dict[str, Any] | None:
    if tokens is None:
        return None
    rows = [{**_token(one), "top_logprobs": [_token(other) for other in one.top]} for one in tokens]
    return {"content": rows, "refusal": None}


def _token(one: TokenLogprob) -> dict[str, Any]:
    return {"token": one.token, "logprob": one.logprob, "bytes": None if one.bytes is None else list(one.bytes)}


def _format_event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n"


def _new_id() -> str:
    return f"chatcmpl-{uuid.uuid4().hex}"
