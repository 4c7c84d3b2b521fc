"""Whether a model gives the right answers: what it says to questions that were kept aside, compared with all replies of
the set. A loss does not tell that: a model can be sure of every word and give the answer to another question.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chat_app.conversation import Conversation
from chat_app.data.readers import has_text, iterate_conversations
from chat_app.data.reply_match import ReplyIndex
from chat_app.runs.run import Run

FEWEST, MOST = 5, 20  # Questions: fewer tell nothing, more take long at each evaluation.
MOST_REPLIES, MOST_CONVERSATIONS = 500, 5_000  # A set with more is no list of answers.
REPLY_TOKENS = 64


@dataclass(frozen=True)
class AnswerCheck:
    """Questions whose right reply is one that the model is taught.

    Attributes:
        questions: each up to the reply, and the right reply.
        index: all replies of the set.
    """

    questions: list[tuple[Conversation, str]]
    index: ReplyIndex

    def count_right(self, answer: Callable[[Conversation], str]) -> tuple[int, int]:
        """How many questions are answered right, and how many there are."""
        right = sum(self.index.find(answer(question)) == reply for question, reply in self.questions)
        return right, len(self.questions)


def read_answer_check(run: Run) -> AnswerCheck | None:
    """The check for a run: questions of its conversations kept aside, whose reply other conversations have too.

    Returns:
        None if there are fewer than FEWEST, or if the set is no list of answers.
    """
    if not has_text(run.data / "valid.jsonl"):
        return None
    replies: dict[str, None] = {}
    for number, one in enumerate(iterate_conversations(run.data / "train.jsonl")):
        if one.turns[-1].role == "assistant":
            replies[one.turns[-1].text] = None
        if len(replies) > MOST_REPLIES or number >= MOST_CONVERSATIONS:
            return None
    questions: list[tuple[Conversation, str]] = []
    for one in iterate_conversations(run.data / "valid.jsonl"):
        if len(one.turns) > 1 and one.turns[-1].text in replies and len(questions) < MOST:
            questions.append((one.slice_turns(0, len(one.turns) - 1), one.turns[-1].text))
    return AnswerCheck(questions, ReplyIndex(replies)) if len(questions) >= FEWEST else None
