"""The recipe of a run: the same training as a YAML file, and as a command line."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from chat_app.config.fields import to_mapping
from chat_app.config.training import TrainConfig
from chat_app.data.readers import ReadingOptions
from chat_app.data.source import HUB_SETTINGS, format_value
from chat_app.errors import DataError, SettingError
from chat_app.runs.files import write_text
from chat_app.runs.run import Run

FILE = "train.yaml"
_MOST_BYTES = 2**20
_LISTS = ("columns", "repair", "question")
# What a recipe may hold besides settings and files: what else the flags of the command `train` can say.
_BESIDES = frozenset([*HUB_SETTINGS, *(one.name for one in fields(ReadingOptions)), "repair", "question"])


def differences(config: TrainConfig) -> dict[str, Any]:
    """The settings that are not at their defaults."""
    defaults = {one.name: one.default for one in fields(TrainConfig)}
    return {name: value for name, value in to_mapping(config).items() if value != defaults[name]}


def build_command(
    config: TrainConfig, files: Sequence[str | Path], valid: str | Path | None = None, more: Sequence[str] = ()
) -> str:
    """The command line that does the same, quoted for a shell.

    Args:
        files: of conversations to learn. valid: one to test on. more: flags that say how the files are read.
    """
    parts = ["python", "-m", "chat_app", "train"]
    if files:
        parts += ["--data", *map(str, files)]
    if valid is not None:
        parts += ["--valid", str(valid)]
    for name, value in differences(config).items():
        parts += ["--" + name.replace("_", "-"), format_value(value)]
    return shlex.join([*parts, *more])


def command_for(run: Run, config: TrainConfig | None = None) -> str:
    """The command line that does what a run does.

    Args:
        config: its settings, if they are to be shown otherwise than they are.

    Raises:
        RunError: the run cannot be read.
    """
    about = run.about()
    if about.get("from_nothing"):
        return _build_scratch_commands(config or run.config(), [str(one) for one in about.get("files") or ()], about)
    flags = [str(one) for one in about.get("reading") or ()]
    files = [] if "--hub" in flags else [str(one) for one in about.get("files") or ()]
    asked = [part for one in about.get("questions") or () for part in ("--question", str(one))]
    return build_command(config or run.config(), files, more=[*flags, *asked])


def _build_scratch_commands(config: TrainConfig, files: Sequence[str], about: Mapping[str, Any]) -> str:
    """Two commands: the words, then the model."""
    words = ["--data", *files, "--vocab-size", str(about.get("vocabulary", 8192)), "--out", "words"]
    tokenizer = shlex.join(["python", "-m", "chat_app", "tokenizer", *words])
    parts = ["--data", *files, "--tokenizer", "words", "--size", str(about["from_nothing"]), "--out", "model"]
    parts += ["--epochs", format_value(config.epochs)]
    return f"{tokenizer}\n{shlex.join(['python', '-m', 'chat_app', 'pretrain', *parts])}"


def build_recipe(
    config: TrainConfig,
    files: Sequence[str | Path],
    valid: str | Path | None = None,
    besides: Mapping[str, Any] | None = None,
) -> str:
    """The same as YAML, for `--config`: the files, what differs from the defaults, and the rest as comments.

    Args:
        besides: how the files are read, as `DataSource.to_settings` gives it, and the questions.
    """
    import yaml

    def line(name: str, value: Any) -> str:
        return yaml.safe_dump({name: value}, allow_unicode=True, sort_keys=False, width=1000)

    different = differences(config)
    text = "# python -m chat_app train --config FILE does this training again.\n"
    text += line("data", [str(file) for file in files]) if files else ""
    if valid is not None:
        text += line("valid", str(valid))
    text += "".join(line(name, value) for name, value in {**(besides or {}), **different}.items())
    others = {name: value for name, value in to_mapping(config).items() if name not in different}
    return text + "\n# At their defaults:\n" + "".join(f"# {line(name, value)}" for name, value in others.items())


def write_recipe(
    run: Run, files: Sequence[str | Path], reading: Mapping[str, Any], valid: str | Path | None = None
) -> None:
    """Put a run's recipe into its folder.

    Args:
        files: as `train --data` would be given them; none for a data set of the Hub.
        reading: how the files are read, from `DataSource.to_settings`.
        valid: the file for validation, if one was given.
    """
    asked = run.about().get("questions")
    besides = {**reading, "question": list(asked)} if asked else reading
    write_text(run.folder / FILE, build_recipe(run.config(), files, valid, besides))


def copy_recipe(run: Run, new: Run) -> None:
    """Give a run that learns the same with other settings the recipe for that, if the first one has any."""
    path = run.folder / FILE
    if path.is_file():
        _, files, valid = read_recipe(path)
        write_text(new.folder / FILE, build_recipe(new.config(), files, valid, read_besides(path)))


def read_recipe(path: Path) -> tuple[dict[str, Any], list[str], str | None]:
    """The settings in a YAML file, and the files of conversations that it names: to learn, and to test on.

    Names of files are meant from where the YAML file lies, unless they are found from here.

    Raises:
        DataError: it cannot be read. SettingError: it is no list of settings.
    """
    values = {name: value for name, value in _values(path).items() if name not in _BESIDES}
    files = _names(values.pop("data", []), "data")
    valid = _names(values.pop("valid", []), "valid")
    if len(valid) > 1:
        raise SettingError("valid", "Only one file can be tested on.", advice="Put them together.")
    found = [_resolve_file(name, path) for name in (*files, *valid)]
    return values, found[: len(files)], found[len(files)] if valid else None


def read_besides(path: Path) -> dict[str, Any]:
    """What a YAML file says about how files are read, and the questions in it, by the names of the flags.

    Raises:
        As read_recipe.
    """
    found = {name: value for name, value in _values(path).items() if name in _BESIDES}
    for name, value in found.items():
        if name in _LISTS:
            found[name] = _names(value, name, "texts")
        elif name in HUB_SETTINGS and not isinstance(value, str):
            raise SettingError(name, "This is no name.", advice=f"Write `{name}: name`.")
    return found


def _values(path: Path) -> dict[str, Any]:
    import yaml

    try:
        if path.stat().st_size > _MOST_BYTES:
            raise SettingError(str(path), "This is too long for a file of settings.")
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"The settings file {path} cannot be read.", advice="Check its name.") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise SettingError(str(path), f"This is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise SettingError(str(path), "This is no list of settings.", advice="Write one `name: value` a line.")
    return {str(name).replace("-", "_"): value for name, value in values.items()}


def _names(value: Any, name: str, what: str = "files") -> list[str]:
    names = [value] if isinstance(value, str) else value if isinstance(value, list) else None
    if names is None or not all(isinstance(one, str) and one for one in names):
        example = "first.tsv, second.jsonl" if what == "files" else "first, second"
        raise SettingError(name, f"This is no list of {what}.", advice=f"Write `{name}: [{example}]`.")
    return names


def _resolve_file(name: str, recipe: Path) -> str:
    beside = recipe.parent / name
    return str(beside) if not Path(name).exists() and beside.exists() else name
