"""Folders, zip archives and compressed files: what is in them, in order, and what is never let out of them."""

from __future__ import annotations

import gzip
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from chat_app.data.readers import archives
from chat_app.data.readers.archives import Member, open_members
from chat_app.data.readers.types import Problem
from chat_app.errors import DataError


def contents(path: Path, **settings: Any) -> list[tuple[str, bytes | str]]:
    """(name, bytes) of every file, (name, reason) of every problem."""
    with open_members(path, **settings) as items:
        return [(item.name, item.path.read_bytes()) if isinstance(item, Member) else (item.file, item.reason)
                for item in items]  # fmt: skip


def zipped(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_a_plain_file_is_itself_and_nothing_is_copied(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(b"a\tb")
    with open_members(path, "mine.tsv") as items:
        assert list(items) == [Member(path, "mine.tsv")]
    with open_members(tmp_path / "absent") as items:  # whoever reads it says so
        assert list(items) == [Member(tmp_path / "absent", "absent")]
    with open_members("a\0b") as items:
        assert [item.name for item in items if isinstance(item, Member)] == ["a\0b"]


@pytest.mark.parametrize(("name", "inside"), [("a.csv.gz", "a.csv"), ("a.csv", "a.csv"), ("A.JSONL.GZ", "A.JSONL")])
def test_gzip_is_recognised_by_its_bytes(tmp_path: Path, name: str, inside: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"one") + gzip.compress(b"two"))
    assert contents(path) == [(inside, b"onetwo")]


def test_a_zip_gives_its_files_in_order_and_opens_what_is_compressed_in_it(tmp_path: Path) -> None:
    files = {"b.csv": b"1", "folder/a.csv.gz": gzip.compress(b"2"), "__MACOSX/._b.csv": b"x", ".DS_Store": b"x",
             "folder/.hidden": b"x", "empty/": b"", "c.txt": b"PK is no archive"}  # fmt: skip
    path = zipped(tmp_path / "all.zip", files)
    expected = [("all.zip/b.csv", b"1"), ("all.zip/folder/a.csv", b"2"), ("all.zip/c.txt", b"PK is no archive")]
    assert contents(path) == expected


def test_a_folder_gives_its_files_sorted_and_what_is_packed_in_them(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    (folder / "z.csv").write_bytes(b"z")
    (folder / "sub" / "b.csv").write_bytes(b"b")
    (folder / "sub" / "c.gz").write_bytes(gzip.compress(b"c"))
    (folder / ".hidden").write_bytes(b"x")
    (folder / "link.csv").symlink_to(folder / "z.csv")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    assert contents(folder) == [
        ("data/link.csv", "This is a link to another place."),
        ("data/z.csv", b"z"),
        ("data/sub/b.csv", b"b"),
        ("data/sub/c", b"c"),
    ]


def test_only_one_unpacked_file_is_on_the_disk_and_none_is_left(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"../a.csv": b"x", "1.csv": b"1", "2.csv": b"2", "3.csv": b"3"})
    seen = []
    with open_members(path) as items:
        for item in items:
            if isinstance(item, Member):
                seen.append(item.path)
                assert [one for one in item.path.parent.iterdir() if one.is_file()] == [item.path]
    assert len(seen) == 3
    assert not any(one.parent.exists() for one in seen)
    with open_members(path) as items:  # also when nobody reads on
        first = next(item for item in items if isinstance(item, Member))
    assert not first.path.parent.exists()


@pytest.mark.parametrize("name", ["../out.csv", "a/../../out.csv", "/etc/out.csv", "C:\\out.csv", "..\\out.csv"])
def test_a_name_that_leads_out_of_the_archive_is_never_followed(tmp_path: Path, name: str) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    path = zipped(inner / "evil.zip", {name: b"x", "good.csv": b"y"})
    (problem, good) = contents(path)
    assert problem[1] == "Its name leads out of the archive."
    assert good == ("evil.zip/good.csv", b"y")
    assert sorted(one.name for one in tmp_path.rglob("*")) == ["evil.zip", "inner"]


def test_a_link_in_an_archive_is_not_followed(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("passwords.csv")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
        archive.writestr("b.csv", "b")
    assert contents(tmp_path / "a.zip") == [
        ("a.zip/passwords.csv", "This is a link to another place."),
        ("a.zip/b.csv", b"b"),
    ]


def test_what_is_no_text_is_counted_in_one_sentence(tmp_path: Path) -> None:
    files = {"chat.txt": b"hi", "a.jpg": b"1", "b.JPG": b"2", "c.opus": b"3", "d": b"\x89PNG\r\n"}
    with open_members(zipped(tmp_path / "chat.zip", files)) as items:
        found = [item.name if isinstance(item, Member) else item.sentence() for item in items]
    said = "4 files are no text (jpg, opus, without a name's end); they were passed over. Nothing has to be done."
    assert found == ["chat.zip/chat.txt", f"chat.zip: {said}"]


def test_one_broken_file_does_not_cost_the_others(tmp_path: Path) -> None:
    files = {"bad.csv": b"x" * 100, "good.csv": b"y", "cut.gz": gzip.compress(b"z" * 99)[:-9]}
    path = zipped(tmp_path / "a.zip", files, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"x" * 100, b"w" * 100))
    locked = bytearray(path.read_bytes())
    assert contents(path) == [
        ("a.zip/bad.csv", "It is damaged: what is packed is not what was put in."),
        ("a.zip/good.csv", b"y"),
        ("a.zip/cut.gz", "It ends too early: a part of it is missing."),
    ]
    entry = locked.index(b"PK\x01\x02")
    locked[entry + 8] |= 1  # the mark of a password, in the list of the files
    path.write_bytes(locked)
    assert contents(path)[0] == ("a.zip/bad.csv", "It is locked with a password.")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.gz",
            gzip.compress(b"x" * 1000, mtime=0)[:-12],
            "a.gz: It ends too early: a part of it is missing. Get it once more",
        ),
        ("a.gz", b"\x1f\x8b\x08\0\0\0\0\0\0\0nonsense", "a.gz: It is damaged"),
        ("a.zip", b"PK\x03\x04nonsense", "a.zip: This archive is damaged. Get it once more"),
        ("a.zip", b"PK\x05\x06" + bytes(18), "a.zip: This archive holds no files to read."),
        ("a.xz", b"\xfd7zXZ\x00rest", "a.xz: This is an xz file. Unpack it"),
        ("a.zst", b"\x28\xb5\x2f\xfdrest", "a.zst: This is a zstd file. Unpack it"),
        ("a.bz2", b"BZh9rest", "a.bz2: This is a bzip2 file. Unpack it"),
        ("a.7z", b"7z\xbc\xaf\x27\x1crest", "a.7z: This is a 7z archive. Unpack it"),
        ("a.rar", b"Rar!\x1a\x07\x01", "a.rar: This is a rar archive. Unpack it"),
    ],
    ids=["cut gzip", "damaged gzip", "damaged zip", "empty zip", "xz", "zstd", "bzip2", "7z", "rar"],
)
def test_what_cannot_be_opened_is_named_with_what_to_do(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        contents(path)
    assert str(caught.value).startswith(message)


def test_tar_archives_are_named_also_inside_gzip(tmp_path: Path) -> None:
    for name, mode in (("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tgz", "w:gz")):
        with tarfile.open(tmp_path / name, mode) as archive:  # type: ignore[call-overload]
            archive.add(__file__, "a.csv")
        with pytest.raises(DataError, match="This is a tar archive"):
            contents(tmp_path / name)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="This folder holds no files to read"):
        contents(tmp_path)


@pytest.mark.parametrize(
    ("inside", "what"),
    [
        ("ppt/slides.xml", "a PowerPoint presentation"),
        ("xl/workbook.bin", "a binary Excel workbook"),
    ],
)
def test_documents_are_told_from_archives(tmp_path: Path, inside: str, what: str) -> None:
    path = zipped(tmp_path / "a.zip", {"[Content_Types].xml": b"", inside: b""})
    with pytest.raises(DataError, match=f"a.zip: This is {what}, not a file of text."):
        contents(path)
    zipped(tmp_path / "b.zip", {"a.docx": path.read_bytes(), "b.csv": b"b"})
    assert contents(tmp_path / "b.zip")[0][1] == f"This is {what}, not a file of text."
    zipped(tmp_path / "c.odt", {"mimetype": b"application/vnd.oasis.opendocument.graphics"})
    with pytest.raises(DataError, match="This is an OpenDocument file"):
        contents(tmp_path / "c.odt")


def test_a_workbook_is_one_file_also_inside_an_archive(tmp_path: Path) -> None:
    book = zipped(tmp_path / "a.xlsx", {"[Content_Types].xml": b"", "xl/workbook.xml": b""})
    assert contents(book) == [("a.xlsx", book.read_bytes())]
    outer = zipped(tmp_path / "b.zip", {"a.xlsx": book.read_bytes()})
    assert contents(outer) == [("b.zip/a.xlsx", book.read_bytes())]


def test_archives_are_opened_one_deep(tmp_path: Path) -> None:
    inner = zipped(tmp_path / "inner.zip", {"a.csv": b"a"})
    outer = zipped(tmp_path / "outer.zip", {"inner.zip": inner.read_bytes(), "b.csv": b"b"})
    assert contents(outer) == [
        ("outer.zip/inner.zip", "This is an archive inside another place."),
        ("outer.zip/b.csv", b"b"),
    ]
    twice = tmp_path / "twice.gz"
    twice.write_bytes(gzip.compress(gzip.compress(b"a")))
    with pytest.raises(DataError, match="an archive inside a compressed file"):
        contents(twice)


def test_a_bomb_is_stopped_by_what_comes_out_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "FREE_BYTES", 1_000_000)
    bomb = zipped(tmp_path / "bomb.zip", {"zeros.csv": bytes(8_000_000), "good.csv": b"y"})
    assert contents(bomb) == [
        ("bomb.zip/zeros.csv", "It unpacks to more than 200 times its size."),
        ("bomb.zip/good.csv", b"y"),
    ]
    packed = tmp_path / "bomb.gz"
    packed.write_bytes(gzip.compress(bytes(8_000_000)))
    with pytest.raises(DataError, match="more than 200 times its size"):
        contents(packed)


def test_the_sum_of_what_is_unpacked_is_limited(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a.csv": b"a" * 600, "b.csv": b"b" * 600}, zipfile.ZIP_STORED)
    assert contents(path, most_bytes=1000) == [
        ("a.zip/a.csv", b"a" * 600),
        ("a.zip/b.csv", "All that is in it has more than 1 KB."),
    ]


def test_the_number_of_files_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_ENTRIES", 2)
    files = {f"{number}.csv": b"x" for number in range(4)}
    for path in (zipped(tmp_path / "a.zip", files), tmp_path / "folder"):
        if path.suffix != ".zip":
            path.mkdir()
            for name in files:
                (path / name).write_bytes(b"x")
        found = contents(path)
        assert [name for name, _ in found] == [f"{path.name}/0.csv", f"{path.name}/1.csv", path.name]
        assert found[-1][1] == "It holds more than 2 files; the rest was left out."


def test_problems_come_in_their_place_and_alone_become_an_error(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"../a": b"x", "../b": b"x"})
    with open_members(path) as items, pytest.raises(DataError) as caught:
        next(items)
    assert str(caught.value) == (
        "a.zip/../a: Its name leads out of the archive. Pack the file again, without a path. And 1 more."
    )
    with open_members(zipped(tmp_path / "b.zip", {"../a": b"x", "b": b"x"})) as items:
        assert [type(item) for item in items] == [Problem, Member]
