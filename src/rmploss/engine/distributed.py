"""The process group that trains one network, as `torchrun` launches it, or a single process.

    torchrun --nproc-per-node 4 -m rmploss train ...

With one process there is no process group, and every collective here is the identity.
"""

import os
from dataclasses import dataclass, field, replace
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from rmploss.engine.attempt import agree
from rmploss.engine.ranks import Meeting, within
from rmploss.errors import Problem, UserError


@dataclass(frozen=True)
class World:
    """This process in the process group.

    rank: its number, 0 to size - 1.
    size: the number of processes.
    local_rank: its number on this machine.
    device: where its tensors are.
    meeting: where the ranks met; None: there is one.
    agreement: the group of the small collectives on the CPU; None: the default one.

    All ranks must call a collective at the same point, or it blocks until the timeout.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    meeting: Meeting | None = field(default=None, compare=False)
    agreement: dist.ProcessGroup | None = field(default=None, compare=False)

    @property
    def is_main(self) -> bool:
        """True for rank 0, the only process that writes to the disk and to the terminal."""
        return self.rank == 0

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """The sum over the ranks, of the shape of the argument, which does not change."""
        total = tensor.detach().clone()
        if self.size > 1:
            dist.all_reduce(total, dist.ReduceOp.SUM)
        return total

    def highest(self, value: int) -> int:
        """The highest `value` of all ranks, on all of them. Does not synchronize a GPU."""
        if self.size == 1:
            return value
        raised = torch.tensor(value)
        dist.all_reduce(raised, dist.ReduceOp.MAX, group=self.agreement)
        return int(raised)

    def any_rank(self, flag: bool) -> bool:
        """True on all ranks if `flag` is true on one of them. Does not synchronize a GPU."""
        return bool(self.highest(int(flag)))

    def any_rank_of(self, flag: Tensor) -> Tensor:
        """True (a bool, `[]`) on all ranks if it is on one; the device stays ahead of the host."""
        if self.size == 1:
            return flag
        raised = flag.int()
        dist.all_reduce(raised, dist.ReduceOp.MAX)
        return raised.bool()

    def broadcast(self, tensor: Tensor) -> None:
        """Overwrite the tensor in place with that of rank 0."""
        if self.size > 1:
            dist.broadcast(tensor.detach(), 0)

    def broadcast_text(self, text: str | None) -> str:
        """The text of rank 0, on all ranks; the argument of the others is ignored."""
        if self.size == 1:
            return text or ""
        # Bytes, because PyTorch's own broadcast of objects is a pickle.
        data = torch.tensor(list((text or "").encode(errors="surrogatepass")), dtype=torch.uint8)
        length = torch.tensor(len(data))
        dist.broadcast(length, 0)
        if not self.is_main:
            data = torch.zeros(int(length), dtype=torch.uint8)
        dist.broadcast(data, 0)
        return bytes(data.tolist()).decode(errors="surrogatepass")


def init(device: str = "auto", timeout: timedelta = timedelta(seconds=60)) -> World:
    """Join the process group: nccl for tensors on GPUs, gloo for those on CPUs.

    device: "auto" (a GPU if there is one), "cpu", "cuda" (that of the local rank) or "cuda:<n>".
    timeout: how long to wait for the other ranks, here and in every collective.

    Raises `UserError` if the environment variables of `torchrun` are incomplete or wrong, or if the
    other ranks do not answer.
    """
    rank, size, local_rank = _ranks_of_environment()
    world = World(rank, size, local_rank, _device(device, local_rank))
    return _connect(world, timeout) if size > 1 else world


def averaging_gradients(net: nn.Module) -> DistributedDataParallel:
    """The network, whose gradients are averaged over the ranks in an order that never changes.

    `DistributedDataParallel` sums gradients in flat buffers, at first in the reverse order of the
    parameters, from the second step on in the order in which they arrived. Three ranks and more
    round a sum by the place of its element in the buffer. A resumed run, whose first step is not
    the first of the unbroken run, would so differ in the last bits. Here the first backward is one
    of zeros, so that the order is settled before the first step.

    net: on the device of this rank; its gradients are None before and after.
    """
    ddp = DistributedDataParallel(net)
    parameters = [p for p in net.parameters() if p.requires_grad]
    ddp.reducer.prepare_for_forward()
    ddp.reducer.prepare_for_backward([])
    torch.stack([(0 * p).sum() for p in parameters]).sum().backward()
    net.zero_grad(set_to_none=True)
    return ddp


def shutdown() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _ranks_of_environment() -> tuple[int, int, int]:
    """RANK, WORLD_SIZE and LOCAL_RANK; 0, 1, 0 if none is set."""
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
        raise UserError("bad environment of a distributed run", problems)
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


def _connect(world: World, timeout: timedelta) -> World:
    """The world with its process group; `UserError` if the ranks do not meet in time."""
    seconds, on_gpu = timeout.total_seconds(), world.device.type == "cuda"

    def meet() -> Store:
        return next(rendezvous("env://", timeout=timeout))[0]

    def named() -> str:
        return agree(PrefixStore("attempt", store), world.rank, world.size, seconds)

    try:
        # A client of PyTorch waits without an end for a program of another kind at the port.
        store = meet() if world.is_main else within(seconds + 1, meet)
        store = PrefixStore(within(seconds + 1, named), store)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            store=PrefixStore("group", store),
            rank=world.rank,
            world_size=world.size,
            # NCCL kills the process after its time. The agreements on the CPU, in every step, have
            # the shorter one, so that a rank that does not answer is named first.
            timeout=2 * timeout if on_gpu else timeout,
            device_id=world.device if on_gpu else None,
        )
    except (RuntimeError, ValueError, TimeoutError) as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        first_line = str(error).strip().partition("\n")[0]
        problem = Problem(
            f"MASTER_ADDR:MASTER_PORT = {place}", first_line, "a free port, the same on all ranks"
        )
        raise UserError(
            f"rank {world.rank} cannot connect to the {world.size - 1} other ranks", [problem]
        ) from error
    meeting = Meeting(PrefixStore("meeting", store), world.rank, world.size, seconds)
    agreement = dist.new_group(backend="gloo", timeout=timeout) if on_gpu else None
    return replace(world, meeting=meeting, agreement=agreement)
