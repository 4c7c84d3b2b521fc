"""Several processes that train one model, as `torchrun` or `accelerate launch` starts them, on one machine or more.

They are numbered; the first one alone prepares the run, writes its folder and speaks. Without such a start there is
one process, and everything here does nothing. The folder of runs must be the same for all, also on several machines.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from chat_app.errors import ChatAppError, PeerProcessError, SettingError

Value = TypeVar("Value")
# What the libraries say when a process at the other end is gone.
_SIGNS = ("gloo", "nccl", "connection closed", "connection reset", "process group", "broken pipe")


def world_size() -> int:
    """How many processes train together. Some clusters set the number alone, for other purposes: then it is one."""
    started = "RANK" in os.environ and "MASTER_ADDR" in os.environ
    return int(os.environ.get("WORLD_SIZE", "1")) if started else 1


def is_main_process() -> bool:
    """Whether this is the process that writes and speaks."""
    return world_size() == 1 or int(os.environ["RANK"]) == 0


def join_process_group(device: str) -> None:
    """Find the other processes, if there are any.

    Args:
        device: as in the settings; "cpu" keeps off the GPUs.

    Raises:
        SettingError: they were started to divide the model between them.
    """
    if any(os.environ.get(f"ACCELERATE_USE_{way}", "").lower() == "true" for way in ("FSDP", "DEEPSPEED")):
        raise SettingError(
            "accelerate",
            "A model that is divided between processes cannot be trained here.",
            advice="Choose plain multi-GPU in `accelerate config`, or --method lora-8bit for a model that is too big.",
        )
    if world_size() > 1:
        from accelerate import PartialState

        PartialState(cpu=device == "cpu")


def leave_process_group() -> None:
    """Part from the other processes."""
    if world_size() > 1:
        import torch.distributed

        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def broadcast_from_main(make: Callable[[], Value]) -> Value:
    """What the first process makes, for all; only there it is made.

    Raises:
        ChatAppError: what `make` raises, in the first process. PeerProcessError: in the others.
    """
    if world_size() == 1:
        return make()
    import torch.distributed

    box: list[Any] = [None]
    if is_main_process():
        try:
            box = [("made", make())]
        except ChatAppError:
            torch.distributed.broadcast_object_list([("failed", None)])
            raise
    torch.distributed.broadcast_object_list(box)
    kind, value = box[0]
    if kind == "failed":
        raise PeerProcessError
    result: Value = value
    return result


def any_process(flag: bool) -> bool:
    """Whether it is true in any process; all get the same answer."""
    return flag if world_size() == 1 else all_reduce_sum([float(flag)])[0] > 0


def all_reduce_sum(values: Sequence[float]) -> list[float]:
    """Each value added up over all processes."""
    if world_size() == 1:
        return list(values)
    import torch
    import torch.distributed

    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    total = torch.tensor(values, dtype=torch.float64, device=device)
    torch.distributed.all_reduce(total)
    return [float(one) for one in total]


def barrier() -> None:
    """Until all processes have come here."""
    all_reduce_sum([0.0])


def claim_failure(path: Path) -> bool:
    """Whether this process is the first to leave a mark: where all fail for one reason, one of them tells it."""
    if world_size() == 1:
        return True
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def is_consequence(error: BaseException) -> bool:
    """Whether an error only says that another process is gone, which has told why."""
    if isinstance(error, PeerProcessError):
        return True
    if world_size() == 1:
        return False
    chain = (error, error.__cause__)
    return any(sign in str(one).lower() for one in chain if one is not None for sign in _SIGNS)
