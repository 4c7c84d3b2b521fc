"""Bad archives and compressed files: cut off, locked, lying about their size, leading out of themselves."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from tests.data.readers.bad_inputs.case import CSV, JSONL, TSV, Bad


def zipped(*files: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An archive in memory."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, content in files:
            archive.writestr(name, content, method)
    return packed.getvalue()


def cases() -> Iterator[Bad]:
    """All of them."""
    yield from _gzip()
    yield from _zip()
    yield from _bombs()
    yield from _others()


def _gzip() -> Iterator[Bad]:
    packed = gzip.compress(TSV * 50, mtime=0)
    yield Bad("cut.tsv.gz", packed[: len(packed) // 2])
    yield Bad("cut-checksum.tsv.gz", packed[:-3])
    yield Bad("wrong-checksum.tsv.gz", packed[:-8] + b"\0\0\0\0" + packed[-4:])
    yield Bad("head-only.gz", packed[:10])
    yield Bad("two-bytes.gz", b"\x1f\x8b")
    yield Bad("damaged.jsonl.gz", packed[:20] + bytes(20) + packed[40:])
    yield Bad("something-behind.tsv.gz", packed + b"and some more")
    yield Bad("empty-inside.tsv.gz", gzip.compress(b"", mtime=0))
    yield Bad("gzip-in-gzip.tsv.gz", gzip.compress(packed, mtime=0))
    yield Bad("zip-in-gzip.gz", gzip.compress(zipped(("a.tsv", TSV)), mtime=0))
    yield Bad("png-in-gzip.gz", gzip.compress(b"\x89PNG\r\n\x1a\n" + bytes(99), mtime=0))
    yield Bad("not-compressed.tsv.gz", TSV, 4, "lines")
    yield Bad("method-9.gz", b"\x1f\x8b\x09" + packed[3:])


def _zip() -> Iterator[Bad]:
    packed = zipped(("a.tsv", TSV), ("b.jsonl", JSONL))
    yield Bad("cut.zip", packed[: len(packed) // 2])
    yield Bad("cut-at-the-end.zip", packed[:-10])
    yield Bad("head-only.zip", packed[:4])
    yield Bad("no-files.zip", zipped())
    yield Bad("only-folders.zip", zipped(("a/", b""), ("b/c/", b"")))
    yield Bad("only-hidden.zip", zipped((".DS_Store", b"x"), ("__MACOSX/._a.tsv", b"x")))
    yield Bad("only-photos.zip", zipped(("a.jpg", b"\xff\xd8\xff"), ("b.mp4", b"x")))
    yield Bad("leads-out.zip", zipped(("../../a.tsv", TSV), ("b.tsv", TSV)), 4)
    yield Bad("absolute.zip", zipped(("/etc/a.tsv", TSV), ("C:\\a.tsv", TSV)))
    yield Bad("links.zip", zipped((_link("a.tsv"), b"/etc/passwd"), ("b.tsv", TSV)), 4)
    yield Bad("locked.zip", _locked(zipped(("a.tsv", TSV))))
    yield Bad("one-locked.zip", _locked(packed, only=0), 3)
    yield Bad("same-names.zip", _renamed(zipped(("a.tsv", TSV), ("b.tsv", CSV)), b"b.tsv", b"a.tsv"), 7)
    yield Bad("zip-in-zip.zip", zipped(("inner.zip", packed)))
    yield Bad("good-and-bad.zip", zipped(("a.tsv", TSV), ("b.csv", b"x"), ("c.json", b"{"), ("d.png", b"\x89PNG")), 4)
    yield Bad("damaged-member.zip", _damaged(zipped(("a.tsv", TSV * 30), ("b.tsv", TSV)), 60), 4)
    yield Bad("unknown-method.zip", _method(zipped(("a.tsv", TSV))))
    yield Bad("names-of-other-bytes.zip", _renamed(zipped(("aaaa.tsv", TSV)), b"aaaa", b"\xe4\xff\n\x1b"), 4)
    yield Bad("long-name.zip", zipped(("x" * 60_000 + ".tsv", TSV)), 4)
    yield Bad("called-a-line-file.jsonl", zipped(("a.jsonl", JSONL)), 3)
    yield Bad(
        "many-files.zip", zipped(*((f"{n}.txt", b"") for n in range(10_100)), method=zipfile.ZIP_STORED), heavy=True
    )

    yield Bad("something-before.zip", b"some bytes before\n" * 4 + packed)
    yield Bad("wrong-place-of-the-directory.zip", packed[:-6] + struct.pack("<I", 999_999) + packed[-2:])


def _bombs() -> Iterator[Bad]:
    line = b"a" * 9_999_998 + b"\n"
    yield Bad("bomb.gz", lambda path: path.write_bytes(_tall()), heavy=True)
    yield Bad("bomb-of-lines.tsv.gz", lambda path: path.write_bytes(gzip.compress(line, mtime=0) * 20), heavy=True)
    yield Bad("bomb.zip", lambda path: path.write_bytes(_bomb()), heavy=True)
    yield Bad("bomb-of-many.zip", lambda path: path.write_bytes(_many()), heavy=True)
    yield Bad("bomb-in-a-zip.zip", _bombs_inside, 4, heavy=True)
    yield Bad("bomb-that-lies.zip", lambda path: path.write_bytes(_smaller(_bomb())), heavy=True)
    yield Bad("overlapping.zip", _overlapping(TSV * 20, 50), 4_000)


def _tall() -> bytes:
    return gzip.compress(bytes(10_000_000), mtime=0) * 30


def _bomb() -> bytes:
    return zipped(("a.txt", bytes(120_000_000)))


def _many() -> bytes:
    """Files that all are small, and together are not."""
    return zipped(*((f"{n}.txt", bytes(10_000_000)) for n in range(30)))


def _bombs_inside(path: Path) -> None:
    path.write_bytes(zipped(("a.zip", _bomb()), ("b.gz", _tall()), ("c.tsv", TSV)))


def _others() -> Iterator[Bad]:
    tape = io.BytesIO()
    with tarfile.open(fileobj=tape, mode="w") as archive:
        entry = tarfile.TarInfo("a.tsv")
        entry.size = len(TSV)
        archive.addfile(entry, io.BytesIO(TSV))
    yield Bad("a.tar", tape.getvalue())
    yield Bad("a.tar.gz", gzip.compress(tape.getvalue(), mtime=0))
    yield Bad("a.7z", b"7z\xbc\xaf\x27\x1c" + bytes(50))
    yield Bad("a.rar", b"Rar!\x1a\x07\x00" + bytes(50))
    yield Bad("a.bz2", b"BZh91AY&SY" + bytes(50))
    yield Bad("a.xz", b"\xfd7zXZ\x00" + bytes(50))
    yield Bad("a.zst", b"\x28\xb5\x2f\xfd" + bytes(50))


def _link(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = 0o120777 << 16
    return entry


def _entries(packed: bytes) -> Iterator[tuple[int, int]]:
    """Where the local head and the directory's entry of each file begin."""
    local = directory = -1
    while (directory := packed.find(b"PK\x01\x02", directory + 1)) >= 0:
        local = packed.find(b"PK\x03\x04", local + 1)
        yield local, directory


def _locked(packed: bytes, only: int | None = None) -> bytes:
    """The archive with the mark of a password on its files."""
    changed = bytearray(packed)
    for number, (local, directory) in enumerate(_entries(packed)):
        if only in (None, number):
            changed[local + 6] |= 1
            changed[directory + 8] |= 1
    return bytes(changed)


def _method(packed: bytes) -> bytes:
    changed = bytearray(packed)
    for local, directory in _entries(packed):
        changed[local + 8 : local + 10] = changed[directory + 10 : directory + 12] = struct.pack("<H", 97)
    return bytes(changed)


def _smaller(packed: bytes) -> bytes:
    """The archive with sizes that say that its files are small."""
    changed = bytearray(packed)
    for local, directory in _entries(packed):
        changed[local + 22 : local + 26] = changed[directory + 24 : directory + 28] = struct.pack("<I", 100)
    return bytes(changed)


def _renamed(packed: bytes, old: bytes, new: bytes) -> bytes:
    return packed.replace(old, new)


def _damaged(packed: bytes, at: int) -> bytes:
    return packed[:at] + bytes(byte ^ 0xFF for byte in packed[at : at + 8]) + packed[at + 8 :]


def _overlapping(content: bytes, count: int) -> bytes:
    """An archive whose directory names the same bytes many times."""
    packed = zipped(("a.txt", content))
    directory = packed.index(b"PK\x01\x02")
    end = packed.index(b"PK\x05\x06")
    entry = packed[directory:end]
    tail = bytearray(packed[end:])
    tail[8:10] = tail[10:12] = struct.pack("<H", count)
    tail[12:16] = struct.pack("<I", len(entry) * count)
    return packed[:directory] + entry * count + bytes(tail)
