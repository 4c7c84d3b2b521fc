"""What is talk in a file, and what is none: nothing is taught that nobody said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from chat_app.data.dataset import load_files
from chat_app.data.readers import Located, Note, Problem, ReadingOptions, iterate, read_file
from chat_app.errors import DataError, UnclearColumnsError
from chat_app.system.disk_cache import Cache
from tests.data.readers.bad_inputs.case import jsonl

MARKED = "### Human: Is cup {0} red?### Assistant: No, blue.### Human: Sure?### Assistant: Yes."


def read(path: Path, **said: Any) -> list[str]:
    """A conversation as "user / ~not learned", a problem as "line! reason", a note as "note: reason"."""
    found = []
    for item in iterate(path, options=ReadingOptions(**said)):
        if isinstance(item, Located):
            turns = item.conversation.messages
            found.append(" / ".join(("" if one.in_loss else "~") + one.text for one in turns))
        else:
            found.append(f"note: {item.reason}" if isinstance(item, Note) else f"{item.line}! {item.reason}")
    return found


def stored(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


NO_TALK: dict[str, str | bytes] = {
    "iris.csv": "sepal,petal,species\n5.1,1.4,setosa\n7.0,4.7,versicolor\n6.3,6.0,virginica\n",
    "people.csv": "Name,Phone,City\nAnna,030 1234,Bonn\nBen,040 2345,Kiel\n",
    "people-without-a-header.csv": "Anna,Bonn\nBen,Kiel\nCleo,Ulm\n",
    "account.json": json.dumps({"id": "u-1", "email": "a@example.org", "is_admin": True, "phone": "+49 30 000"}),
    "settings.json": json.dumps({"editor": {"font": "Mono", "size": 12}, "theme": {"name": "dark", "accent": "blue"}}),
    "package.json": json.dumps({"name": "tea", "version": "1.0.0", "scripts": {"test": "run"}, "keywords": ["a", "b"]}),
    "lists.json": json.dumps({"colours": ["red", "green"], "sizes": ["small", "large"]}),
    "titles.csv": "headline,summary\nRain in Bonn,It rained the whole day.\nSun in Kiel,It was warm and dry.\n",
    "times.tsv": "10:00\tAnna\tBonn\n10:05\tBen\tKiel\n10:09\tAnna\tUlm\n",
    "mails.tsv": "anna@example.org\tAnna\nben@example.org\tBen\ncleo@example.org\tCleo\n",
    "acts.csv": "act,prompt\nBaker,Speak as a baker would.\nPilot,Speak as a pilot would.\n",
}


@pytest.mark.parametrize("name", NO_TALK)
def test_what_is_no_talk_is_not_learned(name: str, tmp_path: Path) -> None:
    path = stored(tmp_path, name, NO_TALK[name])
    with pytest.raises(DataError) as caught:
        read_file(path)
    assert caught.value.where == name
    assert caught.value.advice or "Nothing in this file can be used." in caught.value.what


def test_a_table_without_talk_is_a_question_that_can_be_answered(tmp_path: Path) -> None:
    path = stored(tmp_path, "people.csv", NO_TALK["people.csv"])
    with pytest.raises(UnclearColumnsError, match='--columns "Name=context" --columns "City=reply"') as caught:
        read(path)
    assert caught.value.columns == (
        ("Name", ("Anna", "Ben")), ("Phone", ("030 1234", "040 2345")), ("City", ("Bonn", "Kiel")),
    )  # fmt: skip
    assert read(path, columns=("Name=context", "City=reply")) == ["Anna / Bonn", "Ben / Kiel"]
    bare = stored(tmp_path, "bare.csv", NO_TALK["people-without-a-header.csv"])
    assert read(bare, layout="pairs") == ["Anna / Bonn", "Ben / Kiel", "Cleo / Ulm"]


HEADERS: list[tuple[str, list[str]]] = [
    ("id,instruction,topic,response,lang\n1,Say hi.,a,Hi.,en\n2,Say bye.,b,Bye.,en\n",
     ["Say hi. / Hi.", "Say bye. / Bye."]),
    (
        "When,Mail,What would you like to know?,Our answer,State\n"
        "2024/05/01 9:00:00 AM GMT+2,a@x.org,Is tea in stock?,Yes it is.,done\n"
        "2024/05/02 9:10:00 AM GMT+2,b@x.org,Is milk in stock?,No it is not.,done\n"
        "2024/05/03 9:20:00 AM GMT+2,c@x.org,Is bread in stock?,Only rye.,done\n",
        ["Is tea in stock? / Yes it is.", "Is milk in stock? / No it is not.", "Is bread in stock? / Only rye."],
    ),
    ("The shop's questions,,\n,,\nKind,Question,Answer\na,How long?,A day.\nb,How much?,Two.\n",
     ["How long? / A day.", "How much? / Two."]),
    ("Question,Answer,Source\nhi,Hello.,faq.tsv\nopen?,Yes.,faq.tsv\nbye,Bye.,faq.tsv\n",
     ["hi / Hello.", "open? / Yes.", "bye / Bye."]),
    (f'text\n"{MARKED.format(1)}"\n{MARKED.format(2)}\n',
     ["Is cup 1 red? / No, blue. / Sure? / Yes.", "Is cup 2 red? / No, blue. / Sure? / Yes."]),
    (f"id,text\n7,{MARKED.format(1).replace(',', '')}\n8,{MARKED.format(2).replace(',', '')}\n",
     ["Is cup 1 red? / No blue. / Sure? / Yes.", "Is cup 2 red? / No blue. / Sure? / Yes."]),
    (
        "Context,Utterance,Label\n"
        "is it on __eou__ __eot__ which one __eou__ the red __eou__ __eot__,press it __eou__,1.0\n"
        "is it off __eou__ __eot__,no idea __eou__,0.0\nis it new __eou__ __eot__,yes it is __eou__,1.0\n",
        ["is it on / which one\nthe red / press it", "is it new / yes it is",
         "note: 1 answer is marked as bad (Label: 0.0), here, and not learned."],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("content", "expected"), HEADERS)
def test_headers_say_what_is_talk_whatever_stands_beside_it(content: str, expected: list[str], tmp_path: Path) -> None:
    assert read(stored(tmp_path, "a.csv", content)) == expected


def test_a_row_of_another_width_is_a_problem_where_the_others_agree(tmp_path: Path) -> None:
    rows = "Who?,Me.,x\nWhy?,So.\nWhere?,Here.,y\nWhen?,Now.,z\n"
    assert read(stored(tmp_path, "a.csv", f"question,answer,tag\n{rows}")) == [
        "Who? / Me.", "3! This row has 2 columns, but the table has 3.", "Where? / Here.", "When? / Now.",
    ]  # fmt: skip
    lines = "Who?\tMe.\nWhy?\tSo.\nBut why?\tSo.\tNo.\nWhere?\tHere.\nWhen?\tNow.\n"
    assert read(stored(tmp_path, "a.tsv", lines))[2] == "3! This line has 3 columns, but the others have 2."


def test_what_a_person_says_goes_before_the_guess(tmp_path: Path) -> None:
    path = stored(tmp_path, "a.csv", "Red,Blue\nWho?,Me.\nWhy?,So.\n")
    assert read(path) == ["Red / Blue", "Who? / Me.", "Why? / So."]
    assert read(path, header="yes", columns=("1=context", "2=reply")) == ["Who? / Me.", "Why? / So."]
    assert read(path, columns=("red=context", "Blue=reply")) == ["Who? / Me.", "Why? / So."]
    stars = stored(tmp_path, "b.txt", "Who?*Me.\nWhy?*So.\n")
    assert read(stars, delimiter="*") == ["Who? / Me.", "Why? / So."]
    assert read(path, layout="turns", header="no")[1:] == ["Who? / Me.", "Why? / So."]
    lines = stored(tmp_path, "c.jsonl", '["Who?", "Me."]\n')
    assert read(lines, layout="lines") == ["1! This line has 1 column; at least 2 are needed."]
    named = stored(tmp_path, "d.csv", "Anna,Who?\nBen,Me.\n")
    assert read(named, layout="messages", header="no") == ["Who? / Me."]


QUOTED = [
    ('"Who?"\t"Me."\n"Why?"\t"So."\n"When?"\t"Now."\n', "a.tsv"),
    ("'Who?','Me.'\n'Why?','So.'\n'When?','Now.'\n", "a.csv"),
    ("question;answer\n'Who?';'Me.'\n'Why?';'So.'\n'When?';'Now.'\n", "a.csv"),
    ("'Who?'\t'Me.'\n'Why?'\t'So.'\n'When?'\t'Now.'\n", "a.tsv"),
    ('id\tquestion\tanswer\n1\t"Who?"\t"Me."\n2\t"Why?"\t"So."\n3\t"When?"\t"Now."\n', "a.tsv"),
]


@pytest.mark.parametrize(("content", "name"), QUOTED)
def test_quotes_around_every_text_are_no_part_of_it(content: str, name: str, tmp_path: Path) -> None:
    assert read(stored(tmp_path, name, content)) == ["Who? / Me.", "Why? / So.", "When? / Now."]


RECORDS: list[tuple[list[Any], list[str]]] = [
    ([{"instruction": "When?", "context": "It was in May.", "response": "In May.", "category": "qa"},
      {"instruction": "When?", "context": "", "response": "In June.", "category": "qa"}],
     ["When?\nIt was in May. / In May.", "When? / In June."]),
    ([{"prompt": "You sell tea.", "instruction": "Name it.", "input": "cup 1", "response": "green"}],
     ["You sell tea.\nName it.\ncup 1 / green"]),
    ([{"context": "The cup is red.", "query": "Which colour?", "answer": "Red."}],
     ["The cup is red.\nWhich colour? / Red."]),
    ([{"prompt": "Answer: which colour has the cup?", "question": "which colour has the cup?", "answer": "Red."}],
     ["Answer: which colour has the cup? / Red."]),
    ([{"conversations": [{"from": "human", "value": "Tea?"}], "chosen": {"from": "gpt", "value": "Yes."},
       "rejected": {"from": "gpt", "value": "No."}}], ["Tea? / Yes."]),
    ([{"messages": [{"role": "user", "content": "Tea?"}], "chosen": "Yes.", "rejected": "No."}], ["Tea? / Yes."]),
    ([{"prompt": "Tea?", "completion": "Yes.", "label": True}, {"prompt": "Tea?", "completion": "Go.", "label": False}],
     ["Tea? / Yes.", "note: 1 answer is marked as bad (label: false), here, and not learned."]),
    ([{"messages": [{"role": "user", "content": "Tea?"}, {"role": "assistant", "content": "No.", "train": False},
                    {"role": "user", "content": "So?"}, {"role": "assistant", "content": "Yes."}]}],
     ["Tea? / ~No. / So? / Yes."]),
]  # fmt: skip


@pytest.mark.parametrize(("records", "expected"), RECORDS)
def test_records_with_all_that_is_asked_and_only_good_answers(
    records: list[Any], expected: list[str], tmp_path: Path
) -> None:
    assert read(stored(tmp_path, "a.jsonl", jsonl(*records))) == expected


def test_what_is_not_learned_and_places_of_pictures_are_said(tmp_path: Path) -> None:
    record = {"messages": [{"role": "user", "content": "<image>\nWhat is this?"},
                           {"role": "assistant", "content": "A cup.", "weight": 0},
                           {"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "Yes."}]}  # fmt: skip
    path = stored(tmp_path, "a.jsonl", jsonl(record, record))
    notes = load_files([path], Cache(tmp_path / "cache", 10**9, 3_600)).facts.notes
    assert notes == (
        "a.jsonl: 2 messages are marked as not to be learned (train: false, or a weight of 0). A model reads them only "
        "as what was said.",
        "a.jsonl: 2 messages hold <image>, the place of something that is no text. Only the words around it are "
        "learned; take such conversations out.",
    )


TWEETS = (
    "tweet_id,author_id,inbound,created_at,text,response_tweet_id,in_response_to_tweet_id\n"
    "3,100,True,Tue Oct 31 22:12:00 +0000 2017,thanks,,2\n"
    "1,100,True,Tue Oct 31 22:10:00 +0000 2017,@shop is it open?,2,\n"
    "2,shop,False,Tue Oct 31 22:11:00 +0000 2017,@100 yes,3,1.0\n"
    "9,200,True,Tue Oct 31 22:09:00 +0000 2017,@shop hello?,,\n"
)


def test_who_answers_whom_is_followed(tmp_path: Path) -> None:
    assert read(stored(tmp_path, "tweets.csv", TWEETS)) == [
        "@shop is it open? / @100 yes / thanks",
        "note: 1 message was passed over, because nobody answers there.",
    ]
    posts = (
        "id,parent_id,author,body\na,t3_p,anna,Tea or milk?\nb,t1_a,ben,Tea.\nc,t1_a,cleo,Milk.\n"
        "d,t1_b,anna,[deleted]\n"
    )
    assert read(stored(tmp_path, "posts.csv", posts)) == ["Tea or milk? / Tea.", "Tea or milk? / Milk."]
    chain = (
        "id,reply_to,sender,message\n1,,anna,Tea?\n2,1,ben,Yes.\n3,2,anna,Hot?\n4,3,ben,Cold.\n"
        "5,2,cleo,Me too?\n6,5,ben,Sure.\n"
    )
    assert read(stored(tmp_path, "chain.csv", chain)) == [
        "Tea? / Yes. / Hot? / Cold.",
        "Tea? / ~Yes. / Me too? / Sure.",
    ]


def test_the_best_ranked_answer_is_followed_and_circles_end(tmp_path: Path) -> None:
    tree = [
        {"message_id": "a", "parent_id": None, "text": "Tea?", "role": "user", "rank": None},
        {"message_id": "b", "parent_id": "a", "text": "No.", "role": "assistant", "rank": 1},
        {"message_id": "c", "parent_id": "a", "text": "Yes.", "role": "assistant", "rank": 0},
    ]
    assert read(stored(tmp_path, "tree.jsonl", jsonl(*tree))) == ["Tea? / Yes."]
    circle = "id,parent_id,author,body\na,b,anna,Who?\nb,a,ben,Me.\nc,c,anna,Why?\nd,c,ben,So.\n"
    assert read(stored(tmp_path, "circle.csv", circle)) == ["Who? / Me.", "Why? / So."]


def test_an_answer_in_a_thread_belongs_to_its_question(tmp_path: Path) -> None:
    day = [
        {"type": "message", "user": "U1", "ts": "1704103200.0001", "thread_ts": "1704103200.0001", "text": "When?"},
        {"type": "message", "user": "U1", "ts": "1704103260.0001", "text": "Where is the cup?"},
        {"type": "message", "user": "U2", "ts": "1704103300.0001", "thread_ts": "1704103200.0001", "text": "At nine."},
        {"type": "message", "user": "U2", "ts": "1704103310.0001", "text": "Here."},
    ]
    assert read(stored(tmp_path, "2024-01-01.json", json.dumps(day))) == [
        "Where is the cup? / Here.",
        "When? / At nine.",
    ]


def test_merged_cells_and_titles_in_a_workbook(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    for row in (["Questions of the shop"], ["Kind", "Question", "Answer"], ["a", "How long?", "A day."],
                [None, "How much?", "Two."], ["b", "Open?", None], [None, None, "Yes."]):  # fmt: skip
        sheet.append(row)
    sheet.merge_cells("A1:C1")
    sheet.merge_cells("A3:A4")
    sheet.merge_cells("B5:B6")
    book.save(tmp_path / "a.xlsx")
    assert read(tmp_path / "a.xlsx") == [
        "How long? / A day.", "How much? / Two.", "5! The reply is empty.", "Open? / Yes.",
    ]  # fmt: skip


def test_the_preview_says_how_a_table_was_taken_apart(tmp_path: Path) -> None:
    previews: list[Any] = []
    for _ in iterate(stored(tmp_path, "a.csv", "question;answer\nWho?;Me.\n"), on_preview=previews.append):
        pass
    for _ in iterate(stored(tmp_path, "a.tsv", "Who?\tMe.\n"), on_preview=previews.append):
        pass
    assert [(one.delimiter, one.has_header) for one in previews] == [(";", True), ("\t", False)]


def test_a_note_is_no_problem(tmp_path: Path) -> None:
    items = list(iterate(stored(tmp_path, "a.tsv", "Wie heißt du?\tJörg.\n".encode("cp1252"))))
    assert [type(item) for item in items] == [Note, Located]
    assert isinstance(items[0], Problem)
