"""What a person brings -> gathered conversations, their check, and the mended set as a file.

Files and data sets of the Hub are the same from here on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from chat_app.config.paths import STARTER, Paths
from chat_app.data.dataset import Material, gather, gather_items
from chat_app.data.quality import Check, Checker
from chat_app.data.readers import ReadingOptions
from chat_app.data.tokenized_dataset import WINDOW_LIMIT
from chat_app.data.writers import write_jsonl, write_tsv
from chat_app.errors import DataError
from chat_app.system.disk_cache import digest_of
from chat_app.system.progress import ProgressCallback, ignore_progress, report_items

CHECK_VERSION = "1"
REPORT_EVERY = 1_000


@dataclass(frozen=True)
class HubData:
    """A data set on the Hub. `config` and `split` may be empty: the only or first one, and all of them. With `folders`
    the name may also be that of a folder on this computer, which visitors of a server must not choose."""

    name: str
    config: str = ""
    split: str = ""
    folders: bool = True


@dataclass(frozen=True)
class Wanted:
    """What is to be learned from.

    Attributes:
        files: on this computer; `names` is what to call them, if not by their names on disk.
        hub: instead of files, a data set.
        options: how to understand it.
        repairs: names of repairs to apply.
    """

    files: tuple[Path, ...] = ()
    names: tuple[str, ...] = ()
    hub: HubData | None = None
    options: ReadingOptions = field(default_factory=ReadingOptions)
    repairs: frozenset[str] = frozenset()

    @property
    def given(self) -> list[str]:
        """What was given, by the names that a person would give again; of a folder only its end is told."""
        if self.hub is None:
            return list(self.names or (file.name for file in self.files))
        folder = Path(self.hub.name)
        return [folder.name if folder.is_absolute() or self.hub.name.startswith("~") else self.hub.name]


def reading_settings_of(wanted: Wanted) -> dict[str, Any]:
    """The same for a recipe, but for the files."""
    hub = wanted.hub
    return reading_settings(wanted.options, wanted.repairs, (hub.name, hub.config, hub.split) if hub else ())


def flags_of(wanted: Wanted) -> list[str]:
    """The flags of the command line that say the same, but for the files."""
    return reading_flags(reading_settings_of(wanted))


def gathered(
    wanted: Wanted,
    paths: Paths,
    *,
    need_reply: bool = True,
    progress: ProgressCallback = ignore_progress,
) -> Material:
    """Read what is wanted, or find what was read before.

    Raises:
        DataError: it cannot be read, or nothing of it can be used.
    """
    cache = paths.cache_of("material")
    if wanted.hub is None:
        names = wanted.names or None
        found = gather(wanted.files, cache, wanted.options, need_reply=need_reply, names=names, progress=progress)
    else:
        from chat_app.data.hub import download_of, load

        hub = wanted.hub
        begin = partial(
            load,
            hub.name,
            config=hub.config or None,
            split=hub.split or None,
            options=wanted.options,
            need_reply=need_reply,
            folders=hub.folders,
        )
        settings = orjson.dumps([asdict(hub), asdict(wanted.options), need_reply]).decode()
        folder = download_of(hub.name) if hub.folders else None
        found = gather_items(begin, [settings], hub.name, cache, progress, [folder] if folder else [])
    return found.with_repairs(wanted.repairs)


def checked(
    material: Material,
    paths: Paths,
    model: str = STARTER,
    progress: ProgressCallback = ignore_progress,
) -> Check:
    """The check of the conversations as they were read, with the tokens that a model makes of them.

    Args:
        progress: is given the number of conversations checked so far.
    """
    from chat_app.models.tokenizer import load_tokenizer, window_of

    tokenizer = load_tokenizer(model, paths)
    window = min(window_of(model, paths), WINDOW_LIMIT)
    backend = tokenizer.backend_tokenizer
    kept = material.folder / f"check-{digest_of([CHECK_VERSION, str(window), backend.to_str()])}.json"
    try:
        return Check.from_dict(orjson.loads(kept.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError):
        pass  # It was not checked before.

    def count_tokens(texts: Sequence[str]) -> list[int]:
        return [len(one.ids) for one in backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    checker = Checker(count_tokens=count_tokens, window=window)
    checker.add_all(report_items(material.as_read(), progress, REPORT_EVERY))
    check = checker.result()
    kept.write_bytes(orjson.dumps(check.to_dict()))
    return check


def write_mended(material: Material, path: Path, progress: ProgressCallback = ignore_progress) -> int:
    """The conversations with their repairs as a file; its ending, .jsonl or .tsv, tells the kind.

    Returns:
        How many conversations lost something because the kind cannot hold it.

    Raises:
        DataError: another ending.
    """
    if path.suffix not in (".jsonl", ".tsv"):
        raise DataError(f"Conversations are not written as '{path.suffix}'.", advice="Name it .jsonl or .tsv.")

    counted = report_items(material.conversations(), progress, REPORT_EVERY)
    if path.suffix == ".tsv":
        return write_tsv(counted, path)
    write_jsonl(counted, path)
    return 0


HUB_FIELDS = ("hub", "hub_config", "hub_split")


def reading_settings(options: ReadingOptions, repairs: Iterable[str], hub: Sequence[str] = ()) -> dict[str, Any]:
    """How files are understood and mended where that is not the default, by the names of the flags.

    Args:
        hub: name, configuration and part of a data set of the Hub; the last two may be empty.
    """
    found: dict[str, Any] = {name: value for name, value in zip(HUB_FIELDS, hub, strict=False) if value}
    for one in fields(ReadingOptions):
        value = getattr(options, one.name)
        if value != one.default:
            found[one.name] = list(value) if isinstance(value, tuple) else value
    return {**found, "repair": mended} if (mended := sorted(repairs)) else found


def reading_flags(reading: Mapping[str, Any]) -> list[str]:
    """The same as flags."""
    parts = []
    for name, value in reading.items():
        flag = "--" + name.replace("_", "-")
        if name == "repair":
            parts += [flag, *value]
        else:
            parts += [
                part for one in (value if isinstance(value, list) else [value]) for part in (flag, format_value(one))
            ]
    return parts


def format_value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)
