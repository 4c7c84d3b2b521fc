"""Distributed training: several processes train one model, as `torchrun` or `accelerate launch` starts them.

Each has a rank; rank 0, the main process, prepares the run, writes its folder and prints. Without such a start the
world size is 1, and everything here does nothing. All processes must see the same folder of runs, also where they run
on several machines.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from chat_app.errors import ChatAppError, PeerProcessError, SettingError

Value = TypeVar("Value")
# Parts of the libraries' messages when the process at the other end has ended.
_SIGNS = ("gloo", "nccl", "connection closed", "connection reset", "process group", "broken pipe")


def world_size() -> int:
    """How many processes train together. Some clusters set WORLD_SIZE alone, for other purposes: then it is 1."""
    started = "RANK" in os.environ and "MASTER_ADDR" in os.environ
    return int(os.environ.get("WORLD_SIZE", "1")) if started else 1


def is_main_process() -> bool:
    """Whether this is rank 0, the process that writes and prints."""
    return world_size() == 1 or int(os.environ["RANK"]) == 0


def join_process_group(device: str) -> None:
    """Join the process group, if there is one.

    Args:
        device: as in the settings; "cpu" keeps off the GPUs.

    Raises:
        SettingError: the processes were started to shard the model (FSDP, DeepSpeed).
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
    """Destroy the process group."""
    if world_size() > 1:
        import torch.distributed

        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def broadcast_from_main(make: Callable[[], Value]) -> Value:
    """Make a value in the main process and broadcast it to all.

    Raises:
        ChatAppError: what `make` raises, in the main process. PeerProcessError: in the others.
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
    """Whether a flag is true in any process; all get the same answer (all-reduce)."""
    return flag if world_size() == 1 else all_reduce_sum([float(flag)])[0] > 0


def all_reduce_sum(values: Sequence[float]) -> list[float]:
    """Each value summed over all processes (all-reduce)."""
    if world_size() == 1:
        return list(values)
    import torch
    import torch.distributed

    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    total = torch.tensor(values, dtype=torch.float64, device=device)
    torch.distributed.all_reduce(total)
    return [float(one) for one in total]


def barrier() -> None:
    """Wait until all processes have come here (a barrier)."""
    all_reduce_sum([0.0])


def claim_failure(path: Path) -> bool:
    """Whether this process is the first to create a file: where all fail for one reason, one of them reports it."""
    if world_size() == 1:
        return True
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def is_consequence(error: BaseException) -> bool:
    """Whether an error only follows from the end of another process, which reports the reason."""
    if isinstance(error, PeerProcessError):
        return True
    if world_size() == 1:
        return False
    chain = (error, error.__cause__)
    return any(sign in str(one).lower() for one in chain if one is not None for sign in _SIGNS)
