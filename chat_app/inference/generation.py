"""Generation of a reply from a conversation: the prompt is encoded, the engine's tokens become text deltas.

The other way round, a model without an engine (such as one in training) is asked for its whole reply at once. What the
doors call is in `backend`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from dataclasses import replace
from typing import Any

from chat_app.config.sampling import SamplingConfig
from chat_app.conversation import Conversation
from chat_app.errors import DataError
from chat_app.inference.backend import FinishReason, QueuePosition, ReplyEnd, ReplyEvent, ReplyRequest, TextDelta
from chat_app.inference.engine import Engine, generate_tokens
from chat_app.inference.logprobs import LogprobAligner, LogprobRecorder
from chat_app.inference.reply_text import ReplyText
from chat_app.inference.request import Finish, Request
from chat_app.tokenization.encoder import Encoder, Example


def generate_reply(
    engine: Engine, encoder: Encoder, wanted: ReplyRequest, cancel_event: threading.Event | None = None
) -> Generator[ReplyEvent, None, None]:
    """The reply of an engine, as `ReplyBackend.stream` describes it."""
    started = time.perf_counter()
    first = 0.0
    example, request = _prepare_request(encoder, wanted.conversation, wanted.sampling, wanted.prefix)
    unknown = range(len(encoder.tokenizer), engine.vocabulary)
    recorder = LogprobRecorder(wanted.logprobs) if wanted.logprobs is not None else None
    request = replace(request, suppressed_ids=request.suppressed_ids.union(unknown), recorder=recorder)
    aligner = LogprobAligner(encoder.tokenizer, recorder) if recorder is not None else None
    text = ReplyText(encoder.tokenizer, wanted.sampling.stop, request.ids[len(example.ids) :])
    reason: FinishReason = "stop"
    reply_tokens = 0
    events = engine.stream_events(request, cancel_event)
    try:
        if delta := text.begin():
            yield TextDelta(delta)
        for event in events:
            if isinstance(event, QueuePosition):
                yield event
            elif isinstance(event, Finish):
                reason = event.reason
            elif event not in request.end_ids:
                first = first or time.perf_counter() - started
                reply_tokens += 1
                if aligner is not None:
                    aligner.add(event)
                if delta := text.add(event):
                    yield TextDelta(delta, aligner.flush() if aligner is not None else None)
                if text.is_stopped:
                    break
    finally:
        events.close()
    if delta := text.finish():
        yield TextDelta(delta, aligner.flush() if aligner is not None else None)
    seconds = time.perf_counter() - started
    yield ReplyEnd(
        text.text,
        reason,
        reply_tokens,
        len(request.ids),
        engine.window,
        seconds,
        first or seconds,
        example.dropped_turns,
        example.cut_tokens,
    )


def generate_greedily(model: Any, encoder: Encoder, conversation: Conversation, max_new_tokens: int) -> str:
    """The most likely reply (greedy decoding) of a model without an engine, such as one that is being trained.

    Raises:
        DataError: as `ReplyBackend.stream`.
    """
    greedy = SamplingConfig(temperature=0, repetition_penalty=1, max_new_tokens=max_new_tokens)
    return generate_without_engine(model, encoder, conversation, greedy)


def generate_without_engine(model: Any, encoder: Encoder, conversation: Conversation, sampling: SamplingConfig) -> str:
    """The reply of a model without an engine, computed in the calling thread; stop texts are ignored.

    Raises:
        DataError: as `ReplyBackend.stream`.
    """
    _, request = _prepare_request(encoder, conversation, sampling, "")
    text = ReplyText(encoder.tokenizer, (), [])
    for token in generate_tokens(model, request, encoder.window):
        if token not in request.end_ids:
            text.add(token)
    text.finish()
    return text.text


def _prepare_request(
    encoder: Encoder, conversation: Conversation, sampling: SamplingConfig, prefix: str
) -> tuple[Example, Request]:
    """The encoded prompt, and the engine's request: the prompt and the prefix, to be continued."""
    if conversation.turns[-1].role != "user":
        raise DataError("The last turn is the assistant's.", advice="Say something first.")
    conversation = _replace_lone_surrogates(conversation)
    if sampling.remembered_turns:
        conversation = conversation.keep_latest(sampling.remembered_turns)
    prefix = _without_lone_surrogates(prefix).strip()
    prefix_ids = encoder.text_ids(prefix) if prefix else []
    half = encoder.window // 2
    if len(prefix_ids) >= half:
        raise DataError(f"The beginning of the reply is too long ({len(prefix_ids)} tokens of {half}).")
    example = encoder.prompt(conversation, reserve=min(sampling.max_new_tokens + len(prefix_ids), half))
    next_type = example.types[-1] if example.types else None
    types = None
    if example.types is not None and next_type is not None:
        types = example.types + [next_type] * len(prefix_ids)
    ids = example.ids + prefix_ids
    request = Request(ids, types, next_type, sampling, encoder.end_ids, encoder.suppressed_ids, sampling.max_new_tokens)
    return example, request


def _replace_lone_surrogates(conversation: Conversation) -> Conversation:
    """The same conversation without halves of surrogate pairs, which no tokenizer accepts."""
    messages = (replace(one, text=_without_lone_surrogates(one.text)) for one in conversation.messages)
    return Conversation(tuple(messages))


def _without_lone_surrogates(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
