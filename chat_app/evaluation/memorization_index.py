"""The memorization index: the longest run of words that a reply shares with the training data, and where it stands.

The conversations are read once, as a stream, into an n-gram index beside them: every n-gram of `GRAM` words as a hash,
sorted, with its place. The index is searched on the disk (a memory map), so that a million conversations need little
memory. Knows no model; numpy is loaded when an index is made or used.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from chat_app.data.readers import Problem, iterate
from chat_app.errors import DataError
from chat_app.evaluation.segmentation import NO_SPACES
from chat_app.formatting import format_bytes
from chat_app.runs.files import read_json, write_json
from chat_app.system.progress import Progress, ProgressCallback, ignore_progress

GRAM = 4
BUCKETS = 64
CHUNK_WORDS = 1 << 18
LONGEST_REPLY = 10_000
KNOWN_WORDS = 200_000
BYTES_NEEDED = 8  # Of free disk, for each byte of the conversations, while the index is made.
_WORD = re.compile(rf"[{NO_SPACES}]|[^\W_{NO_SPACES}]+(?:['’][^\W_{NO_SPACES}]+)*")
_FILES = ("grams", "places", "starts", "lines")

Kind = Literal["copied", "partly copied", "new"]


@dataclass(frozen=True, slots=True)
class Match:
    """The longest run of words that a reply shares with one turn of the conversations.

    Attributes:
        words: how many words; 0 where no run of at least four is shared, for shorter ones are everyday language.
        text: the run as it stands in the reply.
        line: of the file of conversations, from 1; None without a run.
        total: how many words the reply has.
    """

    words: int
    text: str
    line: int | None
    total: int

    @property
    def share(self) -> float:
        """How much of the reply the run is, 0 to 1, by words."""
        return self.words / self.total if self.total else 0.0


class MemorizationIndex:
    """An n-gram index of a file of conversations: finds the longest run of words that a reply shares with them.

    Args:
        folder: an index, made by `open` or `build`.
    """

    def __init__(self, folder: Path):
        import numpy as np

        self.folder = folder
        self._grams, self._places, self._starts, self._lines = (
            np.memmap(folder / name, dtype="<u8", mode="r") if (folder / name).stat().st_size else np.empty(0, "<u8")
            for name in _FILES
        )

    @classmethod
    def open(cls, path: Path, progress: ProgressCallback = ignore_progress) -> MemorizationIndex:
        """The index of a file of conversations; it is made if it is not there or the file has changed.

        Raises:
            DataError: the file cannot be read, or the disk has no room for the index.
        """
        try:
            about = path.stat()
        except OSError as error:
            raise DataError("The conversations of this run are no longer there.", where=path.name) from error
        key = hashlib.sha256(f"{about.st_size} {about.st_mtime_ns} {GRAM}".encode()).hexdigest()[:12]
        folder = path.with_name(f"{path.name}.words-{key}")
        if read_json(folder / "about.json") is None:
            for old in path.parent.glob(f"{path.name}.words-*"):
                shutil.rmtree(old, ignore_errors=True)
            cls.build(path, folder, progress)
        return cls(folder)

    @staticmethod
    def build(path: Path, folder: Path, progress: ProgressCallback = ignore_progress) -> None:
        """Make the index of a file in a folder, which appears whole or not at all.

        Raises:
            DataError: the file cannot be read, or the disk has no room for the index.
        """
        needed, free = path.stat().st_size * BYTES_NEEDED, shutil.disk_usage(path.parent).free
        if free < needed:
            raise DataError(
                f"The search for copies needs {format_bytes(needed)} of disk, and {format_bytes(free)} are free.",
                advice="Free some space.",
            )
        temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
        temporary.mkdir()
        try:
            turns = _write_grams(path, temporary, progress)
            _sort_grams(temporary)
            write_json(temporary / "about.json", {"turns": turns, "words a gram": GRAM})
            with suppress(OSError):  # Another process has made the same index meanwhile.
                os.replace(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def find_longest_match(self, reply: str) -> Match:
        """The longest run of words of the reply that stands in a turn; capitals and punctuation do not count.

        Of several equally long ones it is the first of the reply, at its first place in the file. Only the first
        10,000 words of a reply are looked at.
        """
        import numpy as np

        found = list(_spans(reply))
        grams = _hash_ngrams(np.array([_number(word) for word, _, _ in found], dtype="<u8"))
        best, end, place = 0, 0, 0
        # The places in the file of the n-grams that matched last, and how many words the runs have that end there.
        before, lengths = np.empty(0, "<u8"), np.empty(0, np.int64)
        for index, gram in enumerate(grams):
            low, high = np.searchsorted(self._grams, gram, "left"), np.searchsorted(self._grams, gram, "right")
            here = np.asarray(self._places[low:high])
            length = np.full(len(here), GRAM, np.int64)
            if len(before) and len(here):
                slots = np.minimum(np.searchsorted(before, here - np.uint64(1)), len(before) - 1)
                goes_on = before[slots] == here - np.uint64(1)
                length[goes_on] = lengths[slots[goes_on]] + 1
            if len(length) and length.max() > best:
                at = int(length.argmax())
                best, end, place = int(length[at]), index + GRAM, int(here[at])
            before, lengths = here, length
        if not best:
            return Match(0, "", None, len(found))
        turn = int(np.searchsorted(self._starts, place, "right")) - 1
        text = reply[found[end - best][1] : found[end - 1][2]]
        return Match(best, text, int(self._lines[turn]), len(found))


def classify(match: Match) -> tuple[Kind, str]:
    """Classify a match as copied, partly copied or new, with a sentence that says why.

    "copied": nine tenths of the words in one run. "partly copied": a run of at least ten words, or of six that are half
    of the reply. Below that, people say the same words by chance.
    """
    if match.total < GRAM:
        return "new", "The reply is too short to tell: such short ones are said by everybody."
    if match.line is None:
        return "new", f"No {GRAM} words in a row stand in the training data."
    where = f"in line {match.line:,} of the training data"
    if match.share >= 0.9:
        how_much = f"All {match.total} words" if match.words == match.total else f"{match.words} of {match.total} words"
        return "copied", f"{how_much} of the reply stand in a row {where}."
    said = f"{match.words} of its {match.total} words stand in a row {where}"
    if match.words >= 10 or (match.words >= 6 and match.share >= 0.5):
        return "partly copied", f"{said}: “{_shorten(match.text)}”."
    return "new", f"At most {said}, which happens by chance: “{_shorten(match.text)}”."


def words(text: str) -> list[str]:
    """The words of a text as they are compared: without capitals, punctuation and apostrophes."""
    return [word for word, _, _ in _spans(text)]


def _spans(text: str) -> Iterator[tuple[str, int, int]]:
    """Words with their beginning and end in the text."""
    for number, found in enumerate(_WORD.finditer(text)):
        if number == LONGEST_REPLY:
            return
        yield _plain(found.group()), found.start(), found.end()


def _plain(word: str) -> str:
    """A word as it is compared."""
    return re.sub("['’]", "", unicodedata.normalize("NFKC", word).casefold())


def _number(word: str) -> int:
    """64 bits that stand for a word."""
    digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _hash_ngrams(numbers: Any) -> Any:
    """Word numbers [n] -> 64 bits for each run of GRAM words [n - GRAM + 1].

    A polynomial modulo 2**64 whose result is mixed as splitmix64 ends (Steele, Lea & Flood 2014), so that the highest
    bits, by which the buckets go, depend on every word.
    """
    import numpy as np

    count = max(len(numbers) - GRAM + 1, 0)
    mixed = np.zeros(count, dtype="<u8")
    for offset in range(GRAM):
        mixed = mixed * np.uint64(0x9E3779B97F4A7C15) + numbers[offset : offset + count]
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def _turns(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of each turn, without system texts."""
    for item in iterate(path, need_reply=False):
        if not isinstance(item, Problem):
            for turn in item.conversation.turns:
                yield item.line, turn.text


def _write_grams(path: Path, folder: Path, progress: ProgressCallback) -> int:
    """The grams of a file into buckets by their highest bits. Returns how many turns there are."""
    turns = 0
    with ExitStack() as stack:
        names = ("starts", "lines", *(f"bucket-{one}" for one in range(BUCKETS)))
        starts, lines, *buckets = (stack.enter_context(open(folder / name, "wb")) for name in names)
        grams = _GramWriter(buckets)
        for line, text in _turns(path):
            starts.write(grams.place.to_bytes(8, "little"))
            lines.write(line.to_bytes(8, "little"))
            turns += 1
            if grams.add(text):
                progress(Progress(f"{turns:,} turns.", done=turns))
        grams.flush()
    return turns


class _GramWriter:
    """Turns one after the other -> their grams with their places, each pair in the bucket of its gram."""

    def __init__(self, buckets: Sequence[BinaryIO]):
        self._buckets = buckets
        self._known: dict[str, int] = {}
        self._numbers: list[int] = []  # Of the words that wait to be written.
        self._ends: list[int] = []  # Where turns end among them.
        self._written = 0

    @property
    def place(self) -> int:
        """Where the next word stands, counted over all turns."""
        return self._written + len(self._numbers)

    def add(self, text: str) -> bool:
        """One turn. Whether something was written."""
        for found in _WORD.finditer(text):
            self._numbers.append(self._known.get(found.group()) or self._learn(found.group()))
        self._ends.append(len(self._numbers))
        if len(self._numbers) < CHUNK_WORDS:
            return False
        self.flush()
        return True

    def _learn(self, word: str) -> int:
        if len(self._known) >= KNOWN_WORDS:
            self._known.clear()
        return self._known.setdefault(word, _number(_plain(word)))

    def flush(self) -> None:
        """Write what waits."""
        import numpy as np

        grams = _hash_ngrams(np.array(self._numbers, dtype="<u8"))
        inside = np.ones(len(grams), dtype=bool)  # A run must not reach from one turn into the next.
        for end in self._ends:
            inside[max(end - GRAM + 1, 0) : end] = False
        places = np.arange(self._written, self._written + len(grams), dtype="<u8")
        pairs = np.stack([grams, places], axis=1)[inside]
        owners = pairs[:, 0] // np.uint64(2**64 // BUCKETS)
        order = np.argsort(owners, kind="stable")
        bounds = np.searchsorted(owners[order], np.arange(BUCKETS + 1, dtype="<u8"))
        for one, bucket in enumerate(self._buckets):
            bucket.write(pairs[order[bounds[one] : bounds[one + 1]]].tobytes())
        self._written = self.place
        self._numbers.clear()
        self._ends.clear()


def _sort_grams(folder: Path) -> None:
    """The buckets, each sorted, one after the other: two files of numbers that belong together."""
    import numpy as np

    with open(folder / "grams", "wb") as grams, open(folder / "places", "wb") as places:
        for one in range(BUCKETS):
            bucket = folder / f"bucket-{one}"
            pairs = np.fromfile(bucket, dtype="<u8").reshape(-1, 2)
            pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]  # Places stay in their order.
            grams.write(pairs[:, 0].tobytes())
            places.write(pairs[:, 1].tobytes())
            bucket.unlink()


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 120 else text[:119] + "…"
