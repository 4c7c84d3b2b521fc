"""Where the program lies: a checkout has its files beside the package, an installed package inside it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from chat_app.config.paths import Paths
from chat_app.system.installation import PACKAGE, child_environment, find_shipped


def test_a_checkout_has_its_files_beside_the_package() -> None:
    paths = Paths(Path("home"))
    assert paths.assets == find_shipped("assets") == PACKAGE.parent / "assets"
    assert paths.samples == PACKAGE.parent / "sample_data"
    assert (paths.starter / "config.json").is_file()


def test_an_installed_package_has_them_inside(tmp_path: Path) -> None:
    (tmp_path / "chat_app" / "assets").mkdir(parents=True)
    (tmp_path / "assets").mkdir()  # Of another distribution.
    assert find_shipped("assets", tmp_path / "chat_app") == tmp_path / "chat_app" / "assets"


def test_a_child_finds_the_checkout_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    environment = child_environment()
    assert environment["PYTHONPATH"].split(os.pathsep) == [str(PACKAGE.parent), str(tmp_path)]
    code = "import chat_app; print(chat_app.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()).parent == PACKAGE


def test_site_packages_never_go_before_the_standard_library(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = Path(sysconfig.get_path("purelib")).resolve() / "chat_app"
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert "PYTHONPATH" not in child_environment(installed)
