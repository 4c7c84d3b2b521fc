"""Things that can be made again: by content, whole or not at all, the least used go first."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from chat_app.system.disk_cache import Cache, digest_content


def fill(cache: Cache, key: str, size: int = 10) -> Path:
    with cache.create_entry(key) as folder:
        (folder / "data").write_bytes(b"x" * size)
    found = cache.find(key)
    assert found is not None
    return found


def test_the_key_is_made_of_content_and_of_where_one_part_ends(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"one")
    same = tmp_path / "b"
    same.write_bytes(b"one")
    assert digest_content(["x", file]) == digest_content(["x", same])
    assert digest_content([file, "x"]) != digest_content(["x", file])
    assert digest_content(["ab", "c"]) != digest_content(["a", "bc"])
    assert digest_content([b"one"]) == digest_content([file])


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 1000, 1000)
    with contextlib.suppress(ZeroDivisionError), cache.create_entry("k") as folder:
        (folder / "data").write_bytes(b"half")
        _ = 1 / 0
    assert cache.find("k") is None
    assert not list((tmp_path / "cache").iterdir())


def test_two_that_make_the_same_both_find_it(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 1000, 1000)
    with cache.create_entry("k") as first:
        (first / "data").write_bytes(b"same")
        fill(cache, "k")
    found = cache.find("k")
    assert found is not None
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_the_least_used_goes_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 250, 1000)
    for age, key in ((30, "a"), (20, "b"), (10, "c")):
        entry = fill(cache, key, 100)
        os.utime(entry, (time.time() - age,) * 2)
    assert cache.find("a") is not None  # Now it was used last.
    cache.tidy()
    assert [cache.find(key) is not None for key in "abc"] == [True, False, True]


def test_what_is_too_old_goes_and_what_was_left_half_made(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 1000, 100)
    entry = fill(cache, "old")
    half = tmp_path / "cache" / ".key.1234"
    half.mkdir()
    fresh = tmp_path / "cache" / ".key.5678"
    fresh.mkdir()
    for folder, age in ((entry, 200), (half, 7 * 3600)):
        os.utime(folder, (time.time() - age,) * 2)
    cache.tidy()
    assert cache.find("old") is None
    assert not half.exists()
    assert fresh.exists()
