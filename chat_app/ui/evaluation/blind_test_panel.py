"""The blind test: two models answer the same questions, and a person votes without knowing which is which.

The page calls it a duel. Its state stays on the server; the page gets one card at a time, without names, until the end.
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
from chat_app.evaluation.jobs import generate_in_child
from chat_app.evaluation.selection import extract_prompts
from chat_app.system.progress import ProgressCallback, add_prefix
from chat_app.ui.chat.session import check_length
from chat_app.ui.components import formatting
from chat_app.ui.components.escape import clean_text, escape, warn
from chat_app.ui.components.events import QUICK, Updates
from chat_app.ui.evaluation.panel import Choice, EvaluationPanel
from chat_app.ui.evaluation.subjects import Subject, check_count

QUESTIONS, MAX_QUESTIONS = 10, 50
SAMPLING = SamplingConfig(seed=1, max_new_tokens=64)
LIKED = ' class="liked" title="You liked this one"'
VOTES: tuple[tuple[str, Vote, str], ...] = (
    ("A is better", "first", "duel-first"),
    ("The same", "tie", "duel-tie"),
    ("B is better", "second", "duel-second"),
)


@dataclass(frozen=True)
class BlindTest:
    """A blind test under way, and the titles of its models: the one to judge, and the one to compare it with."""

    duel: Duel
    after: str
    before: str

    def score(self) -> Score:
        """Count the votes so far."""
        return self.duel.score(f"“{self.after}”", f"“{self.before}”")


class BlindTestPanel(EvaluationPanel):
    """Generates the answers of both models, and takes the votes."""

    title = "Blind duel"
    about = """Numbers are not taste. Both models answer the same questions; you say which answer you like
better, without knowing whose it is. At the end you see who won, and how sure that is."""

    def draw_controls(self) -> None:
        """The questions, the button that begins, the card and the buttons that vote."""
        self.blind_test = gr.State(None)
        self.typed = gr.Textbox(
            label="Your own questions, one a line",
            info="Without any, the openings of the chosen conversations are asked.",
            lines=2,
            max_lines=8,
            elem_id="duel-typed",
        )
        self.count = gr.Slider(
            2, MAX_QUESTIONS, value=QUESTIONS, step=1, label="Questions at most", elem_id="duel-count"
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
        """The state of the test, and the components that show it."""
        return [self.blind_test, *self.views]

    @property
    def views(self) -> list[Any]:
        """The components that show how the test stands."""
        return [self.card, self.voting, self.leaving]

    def connect(self, choice: list[Any], long: dict[str, Any]) -> Any:
        """Register the handlers, those of the votes among them."""
        for button, vote in self.buttons:
            button.click(self.make_vote_handler(vote), [self.blind_test], self.views, **QUICK)
        self.back.click(self.take_back, [self.blind_test], self.views, **QUICK)
        self.end.click(self.finish, [self.blind_test], self.views, **QUICK)
        return super().connect(choice, long)

    def prepare(self, choice: Choice, *settings: Any) -> Callable[[ProgressCallback], Updates]:
        """Find both models and the questions."""
        typed, count = settings
        subjects, visitor = self.subjects, choice.visitor
        subject, earlier = (
            subjects.get_subject(choice.after, visitor),
            subjects.get_baseline(choice.before, choice.after, visitor),
        )
        if earlier is None or earlier.name == subject.name:
            raise DataError("A duel needs two models.", advice="Choose another one under “Compared with”.")
        most = check_count(count, 2, MAX_QUESTIONS, "questions can be asked")
        own = parse_questions(typed, most)
        read = None if own else subjects.load_conversations(choice.source, choice.after, choice.files, visitor)[0]

        def answer(progress: ProgressCallback) -> Updates:
            prompts = own if read is None else extract_prompts(read(progress), most)
            blind_test = self._run_blind_test(subject, earlier, prompts, progress)
            return {self.blind_test: blind_test, **self.show(blind_test)}

        return answer

    def show_failure(self, reason: str) -> Updates:
        """Show the reason in place of the card."""
        return {self.blind_test: None, **self._show_text(reason)}

    def show(self, blind_test: BlindTest) -> Updates:
        """Show the card to vote on, or the result once every card has its vote."""
        card = blind_test.duel.next_card
        if card is None:
            return self._show_text(render_result(blind_test))
        return {
            self.card: render_card(blind_test, card),
            self.voting: gr.Row(visible=True),
            self.leaving: gr.Row(visible=bool(blind_test.duel.votes)),
        }

    def _show_text(self, text: str) -> Updates:
        """Show a text in place of the card, and hide the buttons."""
        return {self.card: text, self.voting: gr.Row(visible=False), self.leaving: gr.Row(visible=False)}

    def _run_blind_test(
        self, subject: Subject, earlier: Subject, prompts: list[Conversation], progress: ProgressCallback
    ) -> BlindTest:
        """Generate both models' replies to the same questions."""
        if not prompts:
            raise DataError("These conversations do not begin with a question.", advice="Write some yourself.")

        def replies(number: int, model: Subject) -> list[str]:
            paths = self.subjects.services.paths
            report = add_prefix(f"Model {number} of 2: ", progress)
            return generate_in_child(model.name, prompts, paths, SAMPLING, report)

        asked = [prompt.turns[-1].text for prompt in prompts]
        duel = Duel(asked, replies(1, subject), replies(2, earlier), secrets.randbits(32))
        return BlindTest(duel, subject.title, earlier.title)

    def make_vote_handler(self, vote: Vote) -> Callable[[Any], Updates]:
        """Make the handler of a button that votes."""

        def cast(blind_test: BlindTest | None) -> Updates:
            card = blind_test.duel.next_card if isinstance(blind_test, BlindTest) else None
            if blind_test is None or card is None:
                return {self.card: gr.skip()}
            blind_test.duel.vote(card.number, vote)
            return self.show(blind_test)

        return cast

    def take_back(self, blind_test: BlindTest | None) -> Updates:
        """Take the last vote back."""
        if not isinstance(blind_test, BlindTest):
            return {self.card: gr.skip()}
        if blind_test.duel.votes:
            blind_test.duel.take_back(max(blind_test.duel.votes))
        return self.show(blind_test)

    def finish(self, blind_test: BlindTest | None) -> Updates:
        """End the test early, and show who won so far."""
        if not isinstance(blind_test, BlindTest):
            return {self.card: gr.skip()}
        if not blind_test.duel.votes:
            warn("Nobody has voted yet.")
            return {self.card: gr.skip()}
        return self._show_text(render_result(blind_test))


def parse_questions(typed: object, most: int) -> list[Conversation]:
    """Parse typed questions, one on each line.

    Raises:
        UserError: it is too long.
    """
    text = clean_text(typed)
    check_length(text)
    lines = dict.fromkeys(line.strip() for line in text.splitlines() if line.strip())
    return [Conversation.from_turns([line]) for line in list(lines)[:most]]


def render_card(blind_test: BlindTest, card: Card) -> str:
    """Render a question with both answers, without a hint whose they are."""
    number = len(blind_test.duel.votes) + 1
    return (
        f'<div class="duel"><p class="quiet" role="status">Question {number} of {len(blind_test.duel.cards)}</p>'
        f'<p class="asked" dir="auto">{escape(card.prompt)}</p><div class="answers">'
        + "".join(
            f'<figure class="card"><figcaption>{name}</figcaption>'
            f'<p dir="auto">{escape(said) or "(nothing was said)"}</p></figure>'
            for name, said in (("A", card.first), ("B", card.second))
        )
        + "</div></div>"
    )


def render_result(blind_test: BlindTest) -> str:
    """Render who won, how sure that is, and which model gave which answer."""
    duel, score = blind_test.duel, blind_test.score()
    same = (
        f" To {formatting.format_count(duel.same, 'question')} both said the same, and nobody voted."
        if duel.same
        else ""
    )
    rows = ""
    for card in duel.cards:
        said, winner = duel.replies(card.number), duel.winner(card.number)
        if said is None or winner is None:
            continue
        cells = "".join(
            f'<td data-name="{escape(name)}"{LIKED if winner == side else ""}>{escape(text)}</td>'
            for side, name, text in (("a", blind_test.after, said[0]), ("b", blind_test.before, said[1]))
        )
        rows += f'<tr><th scope="row">{escape(card.prompt)}</th>{cells}</tr>'
    return (
        f'<p class="verdict-line" role="status">{escape(score.sentence)}</p><p class="quiet">{escape(same)}</p>'
        f'<table class="samples duel-result"><thead><tr><th scope="col">Question</th>'
        f'<th scope="col">{escape(blind_test.after)}</th><th scope="col">{escape(blind_test.before)}</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )
