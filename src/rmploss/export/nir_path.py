"""NIR for readers that run nodes depth first, before all their sources have run.

    x ---> shortcut --------> add         runs x, shortcut, add, ...: the branch is missed
    x ---> conv1 -> conv2 --> add

    x -> shortcut -> 0 -> conv1 -> conv2 -> add       with one layer of zeros a path through all

The zeros are added to what a node reads anyway, so its value stays the same, bit for bit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

Edges = list[tuple[str, str]]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Zeros:
    """A layer without weights other than 0 between two nodes.

    before, after: the names of the nodes.
    shape, into: of what it reads and of what it gives, `[C]` or `[C, H, W]`.
    """

    before: str
    after: str
    shape: Shape
    into: Shape

    @property
    def name(self) -> str:
        """Of the node."""
        return f"zeros_before_{self.after}"


def along(order: Sequence[str], edges: Edges) -> Edges:
    """The edges in an order in which a walk depth first meets the nodes in theirs.

    order: of the nodes, sources first; each is read by the one that follows.
    """
    place = {name: i for i, name in enumerate(order)}
    return sorted(edges, key=lambda edge: (place[edge[0]], place[edge[1]]))


def gaps(
    order: Sequence[str], edges: Edges, given: Mapping[str, Shape], out: Mapping[str, Shape]
) -> list[Zeros]:
    """The layers of zeros that make a path through all nodes.

    order: of the nodes, sources first.
    given, out: the shape of what each node reads and gives.
    """
    known = set(edges)
    return [Zeros(a, b, out[a], given[b]) for a, b in pairwise(order) if (a, b) not in known]


def window(size: int, into: int) -> tuple[int, int, int]:
    """Kernel, stride and padding with which a side of `size` pixels becomes one of `into`."""
    if into <= size:
        stride = size // into
        return size - (into - 1) * stride, stride, 0
    padding = (into - size + 1) // 2
    return size + 2 * padding - into + 1, 1, padding


def windows(zeros: Zeros) -> dict[str, Any]:
    """`window` of both sides, as the fields of a convolution."""
    sides = [window(*pair) for pair in zip(zeros.shape[1:], zeros.into[1:], strict=True)]
    kernel, stride, padding = (tuple(each) for each in zip(*sides, strict=True))
    return {"kernel": kernel, "stride": stride, "padding": padding}
