"""Feeds the reader damaged files for a while: `python -m tests.data.readers.fuzz --seconds 300 [--seed N]`.

The good inputs are cut, mixed, and bytes of them changed. Whatever is raised but a DataError, whatever takes longer
than five seconds, whatever the check of the data stumbles over, and every problem without a reason or an advice is
reported, and the file that did it is kept.
"""

from __future__ import annotations

import argparse
import faulthandler
import gzip
import io
import random
import sys
import tempfile
import time
import traceback
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from chat_app.data.quality import Checker, apply_repairs
from chat_app.data.quality.issue_types import REPAIRS
from chat_app.data.readers import Located, ReadingOptions, iterate
from chat_app.data.writers import to_record
from chat_app.errors import DataError
from tests.data.readers.bad_inputs.packed import zipped
from tests.data.readers.bad_inputs.tables import ROWS, parquet, workbook

GOOD = Path(__file__).parent / "good_inputs"
KINDS = Path(__file__).parent / "kinds"
SLOW_SECONDS = 5.0
STUCK_SECONDS = 60.0
MOST_BYTES = 200_000
TOLD_SECONDS = 30.0

PIECES = (
    b"\0", b"\n", b"\r\n", b"\t", b",", b";", b"|", b'"', b'""', b"'", b"\\", b"{", b"}", b"[", b"]", b":", b"null",
    b"NaN",
    b"\xff\xfe", b"\xef\xbb\xbf", b"\xc3", b"\xed\xa0\x80", b"\\ud800", b"\\u0000", b"__eou__", b"_comma_", b" EOS ",
    b"<|im_start|>", b"### Human:", b"[INST]", b"[31.12.23, 23:59:01] Anna: ", b"-1", b"1e999", b"9" * 400, b"[" * 300,
    b"<|endoftext|>", b"<!ENTITY a 'b'>", b"&a;", b"&#55357;", b"<v Anna>", b" --> ", b"- - ", b"* ", b"&x ",
    b" +++$+++ ",
    b"=1+1", b"sep=;", b'{"role":', b'"messages":', b'"content": null', b"true", b"\xe2\x80\xae",
    b"\xf0\x9f\x98\x80", b" " * 50,
)  # fmt: skip

Mutation = Callable[[random.Random, bytes], bytes]


def seeds() -> list[tuple[str, bytes]]:
    """The good inputs with their names, and what cannot lie beside them as a file of text."""
    found = [(path.name, path.read_bytes()) for path in sorted(GOOD.iterdir())]
    found += [(path.name, path.read_bytes()) for path in sorted(KINDS.rglob("*")) if path.is_file()]
    for folder in sorted(path for path in KINDS.iterdir() if path.is_dir()):
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        packed = zipped(*((path.relative_to(folder).as_posix(), path.read_bytes()) for path in files))
        found.append((f"{folder.name}.zip", packed))
    table = parquet({"question": ["Hello", "Bye"], "answer": ["Hi", "See you"]})
    found += [("a.xlsx", workbook(ROWS)), ("a.parquet", table), ("a.zip", zipped(*found[:6]))]
    return [*found, ("a.tsv.gz", gzip.compress(found[0][1]))]


def _flipped(chance: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        if changed:
            changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def _cut(chance: random.Random, data: bytes) -> bytes:
    start, end = sorted(chance.randint(0, len(data)) for _ in range(2))
    return chance.choice((data[:start], data[end:], data[:start] + data[end:]))


def _doubled(chance: random.Random, data: bytes) -> bytes:
    start, end = sorted(chance.randint(0, len(data)) for _ in range(2))
    at = chance.randint(0, len(data))
    return data[:at] + data[start:end] * chance.randint(1, chance.choice((3, 3, 100))) + data[at:]


def _with_piece(chance: random.Random, data: bytes) -> bytes:
    at = chance.randint(0, len(data))
    skipped = chance.choice((0, 0, 1, 5))
    return data[:at] + chance.choice(PIECES) * chance.choice((1, 1, 2, 40)) + data[at + skipped :]


def _lines_mixed(chance: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    chance.shuffle(lines)
    return b"\n".join(lines[: chance.randint(1, len(lines))])


def _other_encoding(chance: random.Random, data: bytes) -> bytes:
    encoding = chance.choice(("utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp500", "cp932", "utf-7"))
    return data.decode("utf-8", "replace").encode(encoding, "replace")


def _packed(chance: random.Random, data: bytes) -> bytes:
    return gzip.compress(data) if chance.random() < 0.5 else zipped(("a.tsv", data), ("b.json", data[::-1]))


def _inside(chance: random.Random, data: bytes) -> bytes:
    """A file of an archive or a workbook changed, and all packed anew."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = [(name, archive.read(name)) for name in archive.namelist()]
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, ValueError, OSError, EOFError, zlib.error):
        return _flipped(chance, data)
    if not files:
        return data
    chosen = chance.randrange(len(files))
    name, content = files[chosen]
    files[chosen] = name, chance.choice(TEXT_MUTATIONS)(chance, content)
    return zipped(*files)


TEXT_MUTATIONS: tuple[Mutation, ...] = (_flipped, _cut, _doubled, _with_piece, _with_piece, _lines_mixed)
MUTATIONS: tuple[Mutation, ...] = (*TEXT_MUTATIONS, *TEXT_MUTATIONS, _other_encoding, _packed, _inside, _inside)


def mutated(chance: random.Random, good: list[tuple[str, bytes]]) -> tuple[str, bytes]:
    """A name and damaged bytes: one good input or two of them after one another, changed a few times."""
    name, data = chance.choice(good)
    if chance.random() < 0.1:
        data += chance.choice(good)[1]
    if chance.random() < 0.2:
        name = chance.choice(good)[0]
    for _ in range(chance.choice((1, 1, 2, 3, 6))):
        data = chance.choice(MUTATIONS)(chance, data)[:MOST_BYTES]
    return name, data


def try_one(path: Path) -> None:
    """Read a file in every way that the product does, and check and mend what was read.

    Raises:
        AssertionError: something is said without a reason or an advice.
    """
    options = ReadingOptions(names="replace" if len(path.name) % 2 else "keep")
    try:
        items = list(iterate(path, options=options, on_preview=lambda look: None))
    except DataError as error:
        _check_words(error.what, error.advice or "", error.sentence())
        return
    located = [item for item in items if isinstance(item, Located)]
    for item in items:
        if not isinstance(item, Located):
            _check_words(item.reason, item.advice, item.sentence())
    checker = Checker(count_tokens=lambda texts: [len(text) for text in texts], window=128)
    checker.add_all(located)
    checker.summarize()
    for item in apply_repairs(located, list(REPAIRS)):
        to_record(item.conversation)


def _check_words(reason: str, advice: str, sentence: str) -> None:
    assert reason.strip(), f"no reason: {sentence!r}"
    assert advice.strip(), f"no advice: {sentence!r}"
    assert sentence.isprintable(), f"not printable: {sentence!r}"


class Watch:
    """Runs inputs, and keeps those that fail."""

    def __init__(self, folder: Path, kept: Path):
        self.folder, self.kept = folder, kept
        self.tried = self.failed = 0
        self.slowest = 0.0

    def run(self, name: str, data: bytes) -> None:
        """Try one input; report and keep it if it fails."""
        path = self.folder / name
        path.write_bytes(data)
        began = time.monotonic()
        faulthandler.dump_traceback_later(STUCK_SECONDS, exit=True)
        what = ""
        try:
            try_one(path)
        except Exception:  # whatever it is, it is what is looked for
            what = traceback.format_exc()
        faulthandler.cancel_dump_traceback_later()
        took = time.monotonic() - began
        self.slowest = max(self.slowest, took)
        self.tried += 1
        if not what and took > SLOW_SECONDS:
            what = f"It took {took:.1f} seconds."
        if what:
            self.failed += 1
            self.kept.mkdir(parents=True, exist_ok=True)
            target = self.kept / f"{self.failed:04}-{name}"
            target.write_bytes(data)
            print(f"{target}:\n{what}", flush=True)
        path.unlink(missing_ok=True)


def main() -> int:
    """Run for a while.

    Returns:
        0 if every input ended well.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="where failing inputs are kept")
    settings = parser.parse_args()
    good = seeds()
    with tempfile.TemporaryDirectory() as folder:
        watch = Watch(Path(folder), settings.keep)
        chance = random.Random(settings.seed)
        end = told = time.monotonic()
        end += settings.seconds
        while (now := time.monotonic()) < end:
            watch.run(*mutated(chance, good))
            if now - told > TOLD_SECONDS:
                told = now
                print(f"{watch.tried:,} inputs, {watch.failed} failed", flush=True)
    print(f"{watch.tried:,} inputs, {watch.failed} failed; the slowest took {watch.slowest:.2f} s")
    return int(watch.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
