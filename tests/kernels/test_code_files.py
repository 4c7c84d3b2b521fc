"""Where compiled machine code is kept on the disk."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from chat_app.kernels import compilation
from chat_app.kernels.compilation import _cache_folders, _file, _first_writable
from chat_app.system.cpu import this_processor


def test_machine_code_is_kept_where_something_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAT_APP_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "cache" / name))
    (package := tmp_path / "kernels").mkdir()
    beside, users, home = folders = _cache_folders(package)
    assert _first_writable(folders) == beside == package / "__pycache__"
    beside.rmdir()
    beside.write_text("a file stands where the folder would be")
    assert _first_writable(folders) == users
    (tmp_path / "cache" / "chat_app").rmdir()
    (tmp_path / "cache").rmdir()
    (tmp_path / "cache").write_text("no folder either")
    assert _first_writable(folders) == home


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="a file system that even root cannot write to is needed")
def test_a_read_only_package_is_no_trouble(tmp_path: Path) -> None:
    assert _first_writable([Path("/proc/self"), tmp_path]) == tmp_path


def test_machine_code_is_found_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chat_app.kernels.compilation._cache_folders", lambda package: [tmp_path / "a", tmp_path / "b"])
    name = _file(True, this_processor()).name
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / name).write_bytes(b"code")
    assert _file(True, this_processor()) == tmp_path / "b" / name


def test_processes_that_need_the_same_kernel_at_once_compile_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[Path] = []

    def compile_file(eight_bits: bool, file: Path, processor: object) -> None:
        compiled.append(file)
        file.write_bytes(b"code")

    def load_file(file: Path) -> bytes:
        return file.read_bytes()

    monkeypatch.setattr(compilation, "compile_in_subprocess", compile_file)
    monkeypatch.setattr(compilation, "load", load_file)
    file = tmp_path / "cache" / "kernel.o"
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(compilation._compile_or_wait, True, file) for _ in range(4)]
        assert [one.result(60) for one in found] == [b"code"] * 4
    assert compiled == [file]
