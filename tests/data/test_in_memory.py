"""Samples in memory: batches as tensor functions, the same however an epoch is cut."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rmploss.data import Key, batches, hold_out, take
from rmploss.data import _in_memory as in_memory
from rmploss.data._in_memory import InMemory, Prepare, PrepareFrames, Standardize
from rmploss.data._loading import Subset
from rmploss.data._prepare_images import PrepareImages
from rmploss.data.cifar10_dvs import Unpack
from rmploss.data.digits import PrepareDigits
from rmploss.errors import UserError

N = 40
READS = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "unique"}


def _random(*shape: int, below: int = 256) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, below, shape, generator=generator, dtype=torch.uint8)


def _samples(stored: Tensor, prepare: Prepare, seed: int = 0) -> InMemory:
    return InMemory(stored, torch.arange(len(stored)) % 10, prepare, seed)


def _cifar(seed: int = 0) -> InMemory:
    standardize = Standardize((0.4, 0.5, 0.6), (0.2, 0.2, 0.3))
    return _samples(_random(N, 3, 32, 32), PrepareImages("autoaugment+cutout", standardize), seed)


KINDS: dict[str, Callable[[], InMemory]] = {
    "images": _cifar,
    "digits": lambda: _samples(_random(N, 1, 8, 8, below=17), PrepareDigits(augment=True)),
    "frames": lambda: _samples(_random(N, 3, 2, 6, 6, below=2), PrepareFrames(augment=True)),
    "bits": lambda: _samples(_random(N, 27), Unpack((3, 2, 6, 6), True, PrepareFrames(True))),
}


class NoReads(TorchDispatchMode):
    """Raise where a value or a number of elements would travel from the device to the host."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket.__name__ not in READS, func
        return func(*args, **(kwargs or {}))


@pytest.fixture(params=KINDS)
def samples(request: pytest.FixtureRequest) -> InMemory:
    return KINDS[request.param]()


def _epoch(samples: InMemory, epoch: int, **options: Any) -> list[tuple[Tensor, Tensor]]:
    settings = {"batch_size": 12, "seed": 0, "shuffle": True, "drop_last": False, **options}
    return list(batches(samples, epoch=epoch, **settings))


def test_a_sample_is_the_same_in_every_batch_of_every_rank(samples: InMemory) -> None:
    order = [int(i) for _, i in _epoch(_numbered(samples), 3)[0:1] for i in i]
    whole = _epoch(samples, 3)
    for place, index in enumerate(order):
        x, label = samples[Key(3, index)]
        assert torch.equal(x, whole[0][0].select(x.ndim - 3, place))
        assert label == samples.labels[index]
    for world in (2, 3):
        ranks = [_epoch(samples, 3, world=world, rank=rank) for rank in range(world)]
        for (x, labels), *shares in zip(whole, *ranks, strict=True):
            assert torch.equal(torch.cat([s for s, _ in shares], x.ndim - 4), x)
            assert torch.equal(torch.cat([s for _, s in shares]), labels)
    for (x, _), (other, _) in zip(whole[2:], _epoch(samples, 3, start=2), strict=True):
        assert torch.equal(x, other)


def _numbered(samples: InMemory) -> InMemory:
    """The same samples, each its own number as label."""
    return InMemory(samples.stored, torch.arange(N), samples.prepare, samples.seed)


def test_augmentation_is_a_function_of_seed_epoch_and_index(samples: InMemory) -> None:
    state = torch.random.get_rng_state()
    first, *_ = (x for x, _ in _epoch(samples, 2, shuffle=False))
    again, *_ = (x for x, _ in _epoch(samples, 2, shuffle=False))
    assert torch.equal(first, again)
    other, *_ = (x for x, _ in _epoch(samples, 3, shuffle=False))
    assert not torch.equal(first, other)
    seeded = InMemory(samples.stored, samples.labels, samples.prepare, seed=1)
    assert not torch.equal(first, _epoch(seeded, 2, shuffle=False)[0][0])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first.dtype == torch.float32
    assert first.is_contiguous()


def test_a_taken_sample_keeps_its_augmentation(samples: InMemory) -> None:
    few = take(take(samples, 20), 10)
    assert isinstance(few, InMemory)
    assert few.ids is not None
    assert len(few.stored) == 10
    for place, index in enumerate(few.ids.tolist()):
        assert torch.equal(few[Key(1, place)][0], samples[Key(1, index)][0])


def test_samples_taken_on_a_device_lie_there_with_their_numbers(samples: InMemory) -> None:
    device = torch.device("meta")
    some = samples.to(device).select(torch.arange(8))
    assert some.ids is not None
    assert {some.stored.device, some.labels.device, some.ids.device} == {device}
    again = some.select(torch.arange(4))
    assert again.ids is not None
    assert again.ids.device == device


def test_an_empty_share_has_the_shape_of_a_batch(samples: InMemory) -> None:
    x, labels = samples.batch(torch.zeros(0, dtype=torch.int64), torch.tensor(0))
    full, _ = samples.batch(torch.arange(2), torch.tensor(0))
    shape = list(full.shape)
    shape[full.ndim - 4] = 0
    assert list(x.shape) == shape
    assert labels.shape == (0,)


def test_a_batch_reads_no_value(samples: InMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a CUDA graph holds it. (On a CPU, AutoAugment groups images by reading their kinds.)"""
    expected, _ = samples.batch(torch.arange(8), torch.tensor(1))
    policy = getattr(samples.prepare, "autoaugment", None)
    if policy is not None:
        forward = type(policy).forward
        monkeypatch.setattr(policy, "forward", lambda x, w: forward(policy, x, w, grouped=False))
    with NoReads():
        found, _ = samples.batch(torch.arange(8), torch.tensor(1))
    assert torch.equal(found, expected)


def test_the_mode_that_forbids_reads_notices_one() -> None:
    with pytest.raises(AssertionError, match="_local_scalar_dense"), NoReads():
        torch.ones(1).item()


def test_a_split_that_does_not_fit_stays_on_the_cpu(
    samples: InMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = torch.device("meta")
    moved = samples.to(device)
    assert moved.stored.device == moved.labels.device == device
    assert all(b.device == device for b in moved.prepare.buffers())
    assert all(b.device.type == "cpu" for b in samples.prepare.buffers())
    monkeypatch.setattr(in_memory, "DEVICE_BYTES", samples.stored.nbytes - 1)
    assert samples.to(device) is samples


@pytest.mark.gpu
def test_a_gpu_makes_the_same_pixels(samples: InMemory) -> None:
    there = samples.to(torch.device("cuda"))
    for epoch in range(8):
        for (x, labels), (found, others) in zip(
            _epoch(samples, epoch), _epoch(there, epoch), strict=True
        ):
            assert found.device.type == "cuda"
            assert torch.equal(found.cpu(), x)
            assert torch.equal(others.cpu(), labels)


@pytest.mark.gpu
def test_a_cuda_graph_makes_the_same_pixels(samples: InMemory) -> None:
    there = samples.to(torch.device("cuda"))
    indices, epoch = torch.arange(12, device="cuda"), torch.zeros((), dtype=torch.int64).cuda()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        there.batch(indices, epoch)  # warm-up
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        x, labels = there.batch(indices, epoch)
    for number in (0, 5):
        epoch.fill_(number)
        indices.copy_(torch.arange(12) + number)
        graph.replay()
        expected, others = samples.batch(torch.arange(12) + number, torch.tensor(number))
        assert torch.equal(x.cpu(), expected)
        assert torch.equal(labels.cpu(), others)


def test_held_out_images_are_in_every_class_and_not_augmented() -> None:
    everything = _cifar()
    standardize = Standardize((0.4, 0.5, 0.6), (0.2, 0.2, 0.3))
    test = _samples(_random(3, 3, 32, 32), PrepareImages("none", standardize))
    train, held = hold_out(everything, test, 0.25)
    assert (len(train), len(held)) == (30, 10)
    assert held.labels.bincount().tolist() == [1] * 10
    assert isinstance(train, InMemory)
    assert isinstance(held, InMemory)
    assert train.ids is not None
    assert held.ids is not None
    assert sorted([*train.ids.tolist(), *held.ids.tolist()]) == list(range(N))
    # The images that stay keep the augmentation that they have in the whole split.
    assert torch.equal(train[Key(3, 5)][0], everything[Key(3, int(train.ids[5]))][0])
    first, again = held[Key(0, 2)], held[Key(1, 2)]
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[0], standardize(everything.stored[held.ids[2]].unsqueeze(0))[0])
    # The smaller share lies inside the larger, and no seed changes it.
    more = hold_out(_cifar(seed=5), test, 0.5)[1]
    assert isinstance(more, InMemory)
    assert more.ids is not None
    assert set(held.ids.tolist()) < set(more.ids.tolist())


def test_a_small_class_gives_its_share_and_keeps_a_sample() -> None:
    """Of 200, 30, 12, 3 and 1 images 15 % are 30, 4.5, 1.8, .45 and .15: 37 of 246 together."""
    labels = torch.tensor([200, 30, 12, 3, 1])
    images = replace(_cifar(), stored=_random(246, 3, 32, 32), ids=None)
    images = replace(images, labels=torch.repeat_interleave(torch.arange(5), labels))
    train, held = hold_out(images, _cifar(), 0.15)
    assert held.labels.bincount(minlength=5).tolist() == [30, 5, 2, 0, 0]
    assert train.labels.bincount().tolist() == [170, 25, 10, 3, 1]
    train, held = hold_out(images, _cifar(), 0.9)
    assert held.labels.bincount(minlength=5).tolist() == [180, 27, 11, 2, 0]
    single = replace(images.select(torch.arange(2)), labels=torch.arange(2))
    with pytest.raises(UserError, match="every class has only one"):
        hold_out(single, _cifar(), 0.5)


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_no_part_of_a_split_may_be_empty(share: float) -> None:
    with pytest.raises(UserError, match="no validation split") as caught:
        hold_out(_cifar(), _cifar(), share)
    assert f"of {N} training samples" in str(caught.value)


def test_samples_that_are_read_at_access_have_no_validation_split() -> None:
    at_access = Subset(_cifar(), torch.arange(N))
    with pytest.raises(UserError, match="in memory"):
        hold_out(at_access, _cifar(), 0.5)
