"""Exports a model: as a zip of its folder, or to a repository on the Hub, with a model card that says how it was made.

Only files that a model needs leave this computer: no checkpoint, no conversation, nothing pickled, no path of this
computer, and never a token. Loads no model; an adapter is merged elsewhere before it is exported as a whole model.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

from chat_app.config.paths import Paths
from chat_app.errors import BusyError, ChatAppError, ModelError, SettingError
from chat_app.models.model_card import PICTURE, export_card, public_name
from chat_app.models.resolver import ModelFiles, find
from chat_app.runs.files import read_json
from chat_app.runs.loss_plot import curves_svg
from chat_app.runs.run import Run, is_run_folder, split_name

As = Literal["merged", "adapter"]
Contents = Mapping[str, Path | bytes]

_FILES = re.compile(
    r"(config|generation_config|chat_format|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab"
    r"|adapter_config|model\.safetensors\.index)\.json"
    r"|merges\.txt|vocab\.(txt|bpe)|encoder\.json|chat_template\.jinja|tokenizer\.model|spiece\.model"
    r"|(model|adapter_model)(-\d{5}-of-\d{5})?\.safetensors"
)
_PATHS = ("_name_or_path", "name_or_path", "base_model_name_or_path")
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # A fixed date: the same model gives the same zip.
_BLOCK = 1 << 20
_HUB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")


def find_export_source(name: str, paths: Paths, as_: As = "merged") -> tuple[Path, Run | None]:
    """Find the folder of a model by its name, and the run that trained it, if it was trained here.

    Raises:
        ModelError: there is no such model here, or none of that form.
    """
    files = find(name, paths)
    run_name, step = split_name(name)
    if step is not None:
        raise ModelError(
            "A checkpoint is for going on with a training, and not for taking away.",
            advice=f"Export the run's best model: {run_name}.",
        )
    run = _find_run_of(name, files, paths)
    if as_ == "adapter":
        folder = run.adapter if run is not None else files.adapter.folder if files.adapter is not None else None
        if folder is None or not folder.is_dir():
            raise ModelError(f"'{name[:200]}' has no adapter.", advice="Leave --adapter out.")
        return folder, run
    if run is not None:
        return run.model, run
    folder = files.adapter.folder if files.adapter is not None else files.folder
    if folder is None:
        raise ModelError(f"'{name[:200]}' is not on this computer.", advice="Load it once, then it is.")
    return folder, None


def _find_run_of(name: str, files: ModelFiles, paths: Paths) -> Run | None:
    if files.kind == "run":
        return Run(paths.runs / name)
    folder = Path(name).expanduser()
    return Run(folder.resolve()) if files.kind == "folder" and is_run_folder(folder) else None


def export(
    source_folder: Path, target_zip: Path, *, run: Run | None = None, licence: str = "", as_: As = "merged"
) -> Path:
    """Write a zip of a model folder, whole or not at all; unzipped it is a folder that transformers loads.

    Args:
        run: the training that the model came from; it gives the card its numbers and the picture of the curves.
        licence: as the Hub spells it, such as "mit"; empty leaves it to be filled in.
        as_: "merged" for a whole model, "adapter" for an adapter that needs its base model.

    Raises:
        ModelError: there is no such model in the folder, or the zip cannot be written.
        SettingError: the licence is no name.
    """
    contents = collect(source_folder, run=run, licence=licence, as_=as_)
    temporary = target_zip.with_name(f".{target_zip.name}.{secrets.token_hex(4)}")
    try:
        target_zip.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(temporary, "w", allowZip64=True) as archive:
            for name, content in contents.items():
                _add(archive, name, content)
        os.replace(temporary, target_zip)
    except OSError as error:
        raise ModelError(
            f"The zip cannot be written ({error.strerror or type(error).__name__}).",
            where=target_zip.name,
            advice="Choose another folder, or free some space.",
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return target_zip


def push(
    folder: Path,
    name: str,
    token: str,
    private: bool = True,
    *,
    run: Run | None = None,
    licence: str = "",
    as_: As = "merged",
    endpoint: str | None = None,
) -> str:
    """Upload a model to the Hub, in one commit. The token is used for this call; it is neither kept nor written
    anywhere.

    Args:
        name: "model" or "owner/model".
        token: with the right to write.
        private: whether a new repository is seen by its owner only; one that is there already stays as it is.
        endpoint: the address of the Hub, if it is not the usual one.

    Returns:
        The address of the model's page.

    Raises:
        SettingError: the name or the token cannot be one.
        ModelError: there is no model in the folder, or the Hub refuses.
        BusyError: the Hub cannot be reached.
    """
    if not _HUB_NAME.fullmatch(name) or ".." in name or "--" in name:
        raise SettingError(
            "name", f"'{name[:100]}' is no name for the Hub.", advice="Write your-name/model-name, without spaces."
        )
    token = token.strip()
    if not re.fullmatch(r"[!-~]{8,512}", token):
        raise SettingError(
            "token", "This is no token.", advice="Make one with write access at huggingface.co/settings/tokens."
        )
    contents = collect(folder, run=run, licence=licence, as_=as_)
    refusal: ChatAppError
    try:
        return _commit(contents, name, token, private, endpoint)
    except Exception as error:  # The network library may raise anything, with the request in it.
        refusal = _refusal(error, name)
    # Outside the block, so that the original error, whose frames may hold the token, is not chained to this one.
    raise refusal


def collect(folder: Path, *, run: Run | None = None, licence: str = "", as_: As = "merged") -> Contents:
    """Collect the files of an export: name -> a file to copy, or the contents of one that is written for it.

    Raises:
        ModelError: there is no such model in the folder.
        SettingError: the licence is no name.
    """
    files = {path.name: path for path in _candidates(folder) if _FILES.fullmatch(path.name)}
    is_adapter = "adapter_config.json" in files and "model.safetensors" not in files
    weights = [name for name in files if name.endswith(".safetensors")]
    if as_ == "merged" and is_adapter:
        raise ModelError(
            "This model is an adapter.",
            where=folder.name,
            advice="Merge it with its base model first, or export it as an adapter.",
        )
    needed = "adapter_config.json" if as_ == "adapter" else "config.json"
    if needed not in files or not weights:
        missing = needed if needed not in files else "safetensors with its weights"
        raise ModelError(f"There is no model to export: {missing} is missing.", where=folder.name)
    prefix = "adapter_" if as_ == "adapter" else "model"
    kept = {name: path for name, path in sorted(files.items()) if name not in weights or name.startswith(prefix)}
    contents: dict[str, Path | bytes] = {}
    for name, path in kept.items():
        contents[name] = _without_paths(path) if name.endswith("config.json") else path
    picture = curves_svg(run.metrics()) if run is not None else ""
    if picture:
        contents[PICTURE] = picture.encode()
    config = read_json(folder / "config.json")
    card = export_card(
        run, licence=licence, as_=as_, has_picture=bool(picture), config=config if isinstance(config, dict) else {}
    )
    contents["README.md"] = card.encode("utf-8", "replace")
    return contents


def _candidates(folder: Path) -> list[Path]:
    """Regular files; a link could point to a file that does not belong to the model."""
    if not folder.is_dir():
        raise ModelError("There is no model to export.", where=folder.name)
    return [path for path in folder.iterdir() if path.is_file() and not path.is_symlink()]


def _without_paths(path: Path) -> bytes | Path:
    """A settings file without paths of this computer."""
    values = read_json(path)
    if not isinstance(values, dict):
        return path
    found = [name for name in _PATHS if isinstance(values.get(name), str)]
    changed = {name: public_name(values[name]) for name in found}
    if all(values[name] == changed[name] for name in found):
        return path
    return (json.dumps({**values, **changed}, indent=2, ensure_ascii=False) + "\n").encode()


def _add(archive: zipfile.ZipFile, name: str, content: Path | bytes) -> None:
    """Add a file, a block at a time. Compression makes texts smaller, but not weights."""
    entry = zipfile.ZipInfo(name, _LONG_AGO)
    entry.compress_type = zipfile.ZIP_STORED if name.endswith(".safetensors") else zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    if isinstance(content, bytes):
        archive.writestr(entry, content)
        return
    with open(content, "rb") as source, archive.open(entry, "w", force_zip64=True) as target:
        while block := source.read(_BLOCK):
            target.write(block)


def _commit(contents: Contents, name: str, token: str, private: bool, endpoint: str | None) -> str:
    from huggingface_hub import CommitOperationAdd, HfApi

    hub = HfApi(endpoint=endpoint, token=token)
    repository = hub.create_repo(name, private=private, exist_ok=True)
    files = [CommitOperationAdd(one, content) for one, content in contents.items()]
    hub.create_commit(repository.repo_id, files, commit_message="A model made with chat_app")
    return str(repository)


def _refusal(error: Exception, name: str) -> ChatAppError:
    """The error to raise. It has nothing of the original error's text, which may quote the request."""
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, OfflineModeIsEnabled):
        return BusyError(
            "This computer is set to stay offline.", advice="Unset HF_HUB_OFFLINE and start the app again."
        )
    if status == 401:
        return ModelError("The Hub does not know this token.", advice="Copy it again, or make a new one.")
    if status == 403:
        return ModelError(
            f"This token may not write to {name}.",
            advice="Make one with write access, or choose a name under your own.",
        )
    if status == 404:
        return ModelError(f"The Hub has no place called {name} for you.", advice="Check the part before the slash.")
    if status is not None and status < 500:
        return ModelError(f"The Hub refused the model (answer {status}).", advice="Try another name.")
    if status is not None:
        return BusyError(f"The Hub has trouble (answer {status}).", advice="Try again later.")
    if isinstance(error, (HTTPError, OSError)):
        return BusyError("The Hub cannot be reached.", advice="Check the connection to the internet and try again.")
    return ModelError(f"The model could not be put on the Hub ({type(error).__name__}).", advice="Try again.")
