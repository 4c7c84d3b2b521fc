"""The blind duel: two models answer the same questions, the person votes without knowing which is which.

The duel stays on the server; the page is given one card at a time, without names, until the end.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from chat_app.config.sampling import SamplingConfig
from chat_app.conversation import Conversation
from chat_app.errors import DataError
from chat_app.evaluation.blind_test import Card, Duel, Score, Vote
from chat_app.evaluation.runner import extract_prompts, generate_replies
from chat_app.system.progress import ProgressCallback, add_prefix
from chat_app.ui.chat.session import check_length
from chat_app.ui.components import formatting as words
from chat_app.ui.components.escape import clean, shown, warn
from chat_app.ui.components.events import QUICK, Updates
from chat_app.ui.evaluation.panel import Choice, EvaluationPanel
from chat_app.ui.evaluation.subjects import Subject, whole

QUESTIONS, MOST_QUESTIONS = 10, 50
SAMPLING = SamplingConfig(seed=1, max_new_tokens=64)
LIKED = ' class="liked" title="You liked this one"'
VOTES: tuple[tuple[str, Vote, str], ...] = (
    ("A is better", "first", "duel-first"),
    ("The same", "tie", "duel-tie"),
    ("B is better", "second", "duel-second"),
)


@dataclass(frozen=True)
class Contest:
    """A duel under way, and who takes part in it: the model to judge, and the one before."""

    duel: Duel
    after: str
    before: str

    def score(self) -> Score:
        """How it stands."""
        return self.duel.score(f"“{self.after}”", f"“{self.before}”")


class DuelPanel(EvaluationPanel):
    """Lets both models answer the same questions, and the person vote."""

    title = "Blind duel"
    about = """Numbers are not taste. Both models answer the same questions; you say which answer you like
better, without knowing whose it is. At the end you see who won, and how sure that is."""

    def draw_controls(self) -> None:
        """The questions, the button that begins, the card and the buttons that vote."""
        self.contest = gr.State(None)
        self.typed = gr.Textbox(
            label="Your own questions, one a line",
            info="Without any, the openings of the chosen conversations are asked.",
            lines=2,
            max_lines=8,
            elem_id="duel-typed",
        )
        self.count = gr.Slider(
            2, MOST_QUESTIONS, value=QUESTIONS, step=1, label="Questions at most", elem_id="duel-count"
        )
        self.start = gr.Button("Begin the duel", variant="primary", size="md", elem_id="duel-start")
        self.card = gr.HTML("", elem_id="duel-card", apply_default_css=False)
        with gr.Row(visible=False, elem_classes=["vote-row"], elem_id="duel-votes") as self.voting:
            self.buttons = [
                (gr.Button(label, size="md", elem_id=name, min_width=100), vote) for label, vote, name in VOTES
            ]
        with gr.Row(visible=False, elem_classes=["vote-row"]) as self.leaving:
            self.back = gr.Button("Take the last vote back", size="sm", elem_id="duel-back", min_width=150)
            self.end = gr.Button("End here and show who won", size="sm", elem_id="duel-end", min_width=170)

    @property
    def settings(self) -> list[Any]:
        """The questions that were typed, and how many are asked at most."""
        return [self.typed, self.count]

    @property
    def results(self) -> list[Any]:
        """The contest, and what shows it."""
        return [self.contest, *self.views]

    @property
    def views(self) -> list[Any]:
        """The components that show how the contest stands."""
        return [self.card, self.voting, self.leaving]

    def connect(self, choice: list[Any], long: dict[str, Any]) -> Any:
        """Join the events, those of the votes among them."""
        for button, vote in self.buttons:
            button.click(self.voter(vote), [self.contest], self.views, **QUICK)
        self.back.click(self.take_back, [self.contest], self.views, **QUICK)
        self.end.click(self.finish, [self.contest], self.views, **QUICK)
        return super().connect(choice, long)

    def prepare(self, choice: Choice, *settings: Any) -> Callable[[ProgressCallback], Updates]:
        """Find both models and what they are asked."""
        typed, count = settings
        bench, visitor = self.bench, choice.visitor
        subject, earlier = bench.subject(choice.after, visitor), bench.earlier(choice.before, choice.after, visitor)
        if earlier is None or earlier.name == subject.name:
            raise DataError("A duel needs two models.", advice="Choose another one under “Compared with”.")
        most = whole(count, 2, MOST_QUESTIONS, "questions can be asked")
        own = questions(typed, most)
        read = None if own else bench.conversations(choice.source, choice.after, choice.files, visitor)[0]

        def answer(progress: ProgressCallback) -> Updates:
            prompts = own if read is None else extract_prompts(read(progress), most)
            contest = self._contest(subject, earlier, prompts, progress)
            return {self.contest: contest, **self.show(contest)}

        return answer

    def show_failure(self, reason: str) -> Updates:
        """The reason in place of the card."""
        return {self.contest: None, **self._show_text(reason)}

    def show(self, contest: Contest) -> Updates:
        """The card to vote on, or the result once every card has its vote."""
        card = contest.duel.next_card
        if card is None:
            return self._show_text(result_of(contest))
        return {
            self.card: card_of(contest, card),
            self.voting: gr.Row(visible=True),
            self.leaving: gr.Row(visible=bool(contest.duel.votes)),
        }

    def _show_text(self, text: str) -> Updates:
        """A text in place of the card; there is nothing to vote on."""
        return {self.card: text, self.voting: gr.Row(visible=False), self.leaving: gr.Row(visible=False)}

    def _contest(
        self, subject: Subject, earlier: Subject, prompts: list[Conversation], progress: ProgressCallback
    ) -> Contest:
        """Both models' replies to the same questions."""
        if not prompts:
            raise DataError("These conversations do not begin with a question.", advice="Write some yourself.")

        def replies(number: int, one: Subject) -> list[str]:
            paths = self.bench.services.paths
            return generate_replies(one.name, prompts, paths, SAMPLING, add_prefix(f"Model {number} of 2: ", progress))

        asked = [prompt.turns[-1].text for prompt in prompts]
        duel = Duel(asked, replies(1, subject), replies(2, earlier), secrets.randbits(32))
        return Contest(duel, subject.title, earlier.title)

    def voter(self, vote: Vote) -> Callable[[Any], Updates]:
        """What a button does."""

        def cast(contest: Contest | None) -> Updates:
            card = contest.duel.next_card if isinstance(contest, Contest) else None
            if contest is None or card is None:
                return {self.card: gr.skip()}
            contest.duel.vote(card.number, vote)
            return self.show(contest)

        return cast

    def take_back(self, contest: Contest | None) -> Updates:
        """The last vote was a mistake."""
        if not isinstance(contest, Contest):
            return {self.card: gr.skip()}
        if contest.duel.votes:
            contest.duel.take_back(max(contest.duel.votes))
        return self.show(contest)

    def finish(self, contest: Contest | None) -> Updates:
        """Enough: show who won so far."""
        if not isinstance(contest, Contest):
            return {self.card: gr.skip()}
        if not contest.duel.votes:
            warn("Nobody has voted yet.")
            return {self.card: gr.skip()}
        return self._show_text(result_of(contest))


def questions(typed: object, most: int) -> list[Conversation]:
    """What a person typed, a question a line.

    Raises:
        UserError: it is too long.
    """
    text = clean(typed)
    check_length(text)
    lines = dict.fromkeys(line.strip() for line in text.splitlines() if line.strip())
    return [Conversation.from_turns([line]) for line in list(lines)[:most]]


def card_of(contest: Contest, card: Card) -> str:
    """A question with both answers, of which nothing tells whose they are."""
    number = len(contest.duel.votes) + 1
    return (
        f'<div class="duel"><p class="quiet" role="status">Question {number} of {len(contest.duel.cards)}</p>'
        f'<p class="asked" dir="auto">{shown(card.prompt)}</p><div class="answers">'
        + "".join(
            f'<figure class="card"><figcaption>{name}</figcaption>'
            f'<p dir="auto">{shown(said) or "(nothing was said)"}</p></figure>'
            for name, said in (("A", card.first), ("B", card.second))
        )
        + "</div></div>"
    )


def result_of(contest: Contest) -> str:
    """Who won, how sure that is, and who said what."""
    duel, score = contest.duel, contest.score()
    same = f" To {words.count(duel.same, 'question')} both said the same, and nobody voted." if duel.same else ""
    rows = ""
    for card in duel.cards:
        said, winner = duel.replies(card.number), duel.winner(card.number)
        if said is None or winner is None:
            continue
        cells = "".join(
            f'<td data-name="{shown(name)}"{LIKED if winner == side else ""}>{shown(text)}</td>'
            for side, name, text in (("a", contest.after, said[0]), ("b", contest.before, said[1]))
        )
        rows += f'<tr><th scope="row">{shown(card.prompt)}</th>{cells}</tr>'
    return (
        f'<p class="verdict-line" role="status">{shown(score.sentence)}</p><p class="quiet">{shown(same)}</p>'
        f'<table class="samples duel-result"><thead><tr><th scope="col">Question</th>'
        f'<th scope="col">{shown(contest.after)}</th><th scope="col">{shown(contest.before)}</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )
