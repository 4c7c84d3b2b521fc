"""Bad places: folders with nothing, devices, pipes, links in circles, names that no name should be."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.data.readers.bad_inputs.case import TSV, Bad


def cases() -> Iterator[Bad]:
    """Those that this platform has."""
    yield Bad("nothing-there.tsv", lambda path: None)
    yield Bad("a-folder-with-nothing", lambda path: path.mkdir())
    yield Bad("a-folder-of-folders", lambda path: (path / "a" / "b").mkdir(parents=True))
    yield Bad("a-folder.tsv", lambda path: path.mkdir())
    yield Bad("a-folder-of-photos", _photos)
    yield Bad("a-folder-of-bad-files", _bad_files)
    if sys.platform != "win32":
        yield Bad("a-pipe.tsv", lambda path: os.mkfifo(path))
        yield Bad("a-pipe-in-a-folder", _pipe_inside)
        yield Bad("a-device.tsv", lambda path: path.symlink_to("/dev/zero"))
        yield Bad("a-link-to-nothing.tsv", lambda path: path.symlink_to("gone.tsv"))
        yield Bad("a-link-to-itself.tsv", lambda path: path.symlink_to(path.name))
        yield Bad("links-in-circles", _circles, 4)
        yield Bad("a name\nof two lines.tsv", TSV, 4, "lines")
        yield Bad("\x1b[31mred\x07.tsv", TSV + b"no reply\n", 4, "lines")
    if sys.platform == "linux":
        yield Bad(os.fsdecode(b"other-bytes-\xff\xe4.tsv"), TSV + b"no reply\n", 4, "lines")
        yield Bad("a-folder-of-odd-names", _odd_names, 8)


def _photos(path: Path) -> None:
    path.mkdir()
    (path / "a.jpg").write_bytes(b"\xff\xd8\xff")


def _bad_files(path: Path) -> None:
    path.mkdir()
    (path / "a.csv").write_bytes(b"x")
    (path / "b.json").write_bytes(b"{")
    (path / "c.docx").write_bytes(b"PK\x03\x04")


def _pipe_inside(path: Path) -> None:
    path.mkdir()
    os.mkfifo(path / "a.tsv")


def _circles(path: Path) -> None:
    path.mkdir()
    (path / "a.tsv").write_bytes(TSV)
    (path / "loop").symlink_to(path, target_is_directory=True)
    (path / "self.tsv").symlink_to("self.tsv")


def _odd_names(path: Path) -> None:
    path.mkdir()
    Path(os.fsdecode(os.fsencode(path) + b"/\xff.tsv")).write_bytes(TSV)
    (path / "a\nb.tsv").write_bytes(TSV)
