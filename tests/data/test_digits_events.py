import numpy as np
import pytest
import torch

from rmploss.data import Key, batches
from rmploss.data.digits import load_splits
from rmploss.data.digits_events import (
    _CORNERS,
    EPS,
    PLACES,
    REACH,
    THETA,
    DigitsEvents,
    _path,
    _project,
    saccades,
)
from rmploss.data.events import to_frames
from rmploss.errors import UserError

CORNERS = REACH * _CORNERS


def _digit(index: int) -> np.ndarray:
    (images, _), _ = load_splits()
    return images[index, 0].numpy()


def test_the_eye_goes_round_the_corners_steadily() -> None:
    path = _path(CORNERS)
    assert path.shape == (PLACES, 2)
    third = PLACES // 3
    np.testing.assert_allclose(path[::third], CORNERS)
    np.testing.assert_allclose(
        np.diff(path[:third], axis=0), [(CORNERS[1] - CORNERS[0]) / third] * (third - 1)
    )


def test_the_sensor_sees_the_image_shifted_and_interpolated() -> None:
    image = _digit(0)
    still = _project(image, np.zeros((1, 2)))[0]
    expected = torch.nn.functional.interpolate(
        torch.nn.functional.pad(torch.from_numpy(image)[None, None], (1, 1, 1, 1)),
        scale_factor=2, mode="bilinear",
    )[0, 0, 2:-2, 2:-2]  # fmt: skip
    np.testing.assert_allclose(still, expected, atol=1e-6)
    down, right = _project(image, np.array([[0.5, 0], [0, 0.5]]))
    np.testing.assert_allclose(down[:-1], still[1:], atol=1e-6)
    np.testing.assert_allclose(right[:, :-1], still[:, 1:], atol=1e-6)


def test_events_follow_the_light_within_one_threshold() -> None:
    """L(0) + theta * (ON - OFF so far) is never theta away from ln(I + eps)."""
    image = _digit(3)
    light = np.log(_project(image, _path(CORNERS)) + EPS)
    events = saccades(image, CORNERS)
    counts = to_frames(
        events, PLACES, sensor=(16, 16), frames="count", integrate="time",
        window=(0, PLACES * 10_000),
    ).astype(float)  # fmt: skip
    level = light[0] + THETA * np.cumsum(counts[:, 1] - counts[:, 0], axis=0)
    assert np.abs(level - light).max() < THETA
    assert len(events) > 100
    assert (np.diff(events.t) >= 0).all()


def test_no_contrast_no_events() -> None:
    assert len(saccades(np.zeros((8, 8)), CORNERS)) == 0
    assert len(saccades(_digit(0), np.zeros((3, 2)))) == 0


def test_a_brighter_image_is_seen_on_before_off() -> None:
    """A bar that moves right: its right edge turns pixels on, its left edge turns them off."""
    bar = np.zeros((8, 8))
    bar[:, 3:5] = 1
    events = saccades(bar, np.array([[0.0, 1.0], [0.0, -1.0], [0.0, -1.0]]))
    first = events.between(0, 110_000)
    assert first.x[first.p == 1].mean() > first.x[first.p == 0].mean()


def test_test_samples_stand_still_and_training_samples_jitter() -> None:
    plain = DigitsEvents(augment=False).open(None, seed=0, T=5)
    moved = DigitsEvents().open(None, seed=0, T=5)
    x, label = moved.train[Key(1, 7)]
    assert x.shape == DigitsEvents().shape(5)
    assert label == moved.train.labels[7]
    assert torch.equal(moved.train[Key(1, 7)][0], x)
    assert not torch.equal(moved.train[Key(2, 7)][0], x)
    assert not torch.equal(plain.train[Key(1, 7)][0], x)
    assert torch.equal(plain.train[Key(1, 7)][0], plain.train[Key(2, 7)][0])
    assert torch.equal(plain.test[Key(0, 3)][0], moved.test[Key(9, 3)][0])
    assert (len(moved.train), len(moved.test)) == (1437, 360)


@pytest.mark.parametrize("frames", ["binary", "count"])
def test_frames_are_sparse_and_of_their_kind(frames) -> None:
    splits = DigitsEvents(frames=frames).open(None, seed=0, T=10)
    options = {"epoch": 0, "seed": 0, "shuffle": False, "drop_last": False}
    x, _ = next(batches(splits.test, batch_size=100, **options))
    assert x.shape == (10, 100, 2, 16, 16)
    assert (x.max() == 1) == (frames == "binary")
    assert 0.05 < float((x > 0).float().mean()) < 0.2
    assert bool((x.sum((1, 2, 3, 4)) > 0).all()), "every frame shows something"


def test_the_digits_can_be_told_apart_by_nearest_mean() -> None:
    splits = DigitsEvents().open(None, seed=0, T=4)
    options = {"epoch": 0, "seed": 0, "shuffle": False, "drop_last": False}
    (train, labels), (test, expected) = (
        next(batches(split, batch_size=len(split), **options))
        for split in (splits.train, splits.test)
    )
    train, test = train.transpose(0, 1).flatten(1), test.transpose(0, 1).flatten(1)
    means = torch.stack([train[labels == digit].mean(0) for digit in range(10)])
    right = (torch.cdist(test, means).argmin(1) == expected).float().mean()
    assert right > 0.8


def test_more_frames_than_places_are_refused() -> None:
    with pytest.raises(UserError, match="30 places"):
        DigitsEvents().open(None, seed=0, T=PLACES + 1)
