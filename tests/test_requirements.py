"""What is installed, what requirements.txt pins, what pyproject.toml allows and what a Space is told fit together."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent


def lines_of(file: str) -> list[str]:
    """The requirements in a file, without comments and what it includes."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return [one for one in lines if one and not one.startswith(("#", "-r"))]


PINS = [Requirement(one) for file in ("requirements.txt", "requirements-dev.txt") for one in lines_of(file)]
PRODUCT = [Requirement(one) for one in lines_of("requirements.txt")]


def ranges() -> dict[str, Requirement]:
    """The dependencies of pyproject.toml by name. Python 3.10 cannot read TOML by itself."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r"^dependencies = \[\n(.*?)^\]", text, re.DOTALL | re.MULTILINE)
    assert found is not None
    known = [Requirement(one) for one in re.findall(r'^\s*"(.*)",$', found[1], re.MULTILINE)]
    return {canonicalize_name(one.name): one for one in known}


@pytest.mark.parametrize("pin", PINS, ids=str)
def test_one_version_of_each_package_is_pinned_and_tested(pin: Requirement) -> None:
    assert re.fullmatch(r"==[^*,]+", str(pin.specifier)), "not exact"
    if pin.marker is None or pin.marker.evaluate():
        assert pin.specifier.contains(version(pin.name)), f"{version(pin.name)} is installed"


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
@pytest.mark.parametrize("system", ["linux", "darwin", "win32"])
def test_each_python_gets_at_most_one_version(python: str, system: str) -> None:
    place = {"python_version": python, "sys_platform": system}
    names = [one.name for one in PINS if one.marker is None or one.marker.evaluate(place)]
    assert len(names) == len(set(names))
    expected = {one.name for one in PINS} - ({"rensa"} if (system, python) == ("darwin", "3.10") else set())
    assert set(names) == expected


@pytest.mark.parametrize("pin", PRODUCT, ids=str)
def test_what_is_pinned_lies_in_the_range(pin: Requirement) -> None:
    allowed = ranges()[canonicalize_name(pin.name)]
    (exact,) = pin.specifier
    assert allowed.specifier.contains(exact.version)
    assert {one.operator for one in allowed.specifier} == {">=", "<"}


def test_both_files_name_the_same_packages() -> None:
    assert {canonicalize_name(one.name) for one in PRODUCT} == set(ranges())


def test_a_space_has_the_gradio_that_is_pinned() -> None:
    (told,) = re.findall(r"^sdk_version: (.*)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    (pin,) = [one for one in PRODUCT if one.name == "gradio"]
    assert str(pin.specifier) == f"=={told}"
