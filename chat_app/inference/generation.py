"""A conversation and a loaded model -> the reply, as text that grows.

What is shown never has half a character, a special token, or a stop text in it; the deltas joined are exactly the final
text. Knows no page and no files.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

from chat_app.config.sampling import SamplingConfig
from chat_app.conversation import Conversation
from chat_app.errors import DataError
from chat_app.inference.engine import write
from chat_app.inference.logprobs import Notes, TokenTexts
from chat_app.inference.model_manager import LoadedModel
from chat_app.inference.outputs import Reason, ReplyEnd, Scored, TokenLogprob
from chat_app.inference.remote.backend import RemoteModel
from chat_app.inference.request import Request, Waiting
from chat_app.tokenization.encoder import Encoder, Example

_BROKEN = "\ufffd"  # What decoding gives for bytes that are no character, or not yet one.


def stream_reply(
    loaded: LoadedModel | RemoteModel,
    conversation: Conversation,
    sampling: SamplingConfig,
    prefix: str = "",
    stopped: threading.Event | None = None,
    logprobs: int | None = None,
) -> Generator[str | ReplyEnd, None, None]:
    """The assistant's next turn: pieces of text, then exactly one ReplyEnd. Closing the generator frees the engine.

    Args:
        conversation: ends with a turn of the user.
        prefix: how the reply must begin.
        stopped: set from another thread, it ends the reply where it is; the ReplyEnd still comes.
        logprobs: tell of each token how likely it was, and so many of the likeliest in its place: the pieces are
            `Scored` then.

    Raises:
        DataError: the conversation does not end with the user, or leaves no room for a reply.
        BusyError: too many people are waiting.
        ChatAppError: the model failed or was unloaded.
    """
    with contextlib.closing(follow_reply(loaded, conversation, sampling, prefix, stopped, logprobs)) as items:
        for item in items:
            if not isinstance(item, Waiting):
                yield item


def follow_reply(
    loaded: LoadedModel | RemoteModel,
    conversation: Conversation,
    sampling: SamplingConfig,
    prefix: str = "",
    stopped: threading.Event | None = None,
    logprobs: int | None = None,
) -> Generator[str | Waiting | ReplyEnd, None, None]:
    """As stream_reply; while others come first, also the place in the queue, whenever it changes."""
    if isinstance(loaded, RemoteModel):
        yield from loaded.follow(conversation, sampling, prefix, stopped, logprobs)
        return
    started = time.perf_counter()
    first = 0.0
    example, request = _request(loaded.encoder, conversation, sampling, prefix)
    unknown = range(len(loaded.tokenizer), loaded.engine.vocabulary)
    notes = Notes(logprobs) if logprobs is not None else None
    request = replace(request, silent_ids=request.silent_ids.union(unknown), notes=notes)
    scores = _Scores(loaded.tokenizer, notes)
    text = _ReplyText(loaded.tokenizer, sampling.stop, request.ids[len(example.ids) :])
    reason: Reason = "window" if request.max_new_tokens < sampling.max_new_tokens else "length"
    reply_tokens = 0
    tokens = loaded.engine.follow(request, stopped)
    try:
        if beginning := text.begin():
            yield beginning
        for token in tokens:
            if isinstance(token, Waiting):
                yield token
                continue
            first = first or time.perf_counter() - started
            if token in request.end_ids:
                reason = "end"
                break
            reply_tokens += 1
            if delta := scores.added(text.add(token), token):
                yield delta
            if text.is_stopped:
                reason = "stop"
                break
        else:
            if reply_tokens < request.max_new_tokens:
                reason = "cancelled" if stopped is not None and stopped.is_set() else "time"
    finally:
        tokens.close()
    if delta := scores.added(text.finish()):
        yield delta
    seconds = time.perf_counter() - started
    yield ReplyEnd(
        text.text,
        reason,
        reply_tokens,
        len(request.ids),
        loaded.engine.window,
        seconds,
        first or seconds,
        example.dropped_turns,
        example.cut_tokens,
    )


def reply(
    loaded: LoadedModel | RemoteModel, conversation: Conversation, sampling: SamplingConfig, prefix: str = ""
) -> ReplyEnd:
    """The assistant's next turn, at once.

    Raises:
        As stream_reply.
    """
    *_, end = stream_reply(loaded, conversation, sampling, prefix)
    assert isinstance(end, ReplyEnd)
    return end


def likeliest_reply(model: Any, encoder: Encoder, conversation: Conversation, max_new_tokens: int) -> str:
    """What a model would most likely answer; for models without an engine, such as one that is being trained.

    Raises:
        DataError: as stream_reply.
    """
    greedy = SamplingConfig(temperature=0, repetition_penalty=1, max_new_tokens=max_new_tokens)
    return reply_without_engine(model, encoder, conversation, greedy)


def reply_without_engine(model: Any, encoder: Encoder, conversation: Conversation, sampling: SamplingConfig) -> str:
    """The reply of a model that has no engine, in this thread; stop texts are not looked for.

    Raises:
        DataError: as stream_reply.
    """
    _, request = _request(encoder, conversation, sampling, "")
    text = _ReplyText(encoder.tokenizer, (), [])
    for token in write(model, request, encoder.window):
        if token not in request.end_ids:
            text.add(token)
    text.finish()
    return text.text


def _request(
    encoder: Encoder, conversation: Conversation, sampling: SamplingConfig, prefix: str
) -> tuple[Example, Request]:
    """The prompt, and what the engine is to do with it."""
    if conversation.turns[-1].role != "user":
        raise DataError("The last turn is the assistant's.", advice="Say something first.")
    conversation = _whole_characters(conversation)
    if sampling.remembered_turns:
        conversation = conversation.latest(sampling.remembered_turns)
    beginning = encoder.text_ids(_whole(prefix).strip()) if prefix.strip() else []
    half = encoder.window // 2
    if len(beginning) >= half:
        raise DataError(f"The beginning of the reply is too long ({len(beginning)} tokens of {half}).")
    example = encoder.prompt(conversation, reserve=min(sampling.max_new_tokens + len(beginning), half))
    next_type = example.types[-1] if example.types else None
    types = None
    if example.types is not None and next_type is not None:
        types = example.types + [next_type] * len(beginning)
    ids = example.ids + beginning
    longest = min(sampling.max_new_tokens, encoder.window - len(ids))
    request = Request(ids, types, next_type, sampling, encoder.end_ids, encoder.silent_ids, longest)
    return example, request


def _whole_characters(conversation: Conversation) -> Conversation:
    """The same conversation without halves of surrogate pairs, which no tokenizer takes."""
    return Conversation(tuple(replace(message, text=_whole(message.text)) for message in conversation.messages))


def _whole(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class _Scores:
    """Puts tokens beside the text that they make, if somebody asked for notes of them.

    Tokens whose text is never shown, such as a stop text's, are not told of.
    """

    def __init__(self, tokenizer: Any, notes: Notes | None):
        self._notes = notes
        self._texts = TokenTexts(tokenizer) if notes is not None else None
        self._held: list[TokenLogprob] = []

    def added(self, delta: str, token: int | None = None) -> str:
        """The text that a token adds, with all tokens whose text had been held back; at the end without a token."""
        if self._notes is None or self._texts is None:
            return delta
        if token is not None:
            self._held.append(self._texts.told(token, self._notes.take()))
        if not delta:
            return ""
        held, self._held = self._held, []
        return Scored.of(delta, held)


class _ReplyText:
    """Tokens -> text that may be shown.

    Args:
        tokenizer: decodes.
        stop: texts before which the reply ends.
        beginning: tokens that the reply starts with.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str], beginning: list[int]):
        self.text = ""
        self.is_stopped = False
        self._tokenizer = tokenizer
        self._stop = stop
        self._ids = list(beginning)
        # Decoded are ids[context:read]; a token's text can depend on the one before it, hence the context.
        self._context, self._read = 0, len(beginning)
        self._held = ""  # May be the beginning of a stop text.
        self._space = ""  # White space that belongs to the reply only if something follows.

    def begin(self) -> str:
        """The text that the reply was given to start with."""
        return self._shown(self._decoded(self._ids))

    def add(self, token: int) -> str:
        """One more token. What it adds for certain to the text, which may be nothing yet."""
        self._ids.append(token)
        before = self._decoded(self._ids[self._context : self._read])
        after = self._decoded(self._ids[self._context :])
        if after.endswith(_BROKEN) or len(after) <= len(before):
            return ""  # Half a character, or nothing.
        self._context, self._read = self._read, len(self._ids)
        return self._shown(self._without_stop(after[len(before) :].replace(_BROKEN, "")))

    def finish(self) -> str:
        """The reply has ended: what was held back and is no stop text. An unfinished character is dropped."""
        if self.is_stopped:
            return ""
        before = self._decoded(self._ids[self._context : self._read])
        rest = self._decoded(self._ids[self._context :])[len(before) :].replace(_BROKEN, "")
        rest = self._without_stop(rest)
        if not self.is_stopped:
            rest, self._held = rest + self._held, ""
        return self._shown(rest)

    def _decoded(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _without_stop(self, more: str) -> str:
        """What is certain to stand before any stop text; the rest is held back."""
        pending = self._held + more
        found = [(at + len(stop), at) for stop in self._stop if (at := pending.find(stop)) >= 0]
        if found:  # The first that is complete counts, however the text was cut into tokens.
            self.is_stopped, self._held = True, ""
            return pending[: min(found)[1]]
        begun = max((_overlap(pending, stop) for stop in self._stop), default=0)
        self._held = pending[len(pending) - begun :]
        return pending[: len(pending) - begun]

    def _shown(self, more: str) -> str:
        """Without white space at the beginning and, as far as is known, at the end."""
        pending = self._space + more
        if not self.text:
            pending = pending.lstrip()
        shown = pending.rstrip()
        self._space = pending[len(shown) :]
        self.text += shown
        return shown


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` with which `stop` begins, short of all of it."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)
