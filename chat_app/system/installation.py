"""Where the program lies: in a source checkout, or in an environment that pip installed it into.

Knows where the files are that come with the program, and not what they hold.
"""

from __future__ import annotations

import os
import site
from collections.abc import Mapping
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent


def find_shipped(name: str, package: Path = PACKAGE) -> Path:
    """A folder that comes with the program: "assets" or "sample_data".

    A wheel has it inside the package. In a checkout it stands beside the package, where people look for it.
    """
    inside = package / name
    return inside if inside.is_dir() else package.parent / name


def child_environment(package: Path = PACKAGE) -> dict[str, str]:
    """The environment variables of a child process that runs `python -m chat_app` from any folder.

    An interpreter does not find a checkout by itself once the child runs in another folder, so PYTHONPATH names it. It
    finds its own site-packages, which must not stand in PYTHONPATH: from there a distribution could hide a module of
    the standard library.
    """
    parent = str(package.parent)
    if any(os.path.realpath(folder) == parent for folder in _list_site_packages()):
        return dict(os.environ)
    return {**os.environ, "PYTHONPATH": _prepend(parent, os.environ)}


def _list_site_packages() -> list[str]:
    return [*site.getsitepackages(), site.getusersitepackages()]


def _prepend(folder: str, environment: Mapping[str, str]) -> str:
    return os.pathsep.join([folder, *filter(None, [environment.get("PYTHONPATH")])])
