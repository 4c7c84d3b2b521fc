"""The chat: a conversation with the model in use, and how its replies are drawn.

The conversation is each visitor's own and stays on the server as it was typed; the page gets a copy to show.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import gradio as gr

from chat_app.config import LoadConfig, SamplingConfig
from chat_app.errors import ChatAppError, ModelError
from chat_app.services import Services
from chat_app.ui import model_choices, words
from chat_app.ui.controls import Controls
from chat_app.ui.copied import CopiedMarks
from chat_app.ui.corrections_panel import CorrectionsPanel
from chat_app.ui.escape import clean, shown, warn
from chat_app.ui.events import QUICK, given, listen_for_choice, slow
from chat_app.ui.live import SECONDS_TO_FOLLOW, Drawings, LiveReplies, LiveReply
from chat_app.ui.talk import Talk, Turn, check_length
from chat_app.ui.turns_view import rows_of, turns_value, turns_view
from chat_app.ui.visitor import Visitors

LOGGER = logging.getLogger(__name__)
CHATS_AT_ONCE = 24
IN_SIGHT = ("temperature", "top_p", "max_new_tokens")
ENDS = {
    "length": "It reached the longest length allowed.",
    "window": "Its memory is full.",
    "cancelled": "You stopped it.",
    "time": "It took too long.",
}
Parts = Iterator[tuple[Any, Any]]  # What to show of the conversation and of the box to type in.


class ChatTab:
    """The tab's components and what they do.

    Args:
        services: the model in use.
        visitors: tells who calls.
        token: the component that keeps the visitor's token.
        live: where pages follow their replies.
    """

    def __init__(self, services: Services, visitors: Visitors, token: Any, live: LiveReplies):
        self.services, self.visitors, self.token, self.live = services, visitors, token, live
        self.sampling = Controls(SamplingConfig)
        self.copied = CopiedMarks(services, visitors, token)
        self.corrections = CorrectionsPanel(services, visitors, token)

    def draw(self) -> None:
        """Put the components where the page is being built."""
        self.talk = gr.State(Talk())
        with gr.Row(elem_classes=["chat-row"]):
            with gr.Column(scale=7, min_width=320, elem_classes=["chat-main"]):
                self.view = turns_view(self.show(Talk()), label="Conversation", elem_id="conversation")
                self.box = gr.Textbox(
                    placeholder="Say something…",
                    lines=1,
                    max_lines=8,
                    show_label=False,
                    label="Your message",
                    container=False,
                    submit_btn="Send",
                    elem_id="message",
                    autofocus=True,
                )
            with gr.Column(scale=3, min_width=300, elem_classes=["chat-side"]):
                self._draw_side()
        # Ticks only while there is no model, such as when the page was opened before the server had loaded one.
        self.waiting = gr.Timer(2, active=False)
        self._connect()

    def _draw_side(self) -> None:
        is_shared = self.services.rules.is_shared
        self.picker = gr.Dropdown([], label="Model", elem_id="chat-model", visible=not is_shared, filterable=False)
        # What the picker was filled with. Both lie in the page, so they fit together whatever is still under way.
        self.shown_model = gr.Textbox(visible="hidden", elem_id="chat-model-shown")
        self.about = gr.HTML("", elem_id="chat-model-about", apply_default_css=False)
        self.clear = gr.Button("New conversation", size="md", elem_id="clear")
        self.copied.draw()
        self.corrections.draw()
        with gr.Accordion("Tell it who it is", open=False, elem_id="system-panel"):
            self.system = gr.Textbox(
                label="System text",
                info="Stands before the conversation. Models that were not taught with one may ignore it.",
                placeholder="You work in a tea shop and answer politely.",
                lines=3,
                max_lines=10,
                elem_id="system",
            )
        with gr.Accordion("How it answers", open=False, elem_id="sampling-panel"):
            self.sampling.draw(IN_SIGHT)
            with gr.Accordion("Advanced", open=False, elem_id="sampling-advanced"):
                self.sampling.draw()
            self.defaults = gr.Button("Back to defaults", size="sm", elem_id="sampling-defaults")

    def _connect(self) -> None:
        settings = [self.system, *self.sampling.components]
        stream: dict[str, Any] = {
            "outputs": [self.view, self.box],
            **slow("reply", CHATS_AT_ONCE),
        }
        replies = [
            self.box.submit(self.send, [self.box, self.talk, *settings], **stream),
            self.view.suggest(self.suggest, [self.talk, *settings], **stream),
            self.view.again(self.again, [self.talk, *settings], **stream),
            self.view.edited(self.edit, [self.talk, *settings], **stream),
        ]
        self.copied.connect(replies, self.talk, self.view, self.show)
        self.corrections.connect(self.view, self.talk, self.system, self.show)
        self.view.takeback(self.take_back, [self.talk, self.box], [self.view, self.box], **QUICK)
        self.box.stop(self.stop, [self.talk], None, **QUICK)
        self.clear.click(self.start_anew, [self.talk], [self.view, self.box], **QUICK)
        self.defaults.click(self.sampling.defaults, None, self.sampling.components, **QUICK)
        self.waiting.tick(self.look, [self.talk, self.token], self.parts, **QUICK)
        listen_for_choice(
            self.picker,
            self.pick,
            [self.picker, self.shown_model, self.talk, self.token],
            self.parts,
            show_progress_on=[self.about],
            api_visibility="private",
            concurrency_limit=1,
            concurrency_id="model",
        )

    @property
    def parts(self) -> list[Any]:
        """What shows which model is in use; `look` fills it."""
        return [self.picker, self.shown_model, self.about, self.waiting, self.copied.switch, self.view]

    def look(self, talk: Talk, token: str, request: gr.Request) -> tuple[Any, ...]:
        """The model in use, and the conversation unless a reply is being written."""
        view = gr.skip() if talk.writing is not None else self.show(talk)
        return *self._head(talk, token, request), view

    def show(self, talk: Talk, writing: Turn | None = None, live: LiveReply | None = None) -> dict[str, Any]:
        """The value of the view: the conversation, and the reply that is being written and where to follow it."""
        talk.shown += 1
        loaded = self.services.answering(talk.model)
        greeting = "Say hello, or try one of these:" if loaded else "No model is loaded. Choose one to begin."
        return turns_value(
            rows_of(talk.turns if writing is None else [*talk.turns, writing], self.corrections.can_teach),
            is_busy=writing is not None,
            name=model_choices.name_of(self.services, loaded),
            greeting=greeting,
            hints=[] if talk.turns else model_choices.hints(self.services, loaded),
            version=talk.shown,
            live=live.name if live is not None else "",
        )

    def send(self, text: str, talk: Talk, system: str, *values: Any) -> Parts:
        """The person says something; the model answers."""
        text = clean(text).strip()
        if not text:
            yield gr.skip(), gr.skip()
            return
        try:
            talk.say(text)
        except ChatAppError as error:
            warn(error)
            yield gr.skip(), gr.skip()
            return
        yield from self._answer(talk, system, values)

    def suggest(self, event: gr.EventData, talk: Talk, system: str, *values: Any) -> Parts:
        """The person takes one of the suggestions."""
        yield from self.send(given(event, "text"), talk, system, *values)

    def again(self, event: gr.EventData, talk: Talk, system: str, *values: Any) -> Parts:
        """The person wants another reply."""
        try:
            talk.again(given(event, "index"))
        except ChatAppError as error:
            warn(error)
            yield self.show(talk), gr.skip()
            return
        yield from self._answer(talk, system, values, clear_box=False)

    def edit(self, event: gr.EventData, talk: Talk, system: str, *values: Any) -> Parts:
        """The person says something otherwise, or puts words into the model's mouth."""
        try:
            needs_reply = talk.change(given(event, "index"), clean(given(event, "text")).strip())
        except ChatAppError as error:
            warn(error)
            needs_reply = False
        if needs_reply:
            yield from self._answer(talk, system, values, clear_box=False)
        else:
            yield self.show(talk), gr.skip()

    def take_back(self, event: gr.EventData, talk: Talk, typed: str) -> tuple[Any, Any]:
        """The last exchange goes; what the person had said is in the box again, unless something stands there."""
        try:
            text = talk.take_back(given(event, "index"))
        except ChatAppError as error:
            warn(error)
            return self.show(talk), gr.skip()
        return self.show(talk), _box_ready(text) if text and not clean(typed).strip() else _box_ready()

    def start_anew(self, talk: Talk) -> tuple[Any, Any]:
        """Forget the conversation; a reply under way has no place any more."""
        talk.clear()
        return self.show(talk), _box_ready()

    def stop(self, talk: Talk) -> None:
        """End the reply under way; what there is of it stays."""
        talk.stop()

    def _answer(self, talk: Talk, system: str, values: tuple[Any, ...], clear_box: bool = True) -> Parts:
        """Show the reply as it comes. Whatever happens, the conversation stays and the box is ready again."""
        ticket, turn = talk.begin_reply(), Turn("assistant", "")
        box = gr.update(submit_btn=False, stop_btn="Stop")
        if clear_box:
            box["value"] = ""
        is_current = False
        try:
            with self.live.of(turn) as live:
                yield self.show(talk, turn, live), box
                for _ in self._write(turn, talk, ticket, live, system, values):
                    yield self.show(talk, turn, live), gr.skip()
        except ChatAppError as error:
            warn(error)
        except Exception:  # The page's edge: one visitor's error must not look like a frozen page.
            LOGGER.exception("a reply failed")
            warn("The reply could not be written. Try again; the reason is in the log of this program.")
        finally:  # Also where the page was closed in the middle.
            is_current = talk.end_reply(ticket, turn)
        if is_current:
            yield self.show(talk), _box_ready()

    def _write(
        self,
        turn: Turn,
        talk: Talk,
        ticket: threading.Event,
        live: LiveReply,
        system: str,
        values: tuple[Any, ...],
    ) -> Iterator[None]:
        """Fill `turn` with the reply; each yield is a moment to draw it, where the page does not follow by itself."""
        from chat_app.chat import ReplyEnd, follow_reply
        from chat_app.request import Waiting

        sampling = self.sampling.settings(values)
        system = clean(system)
        check_length(system)
        loaded = self.services.answering() if talk.model is None else self.services.models.guest(talk.model)
        if loaded is None:
            raise ModelError("No model is loaded.", advice="Choose one on the Models page.")
        turn.model = loaded.name
        drawings = Drawings(first=SECONDS_TO_FOLLOW)
        parts = follow_reply(loaded, talk.conversation(system), sampling, stopped=ticket)
        try:
            for part in parts:
                if isinstance(part, ReplyEnd):
                    turn.text, turn.note = part.text, note_of(part)
                    return
                if talk.writing is not ticket:
                    return
                if isinstance(part, Waiting):
                    turn.note = f"Many people are chatting: number {part.place} in the queue."
                    yield
                    continue
                has_waited = bool(turn.note)  # What was said of the queue, only Gradio takes away.
                turn.text, turn.note = turn.text + part, ""
                if has_waited or (drawings.is_due() and not live.is_read):
                    yield
                    drawings.drawn()
        finally:
            parts.close()

    def pick(self, name: str | None, shown_model: str, talk: Talk, token: str, request: gr.Request) -> tuple[Any, ...]:
        """Load the model that was chosen; the conversation stays.

        Args:
            name: what the picker holds.
            shown_model: what the picker was filled with. If it holds the same, nobody has chosen anything; if another
                model answers by now, the choice was made from a page that is out of date, and only the page changes.
        """
        now = model_choices.talker(self.services, talk.model) or ""
        try:
            visitor = self.visitors.name(token, request)
        except ChatAppError as error:
            warn(error)
            return (gr.skip(),) * len(self.parts)
        if name and name == shown_model == now:
            return (gr.skip(),) * len(self.parts)
        if not name or name in (shown_model, now):
            return self.look(talk, token, request)
        try:
            self._check_choice(name, shown_model, now, talk, visitor)
            self.choose(name, talk, visitor)
        except ChatAppError as error:
            warn(error)
        return self.look(talk, token, request)

    def _check_choice(self, name: str, shown_model: str, now: str, talk: Talk, visitor: str) -> None:
        """Whether a choice was made from the models that are here, by somebody who knew which one answers.

        Raises:
            ModelError: it was not.
        """
        if shown_model != now:
            raise ModelError("Another model was loaded meanwhile.", advice="Choose again, if you still want to.")
        if name not in [offered for _, offered in model_choices.talkers(self.services, visitor, talk.model)]:
            raise ModelError("This model is no longer here.", advice="Choose one from the list.")

    def choose(self, name: object, talk: Talk, visitor: str) -> None:
        """Let another model answer: everybody, or on a shared server this visitor only.

        Raises:
            ModelError, RunError: it cannot be loaded, or is not this visitor's.
        """
        if name == model_choices.ENGINE and self.services.remote is not None and not self.services.rules.is_shared:
            self.services.models.unload()
        elif not self.services.rules.is_shared:
            self.services.models.use(model_choices.check_allowed(self.services, visitor, name), LoadConfig())
        elif name == model_choices.IN_USE:
            talk.model = None
        else:
            model = self.services.model_of(visitor, str(name))
            self.services.models.guest(model)
            talk.model = model

    def _head(self, talk: Talk, token: str, request: gr.Request) -> tuple[Any, ...]:
        """The picker and its value, the line about the model, whether to look for one again, the switch for copies."""
        loaded = self.services.answering(talk.model)
        here = self.services.models.here(talk.model)
        line = f'<p class="quiet">{shown(model_choices.describe(loaded))}</p>'
        timer = gr.Timer(active=loaded is None and talk.model is None)
        visitor = self.visitors.name(token, request)
        rows = model_choices.talkers(self.services, visitor, talk.model)
        now = model_choices.talker(self.services, talk.model)
        picker = gr.Dropdown(choices=rows, value=now)
        return picker, now or "", line, timer, self.copied.visible(here, visitor)


def note_of(end: Any) -> str:
    """The quiet line under a finished reply."""
    return words.reply_note(
        end.reply_tokens,
        end.tokens_per_second,
        end.prompt_tokens + end.reply_tokens,
        end.window,
        end.dropped_turns,
        end.cut_tokens,
        ENDS.get(end.reason, ""),
    )


def _box_ready(text: str | None = None) -> Any:
    box = gr.update(submit_btn="Send", stop_btn=False)
    if text is not None:
        box["value"] = text
    return box
