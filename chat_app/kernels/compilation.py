"""Machine code of the compiled functions: made once for a processor, kept on the disk, and loaded without the compiler.

    python -m chat_app.kernels.compilation 8-bit FILE

Knows no weights and no model.
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
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache
from pathlib import Path
from typing import Any

from chat_app.config.paths import Paths
from chat_app.system.cpu import Processor, compiled_for, this_processor
from chat_app.system.installation import child_environment

LOGGER = logging.getLogger(__name__)
_SOURCES = tuple(sorted(file.name for file in Path(__file__).parent.glob("*.py")))
_DIGEST = 32  # Bytes that stand before the code: its checksum.
_LONGEST = 600  # Seconds that compiling may take.
_NEVER_CALLED = "define void @NRT_MemInfo_call_dtor(i8* %0) { ret void }"  # No array here owns its memory.
_OF_THE_SYSTEM = {"memcpy", "memmove", "memset"}

Code = Callable[[int, int], object]
"""The function of `decode_kernel.entry`: a thread's number and the address of a call. Other threads go on meanwhile."""


@cache
def kernel(eight_bits: bool) -> Future[Code]:
    """The compiled function for one kind of weights: at once where it was compiled before, else after seconds.

    It is compiled in a process of its own; until then, and where that fails, torch does its work.
    """
    compiled: Future[Code] = Future()
    try:
        file = _file(eight_bits, this_processor())
        if file.exists():
            compiled.set_result(load(file))
            return compiled
    except Exception:  # Of a damaged file or a library that is missing; a new one may help.
        LOGGER.info("the compiled functions cannot be loaded", exc_info=True)

    def work() -> None:
        try:
            made = _file(eight_bits, this_processor())
            compile_apart(eight_bits, made, this_processor())
            compiled.set_result(load(made))
        except Exception as error:  # The thread's edge. Chatting goes on without.
            LOGGER.warning("the fast way to compute replies cannot be used here", exc_info=True)
            compiled.set_exception(error)

    threading.Thread(target=work, name="compiler", daemon=True).start()
    return compiled


def compile_apart(eight_bits: bool, file: Path, processor: Processor) -> None:
    """Compile for a processor, in another process: it takes seconds, and whatever happens there stays there.

    Raises:
        OSError, subprocess.TimeoutExpired: it did not work.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "chat_app.kernels.compilation", "8-bit" if eight_bits else "bfloat16", str(file)]
    environment = {**child_environment(), **processor.environment}
    done = subprocess.run(
        command, env=environment, timeout=_LONGEST, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise OSError(f"compiling failed with {done.returncode}: {done.stderr[-2000:]}")


def load(file: Path) -> Code:
    """The function in a file.

    Raises:
        OSError, ValueError: the file is damaged.
    """
    from llvmlite import binding

    content = file.read_bytes()
    code = content[_DIGEST:]
    if hashlib.sha256(code).digest() != content[:_DIGEST]:
        raise ValueError(f"{file} is damaged")
    _begin()
    empty = binding.parse_assembly(f'target triple = "{binding.get_process_triple()}"')
    engine = binding.create_mcjit_compiler(empty, _machine(this_processor()))
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    function = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(
        engine.get_function_address("run")
    )
    unused = ctypes.create_string_buffer(64)  # What compiled functions return, and how they complain.
    place = ctypes.addressof(unused)

    def run(me: int, address: int, _kept: Any = (engine, unused)) -> int:
        return int(function(place, place + 32, me, address))

    return run


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
    return next((one / name for one in folders if (one / name).is_file()), _first_writable(folders) / name)


def _cache_folders(package: Path) -> list[Path]:
    """Where machine code may be kept, the best place first.

    Beside the source, as Python keeps its own compiled files; in the user's cache, where an administrator installed the
    package; in the home of this program, where a container gives a user nothing else to write to.
    """
    import platformdirs

    return [
        package / "__pycache__",
        Path(platformdirs.user_cache_dir("chat_app")),
        Paths.default().home / "cache" / "kernels",
    ]


def _first_writable(folders: list[Path]) -> Path:
    """The first folder that takes a file, else the last one. Only trying tells: a file system can be read-only too."""
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError:
            continue
    return folders[-1]


def _begin() -> None:
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()


def _machine(processor: Processor) -> Any:
    """LLVM's view of a processor."""
    from llvmlite import binding

    target = binding.Target.from_triple(binding.get_process_triple())
    places = "static" if target.name.startswith("x86") else "default"  # As numba chooses them.
    return target.create_target_machine(
        cpu=processor.name, features=processor.flags, opt=3, reloc=places, codemodel="jitdefault", jit=True
    )


def _compiled(eight_bits: bool, processor: Processor) -> bytes:
    """The machine code.

    Raises:
        ValueError: it needs something that is not here.
    """
    from llvmlite import binding
    from numba import types

    from chat_app.kernels.decode_step import entry
    from chat_app.kernels.numba_internals import llvm_code

    function = entry(eight_bits)
    signature = (types.int64, types.int64)
    code, name = llvm_code(function, signature)
    _begin()
    module = binding.parse_assembly(code)
    module.link_in(binding.parse_assembly(f'target triple = "{module.triple}"\n{_NEVER_CALLED}'))
    module.get_function(name).name = "run"
    module.verify()
    declared = {one.name for one in module.functions if one.is_declaration and not one.name.startswith("llvm.")}
    if declared - _OF_THE_SYSTEM:
        raise ValueError(f"the compiled function needs {', '.join(sorted(declared - _OF_THE_SYSTEM))}")
    return bytes(_machine(processor).emit_object(module))


def main(eight_bits: bool, file: Path) -> None:
    """Compile, see that the code can be loaded, and put it into a file."""
    code = _compiled(eight_bits, compiled_for())
    part = file.with_name(f"{file.name}.{os.getpid()}")
    part.write_bytes(hashlib.sha256(code).digest() + code)
    load(part)  # Whatever is wrong ends this process, and not the one that would have used it.
    try:
        os.replace(part, file)
    except PermissionError:  # On Windows, while another process reads one that is there already.
        part.unlink()
        if not file.exists():
            raise


if __name__ == "__main__":
    main(sys.argv[1] == "8-bit", Path(sys.argv[2]))
