"""The processes that train one network together, as `torchrun` starts them; one is enough.

    torchrun --nproc-per-node 4 -m rmploss train ...

With one process there is no process group, and every collective here is the identity.
"""

import os
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from rmploss.errors import Problem, UserError


@dataclass(frozen=True)
class World:
    """This process among all: its rank, their number, its rank on this machine, its device.

    Collectives are called by all ranks at the same point, or they wait until the timeout.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_main(self) -> bool:
        """Whether this is the one process that writes to the disk and to the terminal."""
        return self.rank == 0

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """The sum over the ranks of tensors of one shape; the argument is left alone."""
        total = tensor.detach().clone()
        if self.size > 1:
            dist.all_reduce(total, dist.ReduceOp.SUM)
        return total

    def agree(self, flag: bool) -> bool:
        """Whether any rank raised the flag; all get the same answer, and no GPU is waited for."""
        raised = torch.tensor(int(flag))
        if self.size > 1:
            dist.all_reduce(raised, dist.ReduceOp.MAX)
        return bool(raised)

    def broadcast(self, tensor: Tensor) -> None:
        """The tensor of the main process, on all, in place."""
        if self.size > 1:
            dist.broadcast(tensor.detach(), 0)

    def broadcast_text(self, text: str | None) -> str:
        """The text of the main process, on all; what the others pass is not read."""
        if self.size == 1:
            return text or ""
        # Bytes, because PyTorch's own broadcast of objects is a pickle.
        data = torch.tensor(list((text or "").encode()), dtype=torch.uint8)
        length = torch.tensor(len(data))
        dist.broadcast(length, 0)
        if not self.is_main:
            data = torch.zeros(int(length), dtype=torch.uint8)
        dist.broadcast(data, 0)
        return bytes(data.tolist()).decode()


def start(device: str = "auto", timeout: timedelta = timedelta(minutes=10)) -> World:
    """Join the other processes: tensors on GPUs meet over nccl, those on CPUs over gloo.

    device: "auto" (a GPU if there is one), "cpu", "cuda" (that of the local rank) or "cuda:<n>".
    timeout: how long to wait for the others, here and in every collective. `UserError` if the
    environment that `torchrun` sets is incomplete or wrong, or if nobody answers.
    """
    rank, size, local_rank = _place()
    world = World(rank, size, local_rank, _device(device, local_rank))
    if size > 1:
        _meet(world, timeout)
    return world


def stop() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _place() -> tuple[int, int, int]:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if not any(name in os.environ for name in names):
        return 0, 1, 0
    problems: list[Problem] = []

    def number(name: str) -> int:
        word = os.environ.get(name, "")
        if not word.isdecimal():
            what = f"is {word!r}, not a whole number" if word else "is not set"
            problems.append(
                Problem(name, what, "start with torchrun, or unset " + ", ".join(names))
            )
            return 0
        return int(word)

    rank, size, local_rank = (number(name) for name in names)
    if not problems and not rank < size:
        problems.append(Problem(f"RANK = {rank}", f"must be below WORLD_SIZE = {size}"))
    if size > 1:
        problems += [
            Problem(name, "is not set", "start with torchrun, which sets it")
            for name in ("MASTER_ADDR", "MASTER_PORT")
            if not os.environ.get(name)
        ]
    if problems:
        raise UserError("the processes cannot be placed", problems)
    return rank, size, local_rank


def _device(word: str, local_rank: int) -> torch.device:
    gpus = torch.cuda.device_count()
    if word == "auto":
        word = "cuda" if gpus else "cpu"
    try:
        device = torch.device(word)
    except RuntimeError:
        problem = Problem(f"device = {word!r}", "is unknown", "auto, cpu, cuda or cuda:<number>")
        raise UserError("no such device", [problem]) from None
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        problem = Problem(
            f"device = {word!r}", "is not supported", "auto, cpu, cuda, cuda:<number>"
        )
        raise UserError("no such device", [problem])
    index = local_rank if device.index is None else device.index
    if index >= gpus:
        what = f"this process needs GPU {index} of {gpus}" if gpus else "no CUDA device here"
        problem = Problem(f"device = {word!r}", what, "--device cpu")
        raise UserError("no such device", [problem])
    return torch.device("cuda", index)


def _meet(world: World, timeout: timedelta) -> None:
    on_gpu = world.device.type == "cuda"
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            rank=world.rank,
            world_size=world.size,
            timeout=timeout,
            device_id=world.device if on_gpu else None,
        )
    except (RuntimeError, ValueError) as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        first_line = str(error).strip().partition("\n")[0]
        problem = Problem(
            f"MASTER_ADDR:MASTER_PORT = {place}", first_line, "is it free, and the same on all?"
        )
        raise UserError(
            f"rank {world.rank} could not meet the {world.size - 1} others", [problem]
        ) from error
