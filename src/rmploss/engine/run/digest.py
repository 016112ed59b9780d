"""The run digest: two runs have the same one if they are equal bit for bit."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from rmploss.engine.run.lines import timeless, to_json


def digest(
    model_state: Mapping[str, Tensor],
    optimizer_tensors: Mapping[str, Tensor],
    metrics: Iterable[Mapping[str, Any]],
) -> str:
    """The run digest: SHA-256 of parameters, buffers, optimizer and metrics without times.

    model_state: parameters and buffers by name.
    optimizer_tensors: see `OptimizerState.tensors`.
    metrics: the records of metrics.jsonl.

    Two runs have the same digest if they are equal bit for bit; interruptions do not change it.
    """
    total = hashlib.sha256()
    for part, tensors in (("model", model_state), ("optimizer", optimizer_tensors)):
        for name, tensor in sorted(tensors.items()):
            total.update(f"{part}/{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            total.update(flat.view(torch.uint8).numpy().tobytes())
    for record in metrics:
        total.update(f"{to_json(timeless(record))}\n".encode())
    return total.hexdigest()
