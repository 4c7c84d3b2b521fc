"""The commands that look at data: inspect, encode."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from chat_app.errors import DataError
from chat_app.formats import FORMAT_NAMES


def add_commands(commands: Any) -> None:
    """Tell the parser about this file's commands."""
    inspect = commands.add_parser("inspect", help="show what is read from a file, and what is wrong on which line")
    inspect.add_argument("file", metavar="FILE")
    inspect.add_argument("--json", action="store_true", help="as JSON")
    inspect.set_defaults(command=_inspect)

    encode = commands.add_parser("encode", help="show the token ids that a model sees, as JSON")
    encode.add_argument("--tokenizer", required=True, metavar="T", help="a model or a tokenizer folder")
    encode.add_argument("--format", required=True, metavar="F", help=", ".join(FORMAT_NAMES))
    encode.add_argument("--turns", required=True, metavar="JSON", help='the turns, as in \'["Hello", "Hi!"]\'')
    encode.add_argument("--system", metavar="TEXT", help="a system text")
    encode.add_argument("--learn", choices=("replies", "all"), default="replies", help="what is learned (with --train)")
    encode.add_argument("--train", action="store_true", help="as in training: the last turn is the reply; adds labels")
    encode.add_argument("--window", type=int, default=0, metavar="N", help="the most tokens; default: the model's")
    encode.set_defaults(command=_encode)


def _inspect(options: argparse.Namespace) -> None:
    from chat_app.reading import read_file

    reading = read_file(Path(options.file))
    if options.json:
        facts = {
            "conversations": len(reading.conversations),
            "turns": reading.turns,
            "kind": reading.kind,
            "encoding": reading.encoding,
            "problems": [asdict(problem) for problem in reading.problems],
            "problems_total": reading.problems_total,
        }
        print(json.dumps(facts, ensure_ascii=False))
        return
    print(f"{len(reading.conversations)} conversations, {reading.turns} turns ({reading.kind}, {reading.encoding})")
    for conversation in reading.conversations[:3]:
        print()
        for message in conversation.messages:
            print(f"  {message.role:>9}: {message.text}")
    print()
    print(f"{reading.problems_total} problems" if reading.problems_total else "No problems.")
    for problem in reading.problems:
        print(f"  {problem.sentence()}")


def _encode(options: argparse.Namespace) -> None:
    from chat_app.conversation import Conversation
    from chat_app.encoding import Encoder
    from chat_app.formats import get_format
    from chat_app.models import load_tokenizer, window_of

    turns = _turns(options.turns)
    tokenizer = load_tokenizer(options.tokenizer)
    window = options.window or window_of(options.tokenizer)
    encoder = Encoder(tokenizer, get_format(options.format), window)
    last: Any = "assistant" if options.train else "user"
    conversation = Conversation.from_turns(turns, system=options.system, last=last)
    example = encoder.example(conversation, options.learn) if options.train else encoder.prompt(conversation)
    shown: dict[str, Any] = {
        "input_ids": example.ids,
        "token_type_ids": example.types,
        "attention_mask": [1] * len(example.ids),
    }
    if options.train:
        shown["labels"] = example.labels
    if example.dropped_turns or example.cut_tokens:
        shown.update(dropped_turns=example.dropped_turns, cut_tokens=example.cut_tokens)
    print(json.dumps(shown))


def _turns(text: str) -> list[str]:
    try:
        turns = json.loads(text)
    except ValueError as error:
        raise DataError(f"--turns is no JSON ({error}).", advice='Write it like \'["Hello", "Hi!"]\'.') from error
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, str) for turn in turns):
        raise DataError("--turns must be a list of texts.", advice='Write it like \'["Hello", "Hi!"]\'.')
    return turns
