"""Compiled code stays inside of its buffers: each ends at a protected page, and what lies outside of it is watched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from chat_app.kernels import buffers
from chat_app.kernels.buffers import as_buffer, buffer_tensor, buffer_zeros, huge_page_array, huge_page_zeros
from chat_app.kernels.guarded_memory import PAGE, is_guarded
from chat_app.kernels.kernel_args import STEP_ARGS
from chat_app.system.cpu import Processor
from tests.kernels.test_packed_weights import OTHERS

pytestmark = [
    pytest.mark.slow_file,
    pytest.mark.skipif(os.name != "posix", reason="memory is guarded by mprotect"),
]


def run(what: str, mode: str, processor: Processor | None = None) -> subprocess.CompletedProcess[str]:
    """Run a part of guarded_matrix in a process of its own."""
    environment = {**os.environ, "CHAT_APP_KERNELS": mode, **(processor.environment if processor else {})}
    command = [sys.executable, "-m", "tests.kernels.guarded_matrix", what]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=2400)


def compare_modes(what: str, processor: Processor | None = None) -> None:
    """In guarded memory nothing is touched outside of a buffer, and the logits are the same to the last bit."""
    guarded, plain = run(what, "guarded", processor), run(what, "on", processor)
    assert guarded.returncode == 0, guarded.stderr[-2000:]
    assert plain.returncode == 0, plain.stderr[-2000:]
    assert " steps " in guarded.stdout
    assert guarded.stdout == plain.stdout


def test_steps_stay_inside_of_their_buffers():
    compare_modes("share")


@pytest.mark.long
@pytest.mark.timeout(2700)
@pytest.mark.parametrize("name", ["this one", *sorted(OTHERS)])
def test_all_steps_stay_inside_of_their_buffers(name):
    compare_modes("all", OTHERS.get(name))


def test_an_overrun_ends_the_process_at_once():
    assert run("overrun", "guarded").returncode in (-signal.SIGSEGV, -signal.SIGBUS)


@pytest.mark.parametrize(
    ("what", "error"), [("underrun", "GuardedMemoryError"), ("unguarded", "is not in guarded memory")]
)
def test_what_no_page_protects_is_noticed(what, error):
    done = run(what, "guarded")
    assert done.returncode == 1
    assert error in done.stderr


@pytest.fixture
def _guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers, "memory_is_guarded", lambda: True)


@pytest.mark.usefixtures("_guarded")
class TestBuffers:
    def test_a_buffer_ends_where_a_page_begins(self):
        for size in (1, 5, 64, 4095, 4096, 9000):
            array = huge_page_array(size, np.uint8)
            assert array.shape == (size,)
            assert array.ctypes.data % 64 == 0
            assert -(array.ctypes.data + size) % PAGE < 64
            assert (array == 0xFF).all(), "what was never written to is no number"

    def test_zeros_are_zeros(self):
        assert not huge_page_zeros(700, np.int16).any()
        assert buffer_zeros(1, STEP_ARGS).tobytes() == bytes(STEP_ARGS.itemsize)

    def test_a_new_tensor_is_no_number(self):
        for dtype in (torch.float32, torch.bfloat16):
            tensor = buffer_tensor(3, 5, dtype=dtype)
            assert tensor.shape == (3, 5)
            assert tensor.dtype == dtype
            assert tensor.isnan().all()
            assert is_guarded(tensor.data_ptr(), tensor.nbytes)

    def test_what_others_allocated_is_copied_with_its_order(self):
        source = torch.arange(12.0).view(3, 4)
        for tensor in (source, source.T, source[0]):
            copy = as_buffer(tensor)
            assert torch.equal(copy, tensor)
            assert copy.stride() == tensor.stride()
            assert is_guarded(copy.data_ptr(), copy.nbytes)
        numbers = np.arange(6).reshape(2, 3)
        assert (as_buffer(numbers) == numbers).all()

    def test_a_buffer_of_nothing_is_none(self):
        assert len(buffer_zeros(0, np.int64)) == 0

    def test_memory_is_given_back(self):
        address = huge_page_array(10, np.uint8).ctypes.data
        assert not is_guarded(address, 10)


def test_without_the_mode_nothing_is_copied():
    tensor = torch.zeros(2, 2)
    assert as_buffer(tensor) is tensor
    assert not is_guarded(tensor.data_ptr(), tensor.nbytes)
