"""The threads that run a compiled kernel together, and the workspace that they share."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from chat_app.kernels.arrays import checked_address
from chat_app.kernels.buffers import buffer_zeros
from chat_app.kernels.compilation import CompiledKernel
from chat_app.kernels.guarded_memory import check_fills
from chat_app.kernels.kernel_args import KERNEL_ARGS
from chat_app.kernels.mode import memory_is_guarded
from chat_app.kernels.workspace import WorkspaceLayout, allocate_workspace

_MAX_THREADS = 256
_PAST_ALL_PHASES = 2**62  # Of the counter: a thread that waits at any barrier goes on.


class ThreadTeam:
    """A pool of threads and a workspace. One of the threads of a task is the caller's."""

    def __init__(self) -> None:
        self._args = buffer_zeros(
            1, KERNEL_ARGS
        )  # Filled in part: a whole one takes as long as a layer of a tiny model.
        self._args_address = checked_address(self._args, KERNEL_ARGS, 1)
        self._counter = buffer_zeros(1, np.int64)
        self._counter_address = checked_address(self._counter, np.int64, 1)
        self._threads = 0  # Of the task before, as is the layout.
        self._layout: WorkspaceLayout | None = None
        self._weights: tuple[int, ...] = ()
        self._workspace: Any = np.empty(0, np.uint8)
        self._workspace_address = 0
        self._pool = ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="kernel")  # Starts threads when it needs them.

    def run(
        self, kernel: CompiledKernel, task: int, task_args: int, weights: tuple[int, ...], layout: WorkspaceLayout
    ) -> None:
        """Run a task in as many threads as torch may use now. Only one thread may call this at a time.

        Args:
            task_args: the address of the structure of that task.
            weights: the fields of a WEIGHTS.
            layout: of the workspace, from `workspace_layout`.
        """
        threads = min(torch.get_num_threads(), _MAX_THREADS)
        if threads != self._threads or layout is not self._layout:
            self._set_workspace(threads, layout)
        if weights != self._weights:
            self._args["weights"] = self._weights = weights
        self._args["task"], self._args["task_args"] = task, task_args
        self._counter[0] = 0
        address = self._args_address
        others: list[Future[object]] = []
        try:
            others += (self._pool.submit(kernel, thread_id, address) for thread_id in range(1, threads))
            kernel(0, address)
        finally:
            if len(others) < threads - 1:  # A thread could not be started: the others must not wait for it.
                self._counter[0] = _PAST_ALL_PHASES
            for one in others:
                one.result()
        if memory_is_guarded():
            check_fills()

    def _set_workspace(self, threads: int, layout: WorkspaceLayout) -> None:
        """Fill in the team and the workspace, for which there is memory afterwards."""
        if len(self._workspace) < layout.size(threads) or memory_is_guarded():
            self._workspace = workspace = allocate_workspace(layout, threads)
            self._workspace_address = checked_address(workspace, np.uint8, layout.size(threads), line=True)
        self._args["team"] = (threads, self._counter_address)
        self._args["workspace"] = layout.offsets
        self._args["workspace"]["address"] = self._workspace_address
        self._threads, self._layout = threads, layout
