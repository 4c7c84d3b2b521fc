"""Replies as OpenAI's clients read them: whole, as server-sent events, and with the logprobs of their tokens.

Knows how answers look; what is asked, and who writes the replies, stands in `api`.
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
from chat_app.inference.outputs import ReplyEnd, Scored, TokenLogprob
from chat_app.server.openai_schema import error_body
from chat_app.server.streaming import Relay

LOGGER = logging.getLogger(__name__)
_PAUSE = 0.05
"""Seconds between two sendings. What is written meanwhile is sent together: nobody reads so fast, and to wake the
server and the caller for every token takes a tenth of the processor from who writes."""


@dataclass
class Written:
    """A reply that was written: its tokens, if they were asked for, and its end."""

    tokens: list[TokenLogprob] | None
    end: ReplyEnd | None = field(default=None)

    def add(self, item: str | ReplyEnd) -> None:
        """One more of what a reply gives."""
        if isinstance(item, ReplyEnd):
            self.end = item
        elif isinstance(item, Scored) and self.tokens is not None:
            self.tokens += item.tokens


def completion(model: str, replies: Sequence[Written]) -> dict[str, Any]:
    """Finished replies to one request."""
    ends = [reply.end for reply in replies if reply.end is not None]
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": end.text, "refusal": None},
            "logprobs": _logprobs(reply.tokens),
            "finish_reason": _finish_reason(end),
        }
        for index, (reply, end) in enumerate(zip(replies, ends, strict=True))
    ]
    head = {"id": _new_id(), "object": "chat.completion", "created": int(time.time()), "model": model}
    return {**head, "choices": choices, "usage": _usage(ends)}


class Events:
    """The server-sent events of the replies to one request.

    Args:
        model: the name of who answers.
        replies: how many there are.
        wants_usage: whether the counts come at the end.
    """

    def __init__(self, model: str, replies: int, wants_usage: bool):
        self._head = {"id": _new_id(), "object": "chat.completion.chunk", "created": int(time.time()), "model": model}
        self._replies, self._wants_usage = replies, wants_usage
        self._ends: list[ReplyEnd] = []

    def first(self) -> str:
        """Who speaks."""
        opening = {"role": "assistant", "content": ""}
        return "".join(self._event([_choice(index, opening)]) for index in range(self._replies))

    def of(self, index: int, item: str | ReplyEnd) -> str:
        """A piece of a reply, or its end."""
        if isinstance(item, str):
            tokens = _logprobs(item.tokens) if isinstance(item, Scored) else None
            return self._event([_choice(index, {"content": item}, tokens)])
        self._ends.append(item)
        last = self._event([_choice(index, {}, None, _finish_reason(item))])
        is_all = self._wants_usage and len(self._ends) == self._replies
        return last + self._event([], usage=_usage(self._ends)) if is_all else last

    def error(self, error: ChatAppError) -> str:
        """What went wrong after the stream had begun."""
        return _data(error_body(error.sentence(), "server_error"))

    def _event(self, choices: list[dict[str, Any]], **more: Any) -> str:
        usage = {"usage": None} if self._wants_usage and not more else more
        return _data({**self._head, "choices": choices, **usage})


class EventStream(StreamingResponse):
    """Sends a relay's items as events. However sending ends, the relay does too."""

    def __init__(self, relay: Relay[str | ReplyEnd], events: Events, first: tuple[int, str | ReplyEnd] | None):
        self._relay, self._events, self._first = relay, events, first
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(self._sent(), media_type="text/event-stream", headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._relay.stopped.set()

    async def _sent(self) -> AsyncIterator[str]:
        yield self._events.first()
        item = self._first
        try:
            while item is not None:
                yield "".join(self._events.of(*one) for one in (item, *self._relay.ready()))
                await self._relay.pause(_PAUSE)
                item = await self._relay.next()
        except ChatAppError as error:
            yield self._events.error(error)
        except Exception:  # The edge of the answer: its status is sent already.
            LOGGER.exception("a reply failed")
            yield self._events.error(ChatAppError("The reply failed."))
        yield "data: [DONE]\n\n"


def _usage(ends: Sequence[ReplyEnd]) -> dict[str, int]:
    prompt, written = ends[0].prompt_tokens, sum(end.reply_tokens for end in ends)
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


def _finish_reason(end: ReplyEnd) -> str:
    return "length" if end.reason in ("length", "window") else "stop"


def _choice(
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


def _data(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n"


def _new_id() -> str:
    return f"chatcmpl-{uuid.uuid4().hex}"
