"""The Chat tab: a session with the model in use, and how its replies are drawn.

The conversation is each visitor's own and stays on the server as it was typed; the page gets a copy to show.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import gradio as gr

from chat_app.config.loading import LoadConfig
from chat_app.config.sampling import SamplingConfig
from chat_app.errors import ChatAppError, ModelError
from chat_app.inference.backend import QueuePosition, ReplyEnd, ReplyRequest
from chat_app.services import Services
from chat_app.ui.chat.answer_switch import AnswerSwitch, describe_quote
from chat_app.ui.chat.corrections_panel import CorrectionsPanel
from chat_app.ui.chat.memorization_marks import MemorizationMarks
from chat_app.ui.chat.session import ChatSession, ChatTurn, check_length, make_rows
from chat_app.ui.chat.streaming import SECONDS_TO_FOLLOW, LiveReplies, LiveReply, RedrawThrottle
from chat_app.ui.components import formatting
from chat_app.ui.components.conversation_view import make_conversation_view, make_view_value
from chat_app.ui.components.escape import clean_text, escape, warn
from chat_app.ui.components.events import QUICK, Updates, limit_concurrency, listen_for_choice, read_payload
from chat_app.ui.components.settings_form import SettingsForm
from chat_app.ui.models import model_choices
from chat_app.ui.visitor import Visitors

LOGGER = logging.getLogger(__name__)
MAX_CONCURRENT_REPLIES = 24
MAX_NAME_LENGTH = 64
MAIN_SETTINGS = ("temperature", "top_p", "max_new_tokens")
END_REASONS = {
    "length": "It reached the longest length allowed.",
    "window": "Its memory is full.",
    "cancelled": "You stopped it.",
    "time": "It took too long.",
}


class ChatTab:
    """The components of the tab and their handlers.

    Args:
        services: the model in use.
        visitors: tells who calls.
        token: the component that keeps the visitor's token.
        live: where pages follow their replies.
    """

    def __init__(self, services: Services, visitors: Visitors, token: Any, live: LiveReplies):
        self.services, self.visitors, self.token, self.live = services, visitors, token, live
        self.sampling = SettingsForm(SamplingConfig)
        self.marks = MemorizationMarks(services, visitors, token)
        self.answers = AnswerSwitch(services, visitors, token)
        self.corrections = CorrectionsPanel(services, visitors, token)

    def draw(self) -> None:
        """Create the components in the current Gradio context."""
        self.session = gr.State(ChatSession(answers=self.services.rules.answers))
        with gr.Row(elem_classes=["chat-row"]):
            with gr.Column(scale=7, min_width=320, elem_classes=["chat-main"]):
                self.view = make_conversation_view(
                    self.show(ChatSession()), label="Conversation", elem_id="conversation", has_box=True
                )
            with gr.Column(scale=3, min_width=300, elem_classes=["chat-side"]):
                self._draw_side()
        # Ticks only while no model is loaded, for example on a page that was opened before the server had loaded one.
        self.waiting = gr.Timer(2, active=False)
        self._connect()

    def _draw_side(self) -> None:
        is_shared = self.services.rules.is_shared
        self.picker = gr.Dropdown([], label="Model", elem_id="chat-model", visible=not is_shared, filterable=False)
        # The model that the picker was filled with. The page sends both together, so they always fit each other.
        self.shown_model = gr.Textbox(visible="hidden", elem_id="chat-model-shown")
        self.about = gr.HTML("", elem_id="chat-model-about", apply_default_css=False)
        self.clear = gr.Button("New conversation", size="md", elem_id="clear")
        self.answers.draw()
        self.marks.draw()
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
            self.sampling.draw(MAIN_SETTINGS)
            with gr.Accordion("Advanced", open=False, elem_id="sampling-advanced"):
                self.sampling.draw()
            self.defaults = gr.Button("Back to defaults", size="sm", elem_id="sampling-defaults")

    def _connect(self) -> None:
        settings = [self.system, *self.sampling.components]
        stream: dict[str, Any] = {
            "outputs": [self.view],
            "trigger_mode": "multiple",  # By default the page drops what comes before the end of the reply before.
            **limit_concurrency("reply", MAX_CONCURRENT_REPLIES),
        }
        replies = [
            self.view.say(self.say, [self.session, *settings], **stream),
            self.view.again(self.again, [self.session, *settings], **stream),
            self.view.edited(self.edit, [self.session, *settings], **stream),
        ]
        self.marks.connect(replies, self.session, self.view, self.show)
        self.answers.connect(self.session)
        self.corrections.connect(self.view, self.session, self.system, self.show)
        self.view.takeback(self.take_back, [self.session], [self.view], **QUICK)
        self.view.halt(self.stop, [self.session], None, **QUICK)
        self.clear.click(self.start_anew, [self.session], [self.view], **QUICK)
        self.defaults.click(self.sampling.get_defaults, None, self.sampling.components, **QUICK)
        self.waiting.tick(self.refresh, [self.session, self.token], self.parts, **QUICK)
        listen_for_choice(
            self.picker,
            self.pick,
            [self.picker, self.shown_model, self.session, self.token],
            self.parts,
            show_progress_on=[self.about],
            api_visibility="private",
            concurrency_limit=1,
            concurrency_id="model",
        )

    @property
    def parts(self) -> list[Any]:
        """The components that show which model is in use; `refresh` updates them."""
        return [
            self.picker,
            self.shown_model,
            self.about,
            self.waiting,
            self.answers.control,
            self.marks.switch,
            self.view,
        ]

    def refresh(self, session: ChatSession, token: str, request: gr.Request) -> Updates:
        """Show the model in use, and the conversation."""
        return {**self._show_model(session, self.visitors.identify(token, request)), self.view: self.show(session)}

    def show(self, session: ChatSession) -> dict[str, Any]:
        """Build the value of the view: the turns, the reply that is being generated, and the name of its stream.

        It is true at any moment, so every event may end on it, also one that is out of place by then.
        """
        version, writing = session.next_version(), session.writing
        loaded = self.services.find_backend(session.model)
        greeting = "Say hello, or try one of these:" if loaded else "No model is loaded. Choose one to begin."
        return make_view_value(
            make_rows(session.turns if writing is None else [*session.turns, writing], self.corrections.can_teach),
            is_busy=writing is not None,
            heard=session.heard,
            returned=session.returned,
            name=model_choices.name_speaker(self.services, loaded),
            greeting=greeting,
            hints=[] if session.turns else model_choices.suggest_openings(self.services, loaded),
            version=version,
            session=session.name,
            live=session.live,
        )

    def say(self, event: gr.EventData, session: ChatSession, system: str, *values: Any) -> Iterator[Updates]:
        """Answer a message from the box or a suggested one. One that has arrived before is only shown."""
        name = str(read_payload(event, "id") or "")[:MAX_NAME_LENGTH]
        if name and name == session.heard:
            yield {self.view: self.show(session)}
            return
        session.heard = name
        yield from self.send(read_payload(event, "text"), session, system, *values)

    def send(self, text: object, session: ChatSession, system: str, *values: Any) -> Iterator[Updates]:
        """Append the person's message and generate a reply."""
        before, said = list(session.turns), clean_text(text).strip()
        try:
            if said:
                session.say(said)
        except ChatAppError as error:
            warn(error)
            session.return_text(said, was_refused=True)
            said = ""
        if not said:
            yield {self.view: self.show(session)}
            return
        yield from self._answer(session, before, system, values, said)

    def again(self, event: gr.EventData, session: ChatSession, system: str, *values: Any) -> Iterator[Updates]:
        """Generate another reply in place of an earlier one."""
        before = list(session.turns)
        try:
            session.again(read_payload(event, "index"))
        except ChatAppError as error:
            warn(error)
            yield {self.view: self.show(session)}
            return
        yield from self._answer(session, before, system, values)

    def edit(self, event: gr.EventData, session: ChatSession, system: str, *values: Any) -> Iterator[Updates]:
        """Replace a message, which is then answered again, or the text of a reply."""
        before, text = list(session.turns), clean_text(read_payload(event, "text")).strip()
        try:
            needs_reply = session.change(read_payload(event, "index"), text)
        except ChatAppError as error:
            warn(error)
            needs_reply = False
        if needs_reply:
            yield from self._answer(session, before, system, values, text)
        else:
            yield {self.view: self.show(session)}

    def take_back(self, event: gr.EventData, session: ChatSession) -> Updates:
        """Undo an exchange. Its message returns to the box unless something is typed there already."""
        try:
            session.return_text(session.take_back(read_payload(event, "index")))
        except ChatAppError as error:
            warn(error)
        return {self.view: self.show(session)}

    def start_anew(self, session: ChatSession) -> Updates:
        """Begin a new conversation, and cancel the reply under way."""
        session.clear()
        return {self.view: self.show(session)}

    def stop(self, session: ChatSession) -> None:
        """Cancel the reply under way, and keep what was generated so far."""
        session.stop()

    def _answer(
        self, session: ChatSession, before: list[ChatTurn], system: str, values: tuple[Any, ...], said: str = ""
    ) -> Iterator[Updates]:
        """Generate a reply and show it as it grows. Whatever happens, the session stays and the box is ready again.

        Args:
            before: the turns to return to where the reply is refused.
            said: what the person said, to be said again in that case.
        """
        turn, is_refused = ChatTurn("assistant", ""), False
        cancel_event = session.begin_reply(turn)
        try:
            with self.live.open(turn) as live:
                session.live = live.name
                yield {self.view: self.show(session)}
                for _ in self._write(turn, session, cancel_event, live, system, values):
                    yield {self.view: self.show(session)}
        except ChatAppError as error:
            warn(error)
            turn.note = error.sentence() if turn.text else ""  # The notice goes away; why a reply is not whole stays.
            is_refused = not turn.text
        except Exception:  # The page's edge: one visitor's error must not look like a frozen page.
            LOGGER.exception("a reply failed")
            warn("The reply could not be written. Try again; the reason is in the log of this program.")
            is_refused = not turn.text
        finally:  # Also runs where the page was closed in the middle of a reply.
            if is_refused:
                session.refuse_reply(cancel_event, before, said)
            else:
                session.end_reply(cancel_event, turn)
        # Gradio sends the last value once more at the end, so it must be true, also of a reply that is out of place.
        yield {self.view: self.show(session)}

    def _write(
        self,
        turn: ChatTurn,
        session: ChatSession,
        cancel_event: threading.Event,
        live: LiveReply,
        system: str,
        values: tuple[Any, ...],
    ) -> Iterator[None]:
        """Fill `turn` with the reply. Each yield is a moment to draw it on a page that does not stream it."""
        sampling = self.sampling.parse(values)
        system = clean_text(system)
        check_length(system)
        loaded = self.services.find_backend() if session.model is None else self.services.models.guest(session.model)
        if loaded is None:
            raise ModelError("No model is loaded.", advice="Choose one on the Models page.")
        turn.model = loaded.name
        if loaded.description.is_reloading:
            turn.note = model_choices.RELOADING
            yield
        throttle = RedrawThrottle(first=SECONDS_TO_FOLLOW)
        loaded = self.answers.put_before(loaded, session)
        events = loaded.stream(ReplyRequest(session.build_conversation(system), sampling), cancel_event)
        try:
            for event in events:
                if isinstance(event, ReplyEnd):
                    turn.text, turn.is_quoted = event.text, event.quoted is not None
                    is_listed = turn.is_quoted or (session.answers == "only" and event.reply_tokens == 0)
                    turn.note = describe_quote(event, session.turns) if is_listed else describe_end(event)
                    return
                if session.cancel_event is not cancel_event:
                    return
                if isinstance(event, QueuePosition):
                    turn.note = f"Many people are chatting: number {event.position} in the queue."
                    yield
                    continue
                has_waited = bool(turn.note)  # Only an update through Gradio removes the note about the queue.
                turn.text, turn.note = turn.text + event.text, ""
                if has_waited or (throttle.is_due() and not live.is_read):
                    yield
                    throttle.record_draw()
        finally:
            events.close()

    def pick(
        self, name: str | None, shown_model: str, session: ChatSession, token: str, request: gr.Request
    ) -> Updates:
        """Load the model that was chosen. The session stays.

        Args:
            name: what the picker holds.
            shown_model: what the picker was filled with. If it holds the same, the choice did not change. If
                another model answers by now, the page is out of date, and is all that changes.
        """
        now = model_choices.get_answering_model(self.services, session.model) or ""
        try:
            visitor = self.visitors.identify(token, request)
        except ChatAppError as error:
            warn(error)
            return {self.picker: gr.skip()}
        if name and name == shown_model == now:
            return {self.picker: gr.skip()}
        if not name or name in (shown_model, now):
            return self.refresh(session, token, request)
        try:
            self._check_choice(name, shown_model, now, session, visitor)
            self.choose(name, session, visitor)
        except ChatAppError as error:
            warn(error)
        return self.refresh(session, token, request)

    def _check_choice(self, name: str, shown_model: str, now: str, session: ChatSession, visitor: str) -> None:
        """Check that the page knew which model answers, and that the chosen one is offered.

        Raises:
            ModelError: it was not.
        """
        if shown_model != now:
            raise ModelError("Another model was loaded meanwhile.", advice="Choose again, if you still want to.")
        if name not in [
            offered for _, offered in model_choices.list_chat_models(self.services, visitor, session.model)
        ]:
            raise ModelError("This model is no longer here.", advice="Choose one from the list.")

    def choose(self, name: object, session: ChatSession, visitor: str) -> None:
        """Let another model answer: for all visitors, or on a shared server for this visitor only.

        Raises:
            ModelError, RunError: it cannot be loaded, or is not this visitor's.
        """
        if name == model_choices.REMOTE and self.services.remote is not None and not self.services.rules.is_shared:
            self.services.models.unload()
        elif not self.services.rules.is_shared:
            self.services.models.use(model_choices.check_allowed(self.services, visitor, name), LoadConfig())
        elif name == model_choices.IN_USE:
            session.model = None
        else:
            model = self.services.find_model(visitor, str(name))
            self.services.models.guest(model)
            session.model = model

    def _show_model(self, session: ChatSession, visitor: str) -> Updates:
        """Show which model answers. While none is loaded, a timer refreshes the page."""
        loaded = self.services.find_backend(session.model)
        rows = model_choices.list_chat_models(self.services, visitor, session.model)
        now = model_choices.get_answering_model(self.services, session.model)
        return {
            self.picker: gr.Dropdown(choices=rows, value=now),
            self.shown_model: now or "",
            self.about: f'<p class="quiet">{escape(model_choices.describe_model(loaded))}</p>',
            self.waiting: gr.Timer(active=loaded is None and session.model is None),
            self.answers.control: self.answers.update(self.services.models.here(session.model), visitor),
            self.marks.switch: self.marks.update_switch(self.services.models.here(session.model), visitor),
        }


def describe_end(end: ReplyEnd) -> str:
    """Write the quiet line under a finished reply."""
    return formatting.describe_reply(
        end.reply_tokens,
        end.tokens_per_second,
        end.prompt_tokens + end.reply_tokens,
        end.window,
        end.dropped_turns,
        end.cut_tokens,
        END_REASONS.get(end.reason, ""),
    )
