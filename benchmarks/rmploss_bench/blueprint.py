"""The blueprint of a network: its convolutions, neurons, poolings and shortcuts as plain data.

Every peer builds the same network from it. A blueprint lists the parts in the order in which they
run. Their names are those of our own network, whose `state_dict` holds the weights.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from rmploss.errors import UserError, unknown

State = Mapping[str, Tensor]
"""The parameters and buffers of our network, by name."""
Shape = tuple[int, int, int]
"""Channels, height, width of one map."""


@dataclass(frozen=True)
class Conv:
    """A convolution and its norm; the state holds `NAME.conv.weight`, `NAME.norm.weight`, ..."""

    name: str
    stride: int = 1


@dataclass(frozen=True)
class Neurons:
    """One layer of LIF neurons."""

    name: str


@dataclass(frozen=True)
class Pool:
    """Average pooling.

    kernel: the side of a window, in pixels.
    stride: between windows; 0: the kernel's side.
    padding: rows and columns of zeros around the map. They count in the mean (PyTorch's default);
        without padding, a window cut by the border averages what is inside.
    """

    kernel: int
    stride: int = 0
    padding: int = 0

    def options(self) -> dict[str, int | bool]:
        """The arguments of `torch.nn.AvgPool2d`."""
        if self.padding:
            return {
                "kernel_size": self.kernel,
                "stride": self.stride or self.kernel,
                "padding": self.padding,
            }
        return {
            "kernel_size": self.kernel,
            "stride": self.stride or self.kernel,
            "ceil_mode": True,
            "count_include_pad": False,
        }


@dataclass(frozen=True)
class Residual:
    """The sum of two paths; an empty shortcut is the identity."""

    body: tuple["Part", ...]
    shortcut: tuple["Part", ...]


Part = Conv | Neurons | Pool | Residual
Blueprint = tuple[Part, ...]
BLOCKS = {"resnet20": (2, 2, 2, 2), "resnet19": (3, 3, 2), "resnet18": (2, 2, 2, 2)}
VGG = (2, 2, 3, 3, 3)
NETWORKS = (*BLOCKS, "vgg16")
"""The networks that have a blueprint."""


def image_of(network: str) -> Shape:
    """Channels, height and width of a network's images: those of ImageNet or of CIFAR-10."""
    return (3, 224, 224) if network == "resnet18" else (3, 32, 32)


def classes_of(network: str) -> int:
    """The number of classes: those of ImageNet or of CIFAR-10."""
    return 1000 if network == "resnet18" else 10


def blueprint_of(network: str) -> Blueprint:
    """The parts of a network between its image and its last pooling, in order.

    Raises `UserError` for a network that is not in `NETWORKS`.
    """
    if network in BLOCKS:
        return (*_stem(network), *_stages(network))
    if network == "vgg16":
        return tuple(_vgg())
    raise UserError("no blueprint to benchmark", [unknown("network", network, NETWORKS)])


def _stem(network: str) -> Blueprint:
    if network == "resnet18":
        return (Conv("conv1", 2), Neurons("lif1"), Pool(3, stride=2, padding=1))
    count = 3 if network == "resnet20" else 1
    layers = [(Conv(f"conv{i}"), Neurons(f"lif{i}")) for i in range(1, count + 1)]
    pool = (Pool(2),) if network == "resnet20" else ()
    return (*(part for layer in layers for part in layer), *pool)


def _stages(network: str) -> Iterator[Part]:
    for stage, blocks in enumerate(BLOCKS[network], start=1):
        for index in range(blocks):
            name, stride = f"layer{stage}.{index}", 2 if stage > 1 and index == 0 else 1
            body = (
                Conv(f"{name}.conv1", stride),
                Neurons(f"{name}.lif1"),
                Conv(f"{name}.conv2"),
            )
            yield Residual(body, _shortcut(network, name, stride))
            yield Neurons(f"{name}.lif2")


def _shortcut(network: str, name: str, stride: int) -> Blueprint:
    if stride == 1:
        return ()
    if network == "resnet20":
        return (Pool(stride), Conv(f"{name}.shortcut.1"))
    return (Conv(f"{name}.shortcut", stride),)


def _vgg() -> Iterator[Part]:
    for stage, count in enumerate(VGG, start=1):
        for index in range(1, count + 1):
            yield Conv(f"layers.conv{stage}_{index}")
            yield Neurons(f"layers.lif{stage}_{index}")
        yield Pool(2)


@dataclass(frozen=True)
class Layer:
    """A convolution or a layer of neurons; its input has shape `source`, its output `target`."""

    part: Conv | Neurons
    source: Shape
    target: Shape


def layers(parts: Blueprint, state: State, source: Shape) -> Iterator[Layer]:
    """Every convolution and every layer of neurons of a blueprint, in order, with their shapes.

    parts: the blueprint.
    state: the weights, which give the numbers of channels and the kernel sizes.
    source: `(C, H, W)` of the image.
    """
    shape = source
    for part in parts:
        if isinstance(part, Residual):
            yield from layers(part.body, state, shape)
            yield from layers(part.shortcut, state, shape)
        target = shape_after(part, state, shape)
        if isinstance(part, Conv | Neurons):
            yield Layer(part, shape, target)
        shape = target


def shape_after(part: Part, state: State, shape: Shape) -> Shape:
    """The shape of one map after a part."""
    channels, height, width = shape
    if isinstance(part, Conv):
        kernel = state[f"{part.name}.conv.weight"]
        pad = kernel.shape[-1] // 2
        sides = [(n + 2 * pad - kernel.shape[-1]) // part.stride + 1 for n in (height, width)]
        return (kernel.shape[0], *sides)  # pyright: ignore[reportReturnType]
    if isinstance(part, Pool):
        if part.padding:
            step, inset = part.stride or part.kernel, 2 * part.padding - part.kernel
            return (channels, (height + inset) // step + 1, (width + inset) // step + 1)
        return (channels, -(-height // part.kernel), -(-width // part.kernel))
    if isinstance(part, Residual):
        for inner in part.body:
            shape = shape_after(inner, state, shape)
    return shape
