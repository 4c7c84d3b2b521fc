"""The whole page: a header, four tabs, and the events that concern more than one tab."""

from __future__ import annotations

from typing import Any

import gradio as gr

from chat_app.errors import ChatAppError
from chat_app.runs.run import Run
from chat_app.services import Services
from chat_app.ui.chat.session import ChatSession
from chat_app.ui.chat.streaming import LiveReplies
from chat_app.ui.chat.tab import ChatTab
from chat_app.ui.components.escape import escape, warn
from chat_app.ui.components.events import QUICK, Updates
from chat_app.ui.components.theme import ASSETS, TITLE
from chat_app.ui.evaluation.tab import EvaluateTab
from chat_app.ui.models.tab import ModelsTab, render_card
from chat_app.ui.training.tab import TeachTab
from chat_app.ui.visitor import STORAGE_KEY, Visitors

CACHE_SECONDS = (3600, 6 * 3600)  # Every hour Gradio deletes uploads older than six hours.
SECONDS_BETWEEN_QUEUE_CHECKS = 0.02  # A click waits at most this long for the queue.
CHAT, TEACH, EVALUATE, MODELS = "chat", "teach", "evaluate", "models"


def build_page(services: Services, live: LiveReplies) -> gr.Blocks:
    """The page of a server, to be launched or mounted with `theme.page_arguments()`.

    Args:
        services: the product behind it; the page is given nothing else.
        live: where the page follows replies that are being written; the server has its route.
    """
    page = gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=CACHE_SECONDS, fill_width=True)
    with page:
        _Page(services, live).draw(page)
    page.queue(api_open=False, max_size=256)
    # By default Gradio polls its queue a thousand times a second, which costs the engine a tenth of a processor core.
    page._queue.sleep_when_free = SECONDS_BETWEEN_QUEUE_CHECKS
    page._queue.progress_update_sleep_when_free = 1.0  # Nothing here shows Gradio's own progress.
    return page


class _Page:
    def __init__(self, services: Services, live: LiveReplies):
        self.services, self.live = services, live
        self.visitors = Visitors(services)

    def draw(self, page: gr.Blocks) -> None:
        # The secret below only hides the token from a glance; the token is trusted because of its signature.
        self.token = gr.BrowserState("", storage_key=STORAGE_KEY, secret=TITLE)
        self.chat = ChatTab(self.services, self.visitors, self.token, self.live)
        self.teach = TeachTab(self.services, self.visitors, self.token)
        self.evaluate = EvaluateTab(self.services, self.visitors, self.token)
        self.models = ModelsTab(self.services, self.visitors, self.token)
        gr.HTML(_render_header(self.services), elem_id="header", apply_default_css=False)
        with gr.Tabs(elem_id="tabs") as self.tabs:
            with gr.Tab("Chat", id=CHAT) as chat:
                self.chat.draw()
            with gr.Tab("Teach", id=TEACH, render_children=True) as teach:
                self.teach.draw(self.chat_with, [self.tabs, *self.chat.parts], self.chat.session)
            with gr.Tab("Evaluate", id=EVALUATE, render_children=True) as evaluate:
                self.evaluate.draw()
            with gr.Tab("Models", id=MODELS, render_children=True) as models:
                self.models.draw()
        self.models.connect()
        self._connect(page, chat, teach, evaluate, models)

    def _connect(self, page: gr.Blocks, chat: gr.Tab, teach: gr.Tab, evaluate: gr.Tab, models: gr.Tab) -> None:
        page.load(self.visitors.issue, [self.token], [self.token], **QUICK).then(
            self.open, [self.token, self.chat.session], [*self.chat.parts, *self.teach.runs.outputs], **QUICK
        ).then(self.chat.corrections.refresh, [self.token], self.chat.corrections.outputs, **QUICK)
        self.chat.corrections.connect_teaching(self.chat.session, self.watch, [self.tabs, *self.teach.runs.outputs])
        chat.select(self.chat.refresh, [self.chat.session, self.token], self.chat.parts, **QUICK)
        teach.select(self.show_teach_tab, [self.token, self.teach.model], [self.teach.model], **QUICK)
        evaluate.select(self.evaluate.refresh, self.evaluate.chosen, self.evaluate.outputs, **QUICK)
        models.select(
            self.show_models_tab, [self.token], [self.models.card, self.models.name, self.models.cancel], **QUICK
        ).then(self.models.show_estimate, **self.models.estimate_event)

    def open(self, token: str, session: ChatSession, request: gr.Request) -> Updates:
        """Fill a page that was opened or reloaded, from the disk and the server."""
        try:
            visitor = self.visitors.identify(token, request)
        except ChatAppError as error:
            warn(error)
            return {self.chat.view: gr.skip()}
        return self.chat.refresh(session, token, request) | self.teach.runs.open(visitor)

    def watch(self, run: Run, visitor: str) -> Updates:
        """Switch to the Teach tab and show a run that has just been queued."""
        return {self.tabs: gr.Tabs(selected=TEACH)} | self.teach.runs.show(run, self.services.list_runs(visitor))

    def show_teach_tab(self, token: str, chosen: str, request: gr.Request) -> Any:
        """Refresh the list of models to start from."""
        try:
            return self.teach.update_models(self.visitors.identify(token, request), chosen)
        except ChatAppError:
            return gr.skip()

    def show_models_tab(self, token: str, request: gr.Request) -> Updates:
        """Refresh the model in use and the list of models that are here."""
        try:
            names = self.models.update_names(self.visitors.identify(token, request))
        except ChatAppError:
            names = gr.skip()
        is_loading = self.services.models.loading is not None and not self.services.rules.is_shared
        cancel = gr.Button(visible=is_loading)  # Also on a page that was opened meanwhile.
        return {self.models.card: render_card(self.services), self.models.name: names, self.models.cancel: cancel}

    def chat_with(self, name: str, token: str, session: ChatSession, request: gr.Request) -> Updates:
        """Load the model of a run, begin a new conversation, and go to it."""
        tabs = gr.skip()
        try:
            visitor = self.visitors.identify(token, request)
            self.chat.choose(self.services.find_model(visitor, str(name)), session, visitor)
            session.clear()
            tabs = gr.Tabs(selected=CHAT)
        except ChatAppError as error:
            warn(error)
        return {self.tabs: tabs} | self.chat.refresh(session, token, request)


def _render_header(services: Services) -> str:
    logo = (ASSETS / "logo.svg").read_text(encoding="utf-8")
    where = "on this server" if services.rules.is_shared else "on this computer"
    about = f"Talk with a small model, teach it from your own conversations, and watch it learn, all {where}."
    if services.remote is not None:
        host = services.remote.description.host
        about = f"Talk with the model of {host}; teach a small one, and watch it learn, {where}."
    return f'<header class="top">{logo}<div><h1>{TITLE}</h1><p>{escape(about)}</p></div></header>'
