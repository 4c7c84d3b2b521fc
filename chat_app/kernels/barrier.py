"""How the threads of a kernel work together: which share of the work is whose, and how they wait for each other."""

from __future__ import annotations

from typing import NamedTuple

from chat_app.kernels.layout import MICRO_M
from chat_app.kernels.llvm_dot import atomic_fetch_add, atomic_load_acquire
from chat_app.kernels.scalar_math import jit


class TeamView(NamedTuple):
    """The team, as one of its threads sees it.

    Attributes:
        thread_id: of this thread, from 0 on.
        threads: in the team.
        counter: address of an int64 that is 0 when the task begins.
    """

    thread_id: int
    threads: int
    counter: int


@jit
def barrier(team, phase):
    """Wait until every thread of the team has come here; what each wrote before is visible to all others afterwards.

    The invariant: every thread reaches every barrier of a task, in the same order, or all the others hang. So whether
    a barrier is reached may depend only on what is the same for all threads, such as the number of rows, and never on
    the share of one of them, even an empty one; and no kernel returns early or raises between two barriers.

    A thread adds 1 to the counter and spins until it is `threads` times the phases so far. The counter only grows: it
    is never reset within a task, so no thread can miss the end of a phase.

    Args:
        phase: the number of barriers that this thread has passed in this task.

    Returns:
        That number after this one; hand it to the next barrier.
    """
    if team.threads > 1:
        atomic_fetch_add(team.counter)
        while atomic_load_acquire(team.counter) < team.threads * (phase + 1):
            pass
    return phase + 1


@jit
def thread_range(team, count):
    """This thread's share of so many things: from the first to before the last."""
    return count * team.thread_id // team.threads, count * (team.thread_id + 1) // team.threads


@jit
def row_range(team, rows):
    """The rows that this thread packs or normalizes: all where there are up to MICRO_M, as a barrier would cost more
    than doing them in each thread; else its share."""
    if rows <= MICRO_M:
        return 0, rows
    return thread_range(team, rows)
