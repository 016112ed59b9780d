"""PyTorch's own formats: a program of torch.export (.pt2), and TorchScript (.pt).

Both hold the unrolled network (`export.plain.Unrolled`) in plain operations: loading them
needs no rmploss. Inside, PyTorch keeps pickles: these files are written when asked for by name
alone, and read nowhere but in the comparison that follows.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rmploss import store
from rmploss.arguments import checked
from rmploss.export.graph import Graph, graph_of
from rmploss.export.plain import Unrolled
from rmploss.models import SpikingNetwork


@checked()
def to_torch_export(net: SpikingNetwork, sample: Tensor, path: str | Path) -> Path:
    """Write a network as a program of torch.export, for `torch.export.load`; returns the path.

    net: in evaluation its logits are those of the program, up to rounding.
    sample: an input `[B, C, H, W]`, or a sequence `[T, B, C, H, W]`, which fixes T; B is free.
    path: of the file, .pt2.
    """
    store.write_bytes(path := Path(path), exported_bytes(graph_of(net, sample)))
    return path


@checked()
def to_torchscript(net: SpikingNetwork, sample: Tensor, path: str | Path) -> Path:
    """Write a network as TorchScript, for `torch.jit.load` and LibTorch; returns the path.

    The arguments are those of `to_torch_export`; the file is .pt.
    """
    store.write_bytes(path := Path(path), scripted_bytes(graph_of(net, sample)))
    return path


def exported_bytes(graph: Graph) -> bytes:
    """The content of a file of `to_torch_export`."""
    buffer = io.BytesIO()
    along = {0 if graph.static else 1: torch.export.Dim.DYNAMIC}
    with _quiet():
        program = torch.export.export(Unrolled(graph), (_example(graph),), dynamic_shapes=(along,))
        torch.export.save(program, buffer)
    return buffer.getvalue()


def scripted_bytes(graph: Graph) -> bytes:
    """The content of a file of `to_torchscript`."""
    with _quiet():
        traced: Any = torch.jit.trace(Unrolled(graph), _example(graph), check_trace=False)
        return traced.save_to_buffer()


def run_exported(content: bytes, x: Tensor) -> Tensor:
    """The logits `[B, K]` of a file of `to_torch_export`."""
    with _quiet():
        return torch.export.load(io.BytesIO(content)).module()(x)


def run_scripted(content: bytes, x: Tensor) -> Tensor:
    """The logits `[B, K]` of a file of `to_torchscript`."""
    with _quiet():
        return torch.jit.load(io.BytesIO(content))(x)


def _example(graph: Graph) -> Tensor:
    """An input of two samples: a batch of one would fix the batch size."""
    return torch.zeros(*(() if graph.static else (graph.T,)), 2, *graph.shape)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without gradient, and without the warnings of PyTorch's exporters about themselves."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        yield
