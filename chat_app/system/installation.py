"""The installation: a source checkout, or a site-packages folder that pip installed the package into.

Finds shipped folders and sets up child processes; does not know what the folders contain.
"""

from __future__ import annotations

import os
import site
from collections.abc import Mapping
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent


def find_shipped(name: str, package: Path = PACKAGE) -> Path:
    """The path of a shipped folder: "assets" or "sample_data".

    A wheel has it inside the package; a checkout has it beside the package, at the top of the repository.
    """
    inside = package / name
    return inside if inside.is_dir() else package.parent / name


def child_environment(package: Path = PACKAGE) -> dict[str, str]:
    """The environment variables of a child process that runs `python -m chat_app` from any folder.

    PYTHONPATH names a checkout, which an interpreter started in another folder would not find. It must not name
    site-packages, which the interpreter finds by itself: entries of PYTHONPATH come before the standard library, so an
    installed distribution could shadow one of its modules.
    """
    parent = str(package.parent)
    if any(os.path.realpath(folder) == parent for folder in _list_site_packages()):
        return dict(os.environ)
    return {**os.environ, "PYTHONPATH": _prepend(parent, os.environ)}


def _list_site_packages() -> list[str]:
    return [*site.getsitepackages(), site.getusersitepackages()]


def _prepend(folder: str, environment: Mapping[str, str]) -> str:
    return os.pathsep.join([folder, *filter(None, [environment.get("PYTHONPATH")])])
