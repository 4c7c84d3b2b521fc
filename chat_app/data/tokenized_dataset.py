"""Rows for a model, made once from conversations or running text, kept by content and mapped into memory from the disk.

Ten conversations and a million cost the same memory: the system reads from the disk what a batch needs.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from chat_app.conversation import Conversation
from chat_app.data.readers import conversations_of, has_text
from chat_app.data.text_corpus import read_pieces
from chat_app.errors import DataError
from chat_app.system.disk_cache import Cache, content_digest
from chat_app.system.progress import Progress, ProgressCallback, ignore_progress
from chat_app.tokenization.encoder import NOT_LEARNED, Encoder, Example, Learn

if TYPE_CHECKING:
    from pyarrow import Table

VERSION = "1"  # Another one, and all rows are made anew.
ROWS, FACTS = "rows.arrow", "facts.json"
AT_ONCE = 1_000
WINDOW_LIMIT = 1024  # The most tokens of a row where nobody asks for more, however many the model sees.


@dataclass(frozen=True)
class TokenizationOptions:
    """How conversations become rows, beside the tokenizer and the format: see Encoder.examples.

    Attributes:
        learn: "replies" or "all".
        new_share: of the window of each further row of a long conversation.
        max_turns: the most turns a row shows, 0 for no limit.
    """

    learn: Learn = "replies"
    new_share: float = 0.5
    max_turns: int = 0


class _Numbered(Sequence[Example]):
    """Rows that can be asked for by number; each kind says what stands at one, from 0."""

    @abstractmethod
    def _at(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...

    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        length = len(self)
        if isinstance(index, slice):
            return [self._at(one) for one in range(*index.indices(length))]
        if not -length <= index < length:
            raise IndexError(index)
        return self._at(index % length)


class TokenizedDataset(_Numbered):
    """Rows on disk.

    Args:
        folder: an entry of the cache, made by `rows_of`.
    """

    def __init__(self, folder: Path):
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        self.cut_turns: int = facts["cut_turns"]
        self.tokens: int = facts["tokens"]
        self._length: int = facts["rows"]
        self._has_types: bool = facts["types"]
        self._data: Table | None = _mapped(folder / ROWS) if self._length else None

    def __len__(self) -> int:
        return self._length

    def _at(self, index: int) -> Example:
        assert self._data is not None
        row = {name: self._data[name][index].as_py() for name in self._data.column_names}
        labels = [token if learned else NOT_LEARNED for token, learned in zip(row["ids"], row["learned"], strict=True)]
        return Example(row["ids"], row["types"] if self._has_types else None, labels)

    def lengths(self) -> list[int]:
        """Tokens of each row."""
        found: list[int] = [] if self._data is None else self._data["length"].to_pylist()
        return found


def _mapped(file: Path) -> Table:
    """A file of Arrow's stream format, of which only that is read which somebody asks for."""
    import pyarrow

    with pyarrow.memory_map(str(file)) as source, pyarrow.ipc.open_stream(source) as stream:
        return stream.read_all()


class ConcatenatedDataset(_Numbered):
    """Rows of conversations, then rows of running text.

    Args:
        first, second: both stay where they are.
    """

    def __init__(self, first: TokenizedDataset, second: TokenizedDataset):
        self._first, self._second = first, second
        self.cut_turns = first.cut_turns
        self.tokens = first.tokens + second.tokens

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    def _at(self, index: int) -> Example:
        return self._first[index] if index < len(self._first) else self._second[index - len(self._first)]

    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return self._first.lengths() + self._second.lengths()


def tokenize_conversations(
    file: Path,
    encoder: Encoder,
    rules: TokenizationOptions,
    cache: Cache,
    *,
    progress: ProgressCallback = ignore_progress,
) -> TokenizedDataset:
    """The rows of a file of conversations, from the cache where they were made before.

    Args:
        file: JSON Lines as `write_jsonl` writes them; none or an empty one gives no rows.
        progress: is given the number of conversations encoded so far.

    Raises:
        DataError: a conversation cannot be laid out, or the disk is too full to keep the rows.
    """
    return _kept(file, encoder, rules, cache, _of_conversations(file, encoder, rules, progress))


def tokenize_text(
    file: Path, encoder: Encoder, cache: Cache, *, progress: ProgressCallback = ignore_progress
) -> TokenizedDataset:
    """The rows of pieces of running text: the window is filled from end to end, and everything is learned."""
    return _kept(file, encoder, None, cache, _of_text(file, encoder, progress))


def _kept(
    file: Path, encoder: Encoder, rules: TokenizationOptions | None, cache: Cache, batches: Iterator[list[Example]]
) -> TokenizedDataset:
    key = content_digest([VERSION, _signature(encoder, rules), *([file] if file.exists() else [])])
    rows = cache.find_or_make(key, _opened, lambda folder: _make(folder, batches, encoder.format.has_types))
    if rows is None:
        raise DataError("The prepared conversations could not be kept.", advice="Free some space on the disk.")
    return rows


def _of_conversations(
    file: Path, encoder: Encoder, rules: TokenizationOptions, progress: ProgressCallback
) -> Iterator[list[Example]]:
    done = 0
    try:
        said = conversations_of(file) if has_text(file) else iter(())
        for conversations in _in_batches(said, AT_ONCE):
            encoder.prepare(text for one in conversations for text in (*one.texts, one.system or ""))
            shapes = (rules.learn, rules.new_share, rules.max_turns)
            yield [row for one in conversations for row in encoder.examples(one, *shapes)]
            done += len(conversations)
            progress(Progress(done=done))
    finally:
        encoder.forget()


def _of_text(file: Path, encoder: Encoder, progress: ProgressCallback) -> Iterator[list[Example]]:
    separator = encoder.tokenizer.bos_token_id
    ids: list[int] = []
    for number, text in enumerate(read_pieces(file), start=1):
        ids += encoder.text_ids(text)
        if separator is not None:
            ids.append(int(separator))
        full = len(ids) - len(ids) % encoder.window
        yield [_text_row(ids[start : start + encoder.window], encoder) for start in range(0, full, encoder.window)]
        ids = ids[full:]
        progress(Progress(done=number))
    if len(ids) > 1:
        yield [_text_row(ids, encoder)]


def _text_row(ids: list[int], encoder: Encoder) -> Example:
    return Example(ids, [0] * len(ids) if encoder.format.has_types else None, ids)


def _make(folder: Path, batches: Iterator[list[Example]], has_types: bool) -> None:
    import pyarrow

    whole = {
        "ids": pyarrow.list_(pyarrow.int32()),
        "learned": pyarrow.list_(pyarrow.bool_()),
        "length": pyarrow.int32(),
    }
    if has_types:
        whole["types"] = pyarrow.list_(pyarrow.int32())
    schema = pyarrow.schema(whole)
    count = cut = tokens = 0
    with pyarrow.OSFile(str(folder / ROWS), "wb") as file, pyarrow.ipc.new_stream(file, schema) as writer:
        for rows in batches:
            if rows:
                writer.write_batch(pyarrow.record_batch(_columns(rows, has_types), schema=schema))
            count += len(rows)
            cut += sum(row.cut_tokens > 0 for row in rows)
            tokens += sum(len(row.ids) for row in rows)
    facts = {"rows": count, "cut_turns": cut, "tokens": tokens, "types": has_types}
    (folder / FACTS).write_text(json.dumps(facts), encoding="utf-8")


def _columns(rows: Sequence[Example], has_types: bool) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {
        "ids": [row.ids for row in rows],
        "learned": [[label != NOT_LEARNED for label in row.labels] for row in rows],
        "length": [len(row.ids) for row in rows],
    }
    if has_types:
        columns["types"] = [row.types for row in rows]
    return columns


def _signature(encoder: Encoder, rules: TokenizationOptions | None) -> str:
    """Everything beside the conversations that decides the ids of a row."""
    tokenizer = encoder.tokenizer.backend_tokenizer.to_str()
    template = encoder.tokenizer.chat_template if encoder.format.render is None else ""
    values = [encoder.format.name, sorted(encoder.marks.items()), encoder.window, tokenizer, template]
    return json.dumps([*values, asdict(rules) if rules else "text"], default=str)


def _in_batches(conversations: Iterator[Conversation], size: int) -> Iterator[list[Conversation]]:
    while batch := list(islice(conversations, size)):
        yield batch


def _opened(entry: Path) -> TokenizedDataset | None:
    """The rows, or None where they are damaged."""
    try:
        return TokenizedDataset(entry)
    except (OSError, ValueError, KeyError):  # pyarrow's errors are ValueErrors
        return None
