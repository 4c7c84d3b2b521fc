"""The commands that judge a model: evaluate, originality."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chat_app.cli.arguments import add_settings, build_settings, read_paths
from chat_app.config.loading import LoadConfig
from chat_app.config.paths import STARTER, Paths
from chat_app.errors import DataError, SettingError
from chat_app.runs.files import write_text
from chat_app.runs.run import Run, open_run
from chat_app.system.progress import Progress, ProgressCallback

MOST_PROMPTS = 1_000
KINDS = ("copied", "partly copied", "new")
SECONDS_BETWEEN_LINES = 5.0


def add_commands(commands: Any) -> None:
    """Tell the parser about this file's commands."""
    evaluate = commands.add_parser("evaluate", help="measure a model on conversations, alone or against another")
    evaluate.add_argument(
        "--model", default=STARTER, metavar="M", help="starter, a run, a folder, or a name on the Hub"
    )
    evaluate.add_argument("--against", metavar="M", help="a second model: as it was before")
    evaluate.add_argument("--data", required=True, nargs="+", metavar="FILE")
    evaluate.add_argument("--learn", choices=("replies", "all"), default="replies", help="which turns are measured")
    evaluate.add_argument("--replies", type=int, default=100, metavar="N", help="draw at most N replies (default: 100)")
    evaluate.add_argument("--json", action="store_true", help="as JSON; with --against as `before` and `after`")
    evaluate.add_argument("--csv", metavar="FILE", help="write the table into this file too")
    add_settings(evaluate, LoadConfig)
    evaluate.set_defaults(command=_evaluate)

    originality = commands.add_parser("originality", help="are the replies of a taught model copied from its data?")
    originality.add_argument("--run", required=True, metavar="RUN", help="a run's id or folder")
    originality.add_argument("--reply", metavar="TEXT", help="judge this text instead of the model's own replies")
    originality.add_argument(
        "--prompts", metavar="FILE", help="conversations whose openings are asked; default: the run's"
    )
    originality.add_argument("--count", type=int, default=20, metavar="N", help="how many are asked (default: 20)")
    originality.add_argument("--json", action="store_true", help="as JSON")
    originality.set_defaults(command=_originality)


def _evaluate(options: argparse.Namespace) -> None:
    from chat_app.data.readers import read_files
    from chat_app.evaluation.runner import evaluate_models
    from chat_app.evaluation.segmentation import describe_tokenizer

    reading = read_files(read_paths(options.data), need_reply=options.learn == "replies")
    names = [options.model] if options.against is None else [options.against, options.model]
    found = evaluate_models(
        names,
        reading.conversations,
        Paths.default(),
        learn=options.learn,
        most_replies=options.replies,
        asked=build_settings(options, LoadConfig),
        progress=_print_now_and_then(),
    )
    columns = dict(zip(_different(names), (one.as_dict() for one in found), strict=True))
    if options.csv:
        _write_csv(Path(options.csv), columns)
    if options.json:
        before, after = found[0].as_dict(), found[-1].as_dict()
        print(json.dumps(after if options.against is None else {"before": before, "after": after}))
    elif options.against is None:
        numbers = found[0].as_dict()
        del numbers["bleu_tokenizer"]
        for name, value in numbers.items():
            print(f"{name.replace('_', ' '):>15}  {'-' if value is None else f'{value:,.4g}'}")
    else:
        _print_change(columns)
    if (said := describe_tokenizer(found[-1].bleu_tokenizer)) and not options.json:
        print(f"\n{said}")


def _different(names: list[str]) -> list[str]:
    """Names for columns: a model that is compared with itself is named twice."""
    return names if len(set(names)) == len(names) else [f"{names[0]} (again)", *names[1:]]


def _print_change(columns: Mapping[str, Mapping[str, Any]]) -> None:
    """Both columns and what changed."""
    from chat_app.evaluation.comparison import compare, figure, summary

    before, after = columns.values()
    changes = compare(before, after)
    print("".join(f"{name[-18:]:>20}" for name in ("", *columns)))
    for one in changes:
        numbers = f"{figure(one.measure, one.before):>20}{figure(one.measure, one.after):>20}"
        print(f"{one.measure.label:>20}{numbers}  {one.arrow} {one.verdict}".rstrip())
    print(f"\n{summary(changes)}")


def _write_csv(path: Path, columns: Mapping[str, Mapping[str, Any]]) -> None:
    from chat_app.evaluation.comparison import as_csv

    try:
        write_text(path, as_csv(columns))
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}.") from error


def _print_now_and_then() -> ProgressCallback:
    """Prints how far the work is, not more often than a person can read."""
    last = 0.0

    def report(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            print(progress.message, file=sys.stderr, flush=True)

    return report


def _originality(options: argparse.Namespace) -> None:
    from chat_app.evaluation.memorization import RunMemorizationIndex

    paths = Paths.default()
    run = open_run(paths.runs, options.run)
    progress = _print_now_and_then()
    index = RunMemorizationIndex.open(run, paths, progress)
    rows = [{"reply": options.reply}] if options.reply is not None else _own_replies(run, options, paths, progress)
    for row in rows:
        copy = index.classify_reply(row["reply"])
        row.update(kind=copy.kind, sentence=copy.sentence, file=copy.file, line=copy.line)
    if options.json:
        print(json.dumps(rows, ensure_ascii=False))
        return
    for row in rows:
        if "prompt" in row:
            print(f"> {row['prompt']}\n{row['reply']}")
        print(f"  {row['kind']}: {row['sentence']}")
    if len(rows) > 1:
        print("\n" + ", ".join(f"{kind}: {sum(row['kind'] == kind for row in rows)}" for kind in KINDS))


def _own_replies(
    run: Run, options: argparse.Namespace, paths: Paths, progress: ProgressCallback
) -> list[dict[str, Any]]:
    """What the run's model answers to openings: those of a file, or those it was not taught, else those it was."""
    from chat_app.conversation import Conversation
    from chat_app.data.readers import has_text, iterate_conversations
    from chat_app.evaluation.runner import generate_replies
    from chat_app.evaluation.selection import extract_prompts

    if not 0 < options.count <= MOST_PROMPTS:
        raise SettingError("count", f"{options.count} prompts cannot be asked.", advice=f"1 to {MOST_PROMPTS:,} can.")
    files = read_paths([options.prompts]) if options.prompts else [run.data / "valid.jsonl", run.data / "train.jsonl"]
    prompts: list[Conversation] = []
    for file in files:
        if not prompts and has_text(file):
            prompts = extract_prompts(iterate_conversations(file), options.count)
    if not prompts:
        raise DataError("There is nothing to ask the model.", advice="Give a file with --prompts.")
    replies = generate_replies(str(run.model), prompts, paths, progress=progress)
    return [{"prompt": prompt.turns[-1].text, "reply": reply} for prompt, reply in zip(prompts, replies, strict=True)]
