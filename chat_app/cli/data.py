"""The commands that look at data: inspect, encode."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chat_app.cli.arguments import add_reading, build_source
from chat_app.config.paths import STARTER, Paths
from chat_app.errors import DataError, SettingError
from chat_app.tokenization.chat_formats import FORMAT_NAMES

if TYPE_CHECKING:
    from chat_app.data.dataset import ConversationDataset
    from chat_app.data.quality import Check
    from chat_app.data.source import DataSource


def add_commands(commands: Any) -> None:
    """Tell the parser about this file's commands."""
    inspect = commands.add_parser(
        "inspect", help="show what is read from files, what is wrong on which line, and mend it"
    )
    inspect.add_argument("file", nargs="*", metavar="FILE")
    inspect.add_argument("--json", action="store_true", help="as JSON")
    inspect.add_argument("--no-check", action="store_true", help="only read, do not look for duplicates and the like")
    inspect.add_argument("--model", default=STARTER, metavar="M", help=f"whose tokens are counted (default: {STARTER})")
    inspect.add_argument("--out", metavar="FILE", help="write the mended conversations to this .jsonl or .tsv")
    add_reading(inspect)
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
    wanted = build_source(options, options.file)
    with _open_home() as paths:
        _inspect_source(options, wanted, paths)


@contextlib.contextmanager
def _open_home() -> Iterator[Paths]:
    """The paths of this computer. Where nothing can be written there, a temporary folder serves: a look at a file needs
    no home."""
    try:
        paths = Paths.default().make_home()
    except SettingError as error:
        refused = error
    else:
        yield paths
        return
    with tempfile.TemporaryDirectory(prefix="chat_app-") as folder:
        print(f"chat_app: {refused.what} What is read is kept only until this command ends.", file=sys.stderr)
        yield Paths(Path(folder))


def _inspect_source(options: argparse.Namespace, wanted: DataSource, paths: Paths) -> None:
    from chat_app.cli.progress import ConversationBar
    from chat_app.data.source import check_dataset, load_source, write_repaired

    with ConversationBar("reading") as reading:
        material = load_source(wanted, paths, progress=reading.update)
    check = None
    if not options.no_check:
        with ConversationBar("checking", material.facts.conversations) as checking:
            check = check_dataset(material, paths, options.model, checking.update)
    if options.json:
        print(json.dumps(_facts(material, check), ensure_ascii=False))
    else:
        _print(material, check)
    if options.out:
        with ConversationBar("writing", material.facts.conversations) as writing:
            lost = write_repaired(material, Path(options.out), writing.update)
        print(f"Written to {options.out}.", file=sys.stderr)
        if lost:
            print(f"{lost} conversations lost something that TSV cannot hold; JSONL keeps all.", file=sys.stderr)


def _facts(material: ConversationDataset, check: Check | None) -> dict[str, Any]:
    facts = material.facts
    previews = facts.previews
    return {
        "conversations": facts.conversations,
        "turns": facts.turns,
        "kind": previews[0].kind if previews else "",
        "encoding": ", ".join(dict.fromkeys(preview.encoding for preview in previews if preview.encoding)),
        "files": [asdict(preview) for preview in previews],
        "parts": facts.parts,
        "problems": [asdict(problem) for problem in material.iterate_problems()],
        "problems_total": facts.problems,
        "notes": list(facts.notes),
        "check": check.to_dict() if check else None,
    }


def _print(material: ConversationDataset, check: Check | None) -> None:
    facts = material.facts
    kinds = ", ".join(dict.fromkeys(f"{preview.kind}, {preview.encoding}".rstrip(", ") for preview in facts.previews))
    print(f"{facts.conversations} conversations, {facts.turns} turns ({kinds})")
    if len(facts.parts) > 1:
        print(", ".join(f"{count} {part}" for part, count in facts.parts.items()))
    for preview in facts.previews:
        if preview.delimiter:
            header = "yes" if preview.has_header else "no"
            sign = "tab" if preview.delimiter == "\t" else preview.delimiter
            print(f"delimiter: {sign}; first row names the columns: {header}")
        if preview.columns:
            print("columns: " + ", ".join(f"{column.name}={column.role}" for column in preview.columns))
        if preview.speakers:
            people = ", ".join(f"{one.name} ({one.messages})" for one in preview.speakers[:8])
            print(f"speakers: {people}; the bot is {preview.bot}")
    for conversation in islice(material.iterate_conversations(), 3):
        print()
        for message in conversation.messages:
            print(f"  {message.role:>9}: {message.text}")
    print()
    for note in facts.notes:
        print(f"Note: {note}")
    print(f"{facts.problems} problems" if facts.problems else "No problems.")
    for problem in material.iterate_problems():
        print(f"  {problem.sentence()}")
    if check is not None:
        _print_check(check)


def _print_check(check: Check) -> None:
    from chat_app.data.quality import NOT_LOOKED_FOR

    print()
    tokens = f"{check.tokens:,} tokens" if check.tokens is not None else ""
    fitting = f"{check.fitting:.1%} of the conversations fit the window" if check.fitting is not None else ""
    languages = ", ".join(f"{name} {share:.0%}" for name, share in check.languages)
    print("; ".join(part for part in (tokens, fitting, languages) if part))
    print("\n".join(describe_findings(check)))
    print(NOT_LOOKED_FOR)


def describe_findings(check: Check, repaired: Collection[str] = ()) -> list[str]:
    """What a check found, each with its repair and where it stands first.

    Args:
        repaired: names of repairs; what these remove is left out.
    """
    lines = []
    for finding in check.findings:
        if finding.repair in repaired:
            continue
        mend = f" [--repair {finding.repair}]" if finding.repair else ""
        lines.append(f"{finding.count:>7,}  {finding.title}{mend}")
        lines += [f"         {spot.file}, line {spot.line}: {spot.quote}" for spot in finding.spots[:2]]
    return lines or ["The check found nothing to worry about."]


def _encode(options: argparse.Namespace) -> None:
    from chat_app.conversation import Conversation
    from chat_app.models.tokenizer import load_tokenizer, read_window
    from chat_app.tokenization.chat_formats import get_format
    from chat_app.tokenization.encoder import Encoder

    turns = _turns(options.turns)
    tokenizer = load_tokenizer(options.tokenizer)
    window = options.window or read_window(options.tokenizer)
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
