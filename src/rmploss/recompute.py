"""`checkpoint`: activation checkpointing that counts each layer's moments once.

Files of a run on the disk are `engine.checkpoint`; this is about memory.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint as torch_checkpoint

from rmploss.arguments import checked
from rmploss.ops import asked, use_backend
from rmploss.ops.lif.moments import MomentSpec
from rmploss.stats import open_stats, recomputation


@checked(function="checkpoint(net, x)")
def checkpoint(function: Callable[..., Any], /, *arguments: Any) -> Any:
    """Run `function(*arguments)`, store no activation of it, and run it again in backward.

    As `torch.utils.checkpoint.checkpoint(function, *arguments, use_reentrant=False)`, but aware of
    membrane statistics: the second run computes the same moments, so that it saves the same
    tensors, and records none of them. Each layer, and each running statistic of a norm, counts
    once.
    """
    stats = open_stats()
    if stats is None and torch.compiler.is_compiling():
        return torch_checkpoint(function, *arguments, use_reentrant=False)
    second_run = _SecondRun(None if stats is None else stats.spec, asked())
    return torch_checkpoint(
        function, *arguments, use_reentrant=False, context_fn=lambda: (nullcontext(), second_run)
    )


class _SecondRun(AbstractContextManager[None]):
    """The context of each run in backward, which may repeat; spec, backend: of the first run.

    Blocks that are open during backward get no entry from it, and change nothing in it.
    """

    def __init__(self, spec: MomentSpec | None, backend: str) -> None:
        self.spec = spec
        self.backend = backend

    def __enter__(self) -> None:
        with ExitStack() as stack:
            stack.enter_context(recomputation(self.spec))
            stack.enter_context(use_backend(self.backend))
            self.exits = stack.pop_all()

    def __exit__(self, *_: object) -> None:
        self.exits.close()
