"""Ahead-of-time compilation of the kernels: once for a processor, cached on disk, loaded without numba.

    python -m chat_app.kernels.compilation 8-bit FILE

compiles in a process of its own and writes an object file, which llvmlite links into this one. CHAT_APP_KERNELS=off
leaves all work to torch.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import Future
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from chat_app.config.paths import Paths
from chat_app.kernels.mode import SWITCH, kernels_are_on
from chat_app.system.cpu import Processor, target_processor
from chat_app.system.installation import child_environment

LOGGER = logging.getLogger(__name__)
_SOURCES = tuple(sorted(file.name for file in Path(__file__).parent.glob("*.py")))
_DIGEST = 32  # Bytes before the machine code: its checksum.
_TIMEOUT = 600  # Seconds that compiling may take.
_WRITABLE_BY_OTHERS = 0o022  # The group, and all.
_NEVER_CALLED = "define void @NRT_MemInfo_call_dtor(i8* %0) { ret void }"  # No array in a kernel owns its memory.
_LIBC = {"memcpy", "memmove", "memset"}  # What the object file may import.


class CompiledKernel:
    """The machine code of `decode_step.build_kernel`. Any number of threads may call it at once, without the GIL.

    numba compiles `run(thread_id, address)` to a C function with two more arguments in front:

        int run(void *retval, void **excinfo, int64 thread_id, int64 address)

    It writes its result to `retval`, and if it raises, a pointer to the exception to `excinfo`. A kernel does neither,
    so both point to memory that is never read and that all calls share.

    Args:
        engine: of LLVM, which owns the machine code.
    """

    def __init__(self, engine: Any):
        self._engine = engine
        self._unread = ctypes.create_string_buffer(64)
        self._retval = ctypes.addressof(self._unread)
        self._excinfo = self._retval + 32
        signature = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
        self._function = signature(engine.get_function_address("run"))

    def __call__(self, thread_id: int, address: int) -> int:
        """Do what a thread of the team does of a task; `address` is that of a KERNEL_ARGS. Gives 0."""
        return int(self._function(self._retval, self._excinfo, thread_id, address))


def get_kernel(eight_bits: bool) -> Future[CompiledKernel]:
    """The kernel for one type of weights: at once if it is in the cache on disk, else after seconds.

    Until then, where compiling fails, and with CHAT_APP_KERNELS=off, torch does its work.

    Raises:
        SettingError: CHAT_APP_KERNELS has an unknown value.
    """
    if kernels_are_on():
        return _start_kernel(eight_bits)
    off: Future[CompiledKernel] = Future()
    off.set_exception(OSError(f"the kernels are switched off by {SWITCH}"))
    return off


@cache
def _start_kernel(eight_bits: bool) -> Future[CompiledKernel]:
    compiled: Future[CompiledKernel] = Future()
    try:
        file = _file(eight_bits, target_processor())
        if file.exists():
            compiled.set_result(load(file))
            return compiled
    except Exception:  # Of a damaged file or a library that is missing; a new one may help.
        LOGGER.info("the cached kernel cannot be loaded", exc_info=True)

    def work() -> None:
        try:
            compiled.set_result(_compile_or_wait(eight_bits, _file(eight_bits, target_processor())))
        except Exception as error:  # The thread's edge. Chatting goes on without.
            LOGGER.warning("the compiled kernels cannot be used here; torch computes replies", exc_info=True)
            compiled.set_exception(error)

    threading.Thread(target=work, name="compiler", daemon=True).start()
    return compiled


def _compile_or_wait(eight_bits: bool, file: Path) -> CompiledKernel:
    """Compile and load a kernel. Of several processes that need the same file, one compiles and the others wait."""
    _first_writable([file.parent])
    with FileLock(f"{file}.lock"):
        try:
            return load(file)
        except (OSError, ValueError):  # It is not there, not private, or damaged.
            compile_in_subprocess(eight_bits, file, target_processor())
            return load(file)


def compile_in_subprocess(eight_bits: bool, file: Path, processor: Processor) -> None:
    """Compile for a processor, in another process: it takes seconds, and a crash of the compiler ends only that.

    Raises:
        OSError, subprocess.TimeoutExpired: compiling failed.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "chat_app.kernels.compilation", "8-bit" if eight_bits else "bfloat16", str(file)]
    environment = {**child_environment(), **processor.environment}
    done = subprocess.run(
        command, env=environment, timeout=_TIMEOUT, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise OSError(f"compiling failed with {done.returncode}: {done.stderr[-2000:]}")


def load(file: Path) -> CompiledKernel:
    """Load the kernel in an object file.

    Raises:
        OSError: the file is not there, or others may write to it. ValueError: it is damaged.
    """
    from llvmlite import binding

    if not is_private(file):
        raise PermissionError(f"{file} is not only this user's to write")
    content = file.read_bytes()
    code = content[_DIGEST:]
    if hashlib.sha256(code).digest() != content[:_DIGEST]:
        raise ValueError(f"{file} is damaged")
    _initialize_llvm()
    empty = binding.parse_assembly(f'target triple = "{binding.get_process_triple()}"')
    engine = binding.create_mcjit_compiler(empty, _machine(target_processor()))
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return CompiledKernel(engine)


def _file(eight_bits: bool, processor: Processor) -> Path:
    """Where the code is kept: its name changes with all that it depends on."""
    from importlib.metadata import version

    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update((folder / name).read_bytes())
    for part in (processor.name, processor.flags, version("numba"), version("llvmlite"), sys.platform):
        digest.update(f"{part}\n".encode())
    name = f"{'8-bit' if eight_bits else 'bfloat16'}-{digest.hexdigest()[:16]}.o"
    folders = _cache_folders(folder)
    known = (one / name for one in folders if is_private(one) and is_private(one / name))
    return next(known, None) or _first_writable(folders) / name


def _cache_folders(package: Path) -> list[Path]:
    """Where machine code may be kept, the best place first.

    Beside the source, as Python keeps its own compiled files; in the user's cache, where an administrator installed the
    package; in the home of this program, where a container gives a user nothing else to write to. Each is a folder for
    machine code only, since Python's own may be writable for the user's group.
    """
    import platformdirs

    places = [package / "__pycache__", Path(platformdirs.user_cache_dir("chat_app")), Paths.default().home / "cache"]
    return [place / "kernels" for place in places]


def is_private(path: Path) -> bool:
    """Whether a file or folder is there, belongs to this user, and only this user can write to it.

    Machine code is run as it is: another user who could replace it would act in this one's name. Windows gives a user's
    own folders such rights by itself.
    """
    try:
        status = path.stat()
    except OSError:
        return False
    return os.name != "posix" or (status.st_uid == os.geteuid() and not status.st_mode & _WRITABLE_BY_OTHERS)


def _first_writable(folders: list[Path]) -> Path:
    """The first private folder that takes a file, else the last one. Only trying tells: a file system can be read-only
    too."""
    for folder in folders:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                if is_private(folder):
                    return folder
        except OSError:
            continue
    return folders[-1]


def _initialize_llvm() -> None:
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()


def _machine(processor: Processor) -> Any:
    """LLVM's target for a processor."""
    from llvmlite import binding

    target = binding.Target.from_triple(binding.get_process_triple())
    relocations = "static" if target.name.startswith("x86") else "default"  # As numba chooses them.
    return target.create_target_machine(
        cpu=processor.name, features=processor.flags, opt=3, reloc=relocations, codemodel="jitdefault", jit=True
    )


def _compile(eight_bits: bool, processor: Processor) -> bytes:
    """The object file of a kernel.

    Raises:
        ValueError: it imports a function that this process cannot give it.
    """
    from llvmlite import binding
    from numba import types

    from chat_app.kernels.decode_step import build_kernel
    from chat_app.kernels.numba_internals import llvm_code

    function = build_kernel(eight_bits)
    signature = (types.int64, types.int64)
    code, name = llvm_code(function, signature)
    _initialize_llvm()
    module = binding.parse_assembly(code)
    module.link_in(binding.parse_assembly(f'target triple = "{module.triple}"\n{_NEVER_CALLED}'))
    module.get_function(name).name = "run"
    module.verify()
    imported = {one.name for one in module.functions if one.is_declaration and not one.name.startswith("llvm.")}
    if imported - _LIBC:
        raise ValueError(f"the compiled kernel imports {', '.join(sorted(imported - _LIBC))}")
    return bytes(_machine(processor).emit_object(module))


def main(eight_bits: bool, file: Path) -> None:
    """Compile, check that the object file can be loaded, and put it into the cache."""
    code = _compile(eight_bits, target_processor())
    part = file.with_name(f"{file.name}.{os.getpid()}")
    part.write_bytes(hashlib.sha256(code).digest() + code)
    part.chmod(0o600)
    load(part)  # A crash ends this process, and not the one that would have used the kernel.
    try:
        os.replace(part, file)
    except PermissionError:  # On Windows, while another process reads one that is there already.
        part.unlink()
        if not file.exists():
            raise


if __name__ == "__main__":
    main(sys.argv[1] == "8-bit", Path(sys.argv[2]))
