"""Tokenized datasets: examples made once from conversations or running text, cached on disk and memory-mapped.

Memory use does not grow with the number of examples: the operating system reads the pages that a batch needs.
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from chat_app.conversation import Conversation
from chat_app.data.readers import has_text, iterate_conversations
from chat_app.data.text_corpus import read_chunks
from chat_app.errors import DataError
from chat_app.system.disk_cache import Cache, digest_content
from chat_app.system.progress import Progress, ProgressCallback, ignore_progress
from chat_app.tokenization.encoder import IGNORE_INDEX, Encoder, Example, Learn

if TYPE_CHECKING:
    from pyarrow import Table

VERSION = "2"  # Part of every key: raise it when encoding or the file changes, so that cached datasets are rebuilt.
ROWS, FACTS = "rows.arrow", "facts.json"
AT_ONCE = 1_000
WINDOW_LIMIT = 1024  # The default limit for the tokens of an example, also if the model has a longer window.


@dataclass(frozen=True)
class TokenizationOptions:
    """How a conversation is divided into examples; see `Encoder.examples`.

    Attributes:
        learn: whether the replies or all turns count in the loss.
        new_share: the share of the window for turns in the loss, in all but the first example of a long conversation.
        max_turns: the most turns of an example; 0 for no limit.
    """

    learn: Learn = "replies"
    new_share: float = 0.5
    max_turns: int = 0


class _ExampleSequence(Sequence[Example]):
    """Indexing and slicing of examples; a subclass implements `_at` for one index, from 0."""

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


class TokenizedDataset(_ExampleSequence):
    """Examples on disk.

    Args:
        folder: an entry of the disk cache, made by `tokenize_conversations` or `tokenize_text`.
    """

    def __init__(self, folder: Path):
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        self.cut_turns: int = facts["cut_turns"]
        self.tokens: int = facts["tokens"]
        self._length: int = facts["rows"]
        self._has_types: bool = facts["types"]
        self._data: Table | None = _open_mapped(folder / ROWS) if self._length else None

    def __len__(self) -> int:
        return self._length

    def _at(self, index: int) -> Example:
        assert self._data is not None
        row = {name: self._data[name][index].as_py() for name in self._data.column_names}
        labels = [token if kept else IGNORE_INDEX for token, kept in zip(row["ids"], row["loss_mask"], strict=True)]
        return Example(row["ids"], row["types"] if self._has_types else None, labels)

    def lengths(self) -> list[int]:
        """The number of tokens of each example."""
        found: list[int] = [] if self._data is None else self._data["length"].to_pylist()
        return found

    def digest(self) -> str:
        """A digest of the examples: equal if and only if the same is learned."""
        whole = hashlib.sha256()
        for name in self._data.column_names if self._data is not None else ():
            assert self._data is not None
            column = self._data[name]
            for chunk in column.chunks:
                values = chunk.flatten() if hasattr(chunk, "flatten") and chunk.type.num_fields else chunk
                whole.update(values.to_numpy(zero_copy_only=False).tobytes())
        return whole.hexdigest()


def _open_mapped(file: Path) -> Table:
    """A memory-mapped file in Arrow's stream format, whose pages are read when they are used."""
    import pyarrow

    with pyarrow.memory_map(str(file)) as source, pyarrow.ipc.open_stream(source) as stream:
        return stream.read_all()


class ConcatenatedDataset(_ExampleSequence):
    """The examples of two datasets, one after the other, without copying either."""

    def __init__(self, first: TokenizedDataset | ConcatenatedDataset, second: TokenizedDataset):
        self._first, self._second = first, second
        self.cut_turns: int = first.cut_turns + second.cut_turns
        self.tokens: int = first.tokens + second.tokens

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    def _at(self, index: int) -> Example:
        return self._first[index] if index < len(self._first) else self._second[index - len(self._first)]

    def lengths(self) -> list[int]:
        """The number of tokens of each example."""
        return self._first.lengths() + self._second.lengths()

    def digest(self) -> str:
        """A digest of the examples: equal if and only if the same is learned."""
        return self._first.digest() + self._second.digest()


def tokenize_conversations(
    file: Path,
    encoder: Encoder,
    options: TokenizationOptions,
    cache: Cache,
    *,
    progress: ProgressCallback = ignore_progress,
) -> TokenizedDataset:
    """Tokenize a file of conversations, or take the dataset from the cache.

    Args:
        file: JSON Lines as `write_jsonl` writes them; a missing or empty file gives no examples.
        encoder: the tokenizer, the format and the window.
        options: how conversations are divided into examples.
        cache: where the dataset is kept.
        progress: is given the number of conversations encoded so far.

    Raises:
        DataError: a conversation cannot be encoded, or the disk is too full.
    """
    return _find_or_make(file, encoder, options, cache, _encode_conversations(file, encoder, options, progress))


def tokenize_text(
    file: Path, encoder: Encoder, cache: Cache, *, progress: ProgressCallback = ignore_progress
) -> TokenizedDataset:
    """Tokenize a file of running text, or take the dataset from the cache.

    The text is cut into examples of a full window, and every token counts in the loss.
    """
    return _find_or_make(file, encoder, None, cache, _encode_text(file, encoder, progress))


def _find_or_make(
    file: Path, encoder: Encoder, options: TokenizationOptions | None, cache: Cache, batches: Iterator[list[Example]]
) -> TokenizedDataset:
    key = digest_content([VERSION, _encoding_key(encoder, options), *([file] if file.exists() else [])])
    dataset = cache.find_or_make(key, _open_dataset, lambda folder: _make(folder, batches, encoder.format.has_types))
    if dataset is None:
        raise DataError("The prepared conversations could not be kept.", advice="Free some space on the disk.")
    return dataset


def _encode_conversations(
    file: Path, encoder: Encoder, options: TokenizationOptions, progress: ProgressCallback
) -> Iterator[list[Example]]:
    done = 0
    try:
        said = iterate_conversations(file) if has_text(file) else iter(())
        for conversations in _in_batches(said, AT_ONCE):
            encoder.prepare(text for one in conversations for text in (*one.texts, one.system or ""))
            chosen = (options.learn, options.new_share, options.max_turns)
            yield [example for one in conversations for example in encoder.examples(one, *chosen)]
            done += len(conversations)
            progress(Progress(done=done))
    finally:
        encoder.forget()


def _encode_text(file: Path, encoder: Encoder, progress: ProgressCallback) -> Iterator[list[Example]]:
    separator = encoder.tokenizer.bos_token_id
    ids: list[int] = []
    for number, text in enumerate(read_chunks(file), start=1):
        ids += encoder.text_ids(text)
        if separator is not None:
            ids.append(int(separator))
        full = len(ids) - len(ids) % encoder.window
        yield [_text_example(ids[start : start + encoder.window], encoder) for start in range(0, full, encoder.window)]
        ids = ids[full:]
        progress(Progress(done=number))
    if len(ids) > 1:
        yield [_text_example(ids, encoder)]


def _text_example(ids: list[int], encoder: Encoder) -> Example:
    return Example(ids, [0] * len(ids) if encoder.format.has_types else None, ids)


def _make(folder: Path, batches: Iterator[list[Example]], has_types: bool) -> None:
    import pyarrow

    whole = {
        "ids": pyarrow.list_(pyarrow.int32()),
        "loss_mask": pyarrow.list_(pyarrow.bool_()),
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
        "loss_mask": [[label != IGNORE_INDEX for label in row.labels] for row in rows],
        "length": [len(row.ids) for row in rows],
    }
    if has_types:
        columns["types"] = [row.types for row in rows]
    return columns


def _encoding_key(encoder: Encoder, options: TokenizationOptions | None) -> str:
    """Everything but the conversations that determines the ids of the examples."""
    tokenizer = encoder.tokenizer.backend_tokenizer.to_str()
    template = encoder.tokenizer.chat_template if encoder.format.render is None else ""
    values = [encoder.format.name, sorted(encoder.special_tokens.items()), encoder.window, tokenizer, template]
    return json.dumps([*values, asdict(options) if options else "text"], default=str)


def _in_batches(conversations: Iterator[Conversation], size: int) -> Iterator[list[Conversation]]:
    while batch := list(islice(conversations, size)):
        yield batch


def _open_dataset(entry: Path) -> TokenizedDataset | None:
    """The dataset of a cache entry, or None if the entry is damaged."""
    try:
        return TokenizedDataset(entry)
    except (OSError, ValueError, KeyError):  # pyarrow's errors are ValueErrors
        return None
