"""The commands that use a model: serve, chat, generate."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chat_app.cli.arguments import add_settings, build_settings, read_paths
from chat_app.config.loading import LoadConfig
from chat_app.config.paths import STARTER, Paths
from chat_app.config.sampling import SamplingConfig
from chat_app.conversation import Conversation
from chat_app.errors import DataError, UserError

if TYPE_CHECKING:
    from chat_app.cli.resumable_output import ResumableOutput
    from chat_app.inference.backend import ReplyBackend

LEAVE = ("abort!", "q")


def add_commands(commands: Any) -> None:
    """Tell the parser about this file's commands."""
    from chat_app.server.flags import add_flags

    serve = commands.add_parser("serve", help="open the chat in the browser")
    add_flags(serve)
    serve.set_defaults(command=_serve)

    chat = commands.add_parser("chat", help="talk in the terminal; Abort!, q or the end of the input leaves")
    _add_model(chat)
    chat.add_argument("--system", metavar="TEXT", help="a system text")
    add_settings(chat, SamplingConfig)
    chat.set_defaults(command=_chat)

    generate = commands.add_parser("generate", help="answer every conversation of a file")
    _add_model(generate)
    generate.add_argument("--input", required=True, metavar="F", help="conversations as JSON lines")
    generate.add_argument("--output", required=True, metavar="F", help="the same lines, with `reply`")
    add_settings(generate, SamplingConfig)
    generate.set_defaults(command=_generate)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        default=STARTER,
        metavar="M",
        help="starter, a run, its checkpoint (RUN@STEP), a folder, or a name on the Hub",
    )
    add_settings(parser, LoadConfig)


def _serve(options: argparse.Namespace) -> int:
    from chat_app.server.run import serve

    return serve(options)


def _chat(options: argparse.Namespace) -> None:
    from chat_app.inference.backend import ReplyEnd, ReplyRequest, stream_reply
    from chat_app.inference.loaded_model import load

    sampling = build_settings(options, SamplingConfig)
    loaded = load(options.model, build_settings(options, LoadConfig), Paths.default())
    turns: list[str] = []
    try:
        for line in _typed():
            turns.append(line)
            conversation = Conversation.from_turns(turns, system=options.system)
            for event in stream_reply(loaded, ReplyRequest(conversation, sampling)):
                if isinstance(event, ReplyEnd):
                    turns.append(event.text)
                    _tell_end(event)
                else:
                    print(event.text, end="", flush=True)
    finally:
        loaded.close()


def _typed() -> Iterator[str]:
    """What the person says, until they leave."""
    is_person = sys.stdin.isatty()
    if is_person:
        print("Say something. Abort!, q or Ctrl-D leaves.", file=sys.stderr)
    while True:
        if is_person:
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line or line.strip().lower() in LEAVE:
            return
        if line.strip():
            yield line.strip()


def _tell_end(end: Any) -> None:
    print(flush=True)
    if end.dropped_turns:
        print(f"(the oldest {end.dropped_turns} turns no longer fit into the window)", file=sys.stderr)
    if end.cut_tokens:
        print(f"(the beginning of a turn was left out: {end.cut_tokens} tokens too long)", file=sys.stderr)


def _generate(options: argparse.Namespace) -> None:
    from chat_app.cli.resumable_output import ResumableOutput
    from chat_app.inference.loaded_model import load
    from chat_app.system.disk_cache import digest_content

    source, target = read_paths([options.input])[0], Path(options.output)
    sampling, config = build_settings(options, SamplingConfig), build_settings(options, LoadConfig)
    fingerprint = digest_content([options.model, repr(sampling), repr(config), source])
    with ResumableOutput(target, fingerprint) as output:
        if output.done:
            print(f"Replies that are there already: {len(output.done)}, in {output.partial}.", file=sys.stderr)
        loaded = load(options.model, config, Paths.default())
        try:
            skipped = _answer(loaded, source, sampling, output)
        except BaseException:
            if output.done:
                kept = f"Replies kept in {output.partial}: {len(output.done)}. The same command goes on there."
                print(kept, file=sys.stderr)
            raise
        finally:
            loaded.close()
        if not output.done:
            raise DataError(f"There is nothing to answer in {source}.", advice="Each line needs a turn of the user.")
        output.finish()
    print(f"{len(output.done)} replies in {target}, {skipped} lines could not be answered.", file=sys.stderr)


def _answer(loaded: ReplyBackend, source: Path, sampling: SamplingConfig, output: ResumableOutput) -> int:
    """Answer every line that was not answered before; how many have no answer."""
    from chat_app.inference.backend import reply

    skipped = 0
    for number, (line, record, conversation) in enumerate(_prompts(source)):
        if conversation is None:
            skipped += 1
        elif number not in output.done:
            try:
                output.write(number, {**record, "reply": reply(loaded, conversation, sampling).text})
            except UserError as error:  # Of this conversation: the others may be answered.
                print(f"chat_app: {source.name}, line {line}: {error.sentence()}", file=sys.stderr)
                skipped += 1
    return skipped


def _prompts(source: Path) -> Iterator[tuple[int, dict[str, Any], Conversation | None]]:
    """The number of each line, the line as an object, and the conversation up to the user's last turn (None: there is
    none)."""
    from chat_app.data.readers import Located, iterate
    from chat_app.data.readers.types import Note

    lines = source.read_bytes().split(b"\n")
    for item in iterate(source, need_reply=False):
        if not isinstance(item, Located):
            print(f"chat_app: {item.sentence()}", file=sys.stderr)
            if not isinstance(item, Note):
                yield item.line or 0, {}, None
            continue
        yield item.line, _record(lines, item), prompt_of(item.conversation)


def _record(lines: list[bytes], item: Any) -> dict[str, Any]:
    try:
        value = json.loads(lines[item.line - 1].decode("utf-8-sig"))
    except (ValueError, IndexError):
        value = None
    if isinstance(value, dict):
        return value
    return {"turns": value if isinstance(value, list) else item.conversation.texts}


def prompt_of(conversation: Conversation) -> Conversation | None:
    """The conversation up to the last turn of the user, which is what a model is asked to answer."""
    messages = conversation.messages
    if conversation.turns[-1].role == "assistant":
        messages = messages[:-1]
    if not messages or messages[-1].role != "user":
        return None
    return Conversation(messages)
