"""The threads that run a compiled kernel together, and the workspace that they share."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from chat_app.kernels.arrays import checked_address
from chat_app.kernels.compilation import CompiledKernel
from chat_app.kernels.huge_pages import huge_page_array
from chat_app.kernels.kernel_args import KERNEL_ARGS

_MAX_THREADS = 256
_PAST_ALL_PHASES = 2**62  # Of the counter: a thread that waits at any barrier goes on.
_MIN_WORKSPACE = 2**16  # Bytes.


class ThreadTeam:
    """A pool of threads and a workspace. One of the threads of a task is the caller's."""

    def __init__(self) -> None:
        self._counter = np.zeros(1, np.int64)
        self._counter_address = checked_address(self._counter, np.int64, 1)
        self._workspace, self._workspace_address = _allocate(_MIN_WORKSPACE)
        self._pool = ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="kernel")  # Starts threads when it needs them.

    def run(self, kernel: CompiledKernel, args: Any, layout: Any) -> None:
        """Run a task in as many threads as torch may use now.

        Args:
            args: KERNEL_ARGS, whose team and workspace are filled here.
            layout: of the workspace.
        """
        threads = min(torch.get_num_threads(), _MAX_THREADS)
        size = int(layout["shared_bytes"][0] + threads * layout["own_bytes"][0])
        if len(self._workspace) < size:
            self._workspace, self._workspace_address = _allocate(size)
        self._counter[0] = 0
        args["team"] = (threads, self._counter_address)
        args["workspace"] = layout
        args["workspace"]["address"] = self._workspace_address
        address = checked_address(args, KERNEL_ARGS, 1)
        others: list[Future[object]] = []
        try:
            others += (self._pool.submit(kernel, thread_id, address) for thread_id in range(1, threads))
            kernel(0, address)
        finally:
            if len(others) < threads - 1:  # A thread could not be started: the others must not wait for it.
                self._counter[0] = _PAST_ALL_PHASES
            for one in others:
                one.result()


def _allocate(size: int) -> tuple[Any, int]:
    """A workspace of so many bytes, and its address."""
    workspace = huge_page_array(size, np.uint8)
    return workspace, checked_address(workspace, np.uint8, size, line=True)
