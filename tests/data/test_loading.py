from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from rmploss.data import Key, Samples, batches, n_batches, take
from rmploss.errors import DataError, Problem, UserError


@dataclass
class Toy:
    """Sample i is `[epoch, i]` in the given shape, its label i % classes."""

    n: int
    shape: tuple[int, ...] = (2, 1, 1)
    classes: int = 3
    asked: list[Key] = field(default_factory=list)

    @property
    def labels(self) -> Tensor:
        return torch.arange(self.n) % self.classes

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        self.asked.append(key)
        x = torch.zeros(self.shape)
        x.view(-1)[:2] = torch.tensor([key.epoch, key.index])
        return x, key.index % self.classes


class Broken(Toy):
    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        raise DataError("cannot read", [Problem("sample 0", "is damaged", "mend it")])


def _epoch(samples: Samples, **options: object) -> list[tuple[Tensor, Tensor]]:
    settings = {
        "batch_size": 6, "epoch": 1, "seed": 0, "shuffle": True, "drop_last": False, **options,
    }  # fmt: skip
    return list(batches(samples, **settings))  # pyright: ignore[reportArgumentType]


def _indices(samples: Samples, **options: object) -> list[int]:
    return [int(i) for x, _ in _epoch(samples, **options) for i in x.flatten(1)[:, 1]]


def test_an_epoch_sees_every_sample_once_with_its_own_label() -> None:
    epoch = _epoch(Toy(20))
    assert [len(labels) for _, labels in epoch] == [6, 6, 6, 2]
    assert sorted(_indices(Toy(20))) == list(range(20))
    for x, labels in epoch:
        assert labels.dtype == torch.int64
        assert torch.equal(x[:, 1, 0, 0].long() % 3, labels)
        assert bool((x[:, 0] == 1).all()), "the samples must be asked for epoch 1"


def test_order_is_a_function_of_seed_and_epoch() -> None:
    order = _indices(Toy(20))
    torch.rand(3)
    assert _indices(Toy(20)) == order
    assert _indices(Toy(20), epoch=2) != order
    assert _indices(Toy(20), seed=1) != order
    assert _indices(Toy(20), shuffle=False) == list(range(20))


@pytest.mark.parametrize("world", [1, 2, 3, 6])
@pytest.mark.parametrize("drop_last", [True, False])
def test_ranks_together_are_one_rank(world: int, drop_last: bool) -> None:
    alone = _epoch(Toy(20), drop_last=drop_last)
    ranks = [_epoch(Toy(20), drop_last=drop_last, world=world, rank=r) for r in range(world)]
    assert [len(rank) for rank in ranks] == [n_batches(Toy(20), 6, drop_last)] * world
    for whole, *shares in zip(alone, *ranks, strict=True):
        assert torch.equal(torch.cat([x for x, _ in shares]), whole[0])
        assert torch.equal(torch.cat([labels for _, labels in shares]), whole[1])


@pytest.mark.parametrize("shape", [(2, 4, 4), (5, 2, 4, 4)])
def test_an_empty_share_has_the_shape_of_a_batch(shape: tuple[int, ...]) -> None:
    *_, (x, labels) = _epoch(Toy(7, shape), world=6, rank=0)
    assert x.shape == ((0, 2, 4, 4) if len(shape) == 3 else (5, 0, 2, 4, 4))
    assert labels.shape == (0,)
    assert labels.dtype == torch.int64


def test_events_are_stacked_behind_time() -> None:
    (x, _), *_ = _epoch(Toy(6, (5, 2, 4, 4)))
    assert x.shape == (5, 6, 2, 4, 4)


def test_start_leaves_out_batches_without_loading_them() -> None:
    samples = Toy(20)
    tail = _epoch(samples, start=2)
    assert len(samples.asked) == 8
    for (x, _), (expected, _) in zip(tail, _epoch(Toy(20))[2:], strict=True):
        assert torch.equal(x, expected)
    assert _epoch(samples, start=4) == []


def test_batches_are_loaded_when_asked_for() -> None:
    samples = Toy(20)
    options = {"epoch": 0, "seed": 0, "shuffle": False, "drop_last": False}
    next(batches(samples, batch_size=6, **options))
    assert len(samples.asked) == 6


@pytest.mark.parametrize("shape", [(2, 4, 4), (5, 2, 4, 4)])
def test_workers_change_nothing(shape: tuple[int, ...]) -> None:
    state = torch.random.get_rng_state()
    with_workers = _epoch(Toy(20, shape), workers=2, world=3, rank=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    for (x, labels), expected in zip(
        with_workers, _epoch(Toy(20, shape), world=3, rank=1), strict=True
    ):
        assert torch.equal(x, expected[0])
        assert torch.equal(labels, expected[1])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_mistake_of_the_user_keeps_its_own_words(workers: int) -> None:
    with pytest.raises(DataError) as caught:
        _epoch(Broken(6), workers=workers)
    assert str(caught.value) == "cannot read\n  sample 0: is damaged   mend it"
    assert caught.value.problems == (Problem("sample 0", "is damaged", "mend it"),)


def test_a_batch_that_ranks_cannot_share_is_refused_at_once() -> None:
    with pytest.raises(
        UserError, match=r"100 is not divisible by 3.*batch_size=99 or batch_size=102"
    ):
        batches(
            Toy(200), batch_size=100, epoch=0, seed=0, shuffle=True, drop_last=True, world=3
        )  # not iterated
    with pytest.raises(UserError, match=r"try batch_size=4$"):
        _epoch(Toy(200), batch_size=2, world=4)


def test_no_full_batch_is_refused() -> None:
    with pytest.raises(UserError, match="only 5 samples"):
        _epoch(Toy(5), drop_last=True)
    assert len(_epoch(Toy(5), drop_last=False)) == 1


@pytest.mark.parametrize(
    ("n", "drop_last", "expected"), [(12, True, 2), (13, True, 2), (13, False, 3)]
)
def test_n_batches(n: int, drop_last: bool, expected: int) -> None:
    assert n_batches(Toy(n), 6, drop_last) == expected == len(_epoch(Toy(n), drop_last=drop_last))


FEW = [9, 22, 26, 48, 49, 68, 97]


def test_take_is_balanced_fixed_and_nested() -> None:
    samples = Toy(100)
    few, more = take(samples, 7), take(samples, 31)
    assert sorted(few.labels.bincount().tolist()) == [2, 2, 3]
    assert sorted(more.labels.bincount().tolist()) == [10, 10, 11]
    indices = [int(few[Key(0, i)][0].view(-1)[1]) for i in range(7)]
    assert indices == FEW, "a published subset must never change"
    assert set(indices) <= {int(more[Key(0, i)][0].view(-1)[1]) for i in range(31)}


def test_take_gives_small_classes_whole() -> None:
    class Uneven(Toy):
        @property
        def labels(self) -> Tensor:
            return (torch.arange(self.n) >= 2).long()

    assert take(Uneven(20), 10).labels.bincount().tolist() == [2, 8]


def test_a_taken_sample_is_asked_for_by_its_own_key() -> None:
    samples = Toy(100)
    _, label = take(samples, 7)[Key(4, 3)]
    assert samples.asked == [Key(4, FEW[3])]
    assert label == take(samples, 7).labels[3] == FEW[3] % 3


def test_take_all_and_take_too_many() -> None:
    samples = Toy(10)
    assert take(samples, None) is samples
    assert len(take(samples, 10)) == 10
    for n in (0, 11, -1):
        with pytest.raises(UserError, match="the split has 10"):
            take(samples, n)
