"""Where compiled machine code is kept on the disk."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from chat_app.kernels import compilation
from chat_app.kernels.compilation import _cache_folders, _file, _first_writable, is_private, load
from chat_app.system.cpu import target_processor


def test_machine_code_is_kept_where_something_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAT_APP_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "cache" / name))
    (package := tmp_path / "kernels").mkdir()
    beside, users, home = folders = _cache_folders(package)
    assert _first_writable(folders) == beside == package / "__pycache__" / "kernels"
    beside.rmdir()
    beside.write_text("a file stands where the folder would be")
    assert _first_writable(folders) == users
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("no folder either")
    assert _first_writable(folders) == home


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="a file system that even root cannot write to is needed")
def test_a_read_only_package_is_no_trouble(tmp_path: Path) -> None:
    assert _first_writable([Path("/proc/self"), tmp_path]) == tmp_path


def test_machine_code_is_found_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chat_app.kernels.compilation._cache_folders", lambda package: [tmp_path / "a", tmp_path / "b"])
    name = _file(True, target_processor()).name
    (tmp_path / "b").mkdir(mode=0o700)
    (tmp_path / "b" / name).write_bytes(b"code")
    (tmp_path / "b" / name).chmod(0o600)
    assert _file(True, target_processor()) == tmp_path / "b" / name


@pytest.mark.skipif(os.name != "posix", reason="there are other rights on Windows")
class TestRights:
    def test_what_others_may_write_is_not_private(self, tmp_path: Path) -> None:
        (file := tmp_path / "code.o").write_bytes(b"code")
        assert not is_private(tmp_path / "none.o")
        for mode, private in ((0o600, True), (0o644, True), (0o664, False), (0o646, False), (0o666, False)):
            file.chmod(mode)
            assert is_private(file) == private

    @pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root may give a file away")
    def test_what_belongs_to_another_user_is_not_private(self, tmp_path: Path) -> None:
        (file := tmp_path / "code.o").write_bytes(b"code")
        file.chmod(0o600)
        os.chown(file, 65534, -1)
        assert not is_private(file)

    @pytest.mark.parametrize("what", ["file", "folder"])
    def test_machine_code_that_others_may_write_is_compiled_anew(
        self, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        places = [tmp_path / "a", tmp_path / "b"]
        monkeypatch.setattr("chat_app.kernels.compilation._cache_folders", lambda package: places)
        name = _file(True, target_processor()).name
        (places[0] / name).write_bytes(b"code")
        (places[0] / name).chmod(0o600)
        assert _file(True, target_processor()) == places[0] / name
        (places[0] / name if what == "file" else places[0]).chmod(0o777)
        assert _file(True, target_processor()) == places[0 if what == "file" else 1] / name
        with pytest.raises(PermissionError):
            load(places[0] / name if what == "file" else places[0])

    def test_compiled_code_is_private_under_any_umask(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        before = os.umask(0)
        try:
            assert is_private(_first_writable([tmp_path / "cache" / "kernels"]))
            monkeypatch.setattr(compilation, "_compile", lambda eight_bits, processor: b"code")
            monkeypatch.setattr(compilation, "load", lambda file: None)
            compilation.main(True, tmp_path / "cache" / "kernels" / "code.o")
        finally:
            os.umask(before)
        assert is_private(tmp_path / "cache" / "kernels" / "code.o")


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
