import torch

from rmploss.data import Key, batches
from rmploss.data.digits import MEAN, STD, Digits, load_splits


def test_split_is_fixed_disjoint_and_stratified() -> None:
    (train, train_labels), (test, test_labels) = load_splits()
    assert (len(train), len(test)) == (1437, 360)
    assert test_labels.bincount().tolist() == [36] * 10
    assert train_labels.bincount().tolist() == [142, 146, 141, 147, 145, 146, 145, 143, 138, 144]
    assert test.sum() == 7011.25, "a published split must never change"
    assert 0 <= train.min() < train.max() == 1


def test_training_pixels_have_mean_0_and_variance_1() -> None:
    (train, _), _ = load_splits()
    assert abs(float(train.mean()) - MEAN) < 5e-5
    assert abs(float(train.std()) - STD) < 5e-5
    splits = Digits(augment=False).open(None, seed=0, T=4)
    x = torch.stack([splits.train[Key(0, i)][0] for i in range(len(splits.train))])
    assert x.shape == (1437, *Digits().shape(4))
    assert abs(float(x.mean())) < 1e-3
    assert abs(float(x.std()) - 1) < 1e-3


def test_only_training_images_are_moved_and_by_at_most_a_pixel() -> None:
    plain = Digits(augment=False).open(None, seed=0, T=4)
    moved = Digits().open(None, seed=0, T=4)
    background = (0 - MEAN) / STD
    seen = set()
    for index in range(40):
        x, _ = moved.train[Key(0, index)]
        padded = torch.nn.functional.pad(
            plain.train[Key(0, index)][0], (1, 1, 1, 1), value=background
        )
        shifts = [
            (row, column)
            for row in range(3)
            for column in range(3)
            if torch.allclose(padded[:, row : row + 8, column : column + 8], x)
        ]
        assert shifts
        seen.update(shifts)
        assert torch.equal(moved.test[Key(0, index)][0], plain.test[Key(5, index)][0])
    assert len(seen) == 9


def test_seed_moves_the_augmentation_only() -> None:
    a, b = (Digits().open(None, seed=seed, T=4) for seed in (0, 1))
    assert torch.equal(a.train.labels, b.train.labels)
    assert any(not torch.equal(a.train[Key(0, i)][0], b.train[Key(0, i)][0]) for i in range(10))


def test_needs_no_files() -> None:
    assert Digits().missing(None) == []
    options = {"epoch": 0, "seed": 0, "shuffle": False, "drop_last": False}
    x, labels = next(batches(Digits().open(None, seed=0, T=4).test, batch_size=8, **options))
    assert x.shape == (8, 1, 8, 8)
    assert labels.shape == (8,)
