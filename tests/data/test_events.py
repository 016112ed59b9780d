import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rmploss.data.events import Events, to_frames
from rmploss.errors import UserError

SENSOR = (6, 8)


def _events(*rows: tuple[int, int, int, int]) -> Events:
    """Of rows (t, x, y, p)."""
    return Events(*np.array(rows, dtype=np.int64).reshape(-1, 4).T)


recordings = st.lists(
    st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 7), st.integers(0, 5), st.integers(0, 1)),
    max_size=60,
).map(lambda rows: _events(*sorted(rows)))


def test_an_event_sets_its_frame_polarity_row_and_column() -> None:
    events = _events((0, 3, 1, 1), (10, 7, 5, 0), (10, 7, 5, 0))
    frames = to_frames(events, 3, sensor=SENSOR, frames="count", integrate="number")
    assert frames.shape == (3, 2, 6, 8)
    assert frames.dtype == np.uint8
    assert {tuple(map(int, place)) for place in np.argwhere(frames)} == {
        (0, 1, 1, 3),
        (1, 0, 5, 7),
        (2, 0, 5, 7),
    }
    frames = to_frames(events, 2, sensor=SENSOR, frames="count", integrate="time")
    assert frames[0].sum() == 1
    assert frames[1, 0, 5, 7] == 2


@given(recordings, st.integers(1, 12), st.sampled_from(["number", "time"]))
def test_counts_lose_nothing_and_binary_is_where_counts_are(events, T, integrate) -> None:
    counts = to_frames(events, T, sensor=SENSOR, frames="count", integrate=integrate)
    assert counts.sum() == len(events)
    binary = to_frames(events, T, sensor=SENSOR, frames="binary", integrate=integrate)
    np.testing.assert_array_equal(binary, counts > 0)


@given(recordings, st.integers(1, 12))
def test_by_number_frames_are_equally_full_and_in_order(events, T) -> None:
    frames = to_frames(events, T, sensor=SENSOR, frames="count", integrate="number")
    sizes = frames.sum((1, 2, 3), dtype=np.int64)
    assert sizes.max() - sizes.min() <= 1
    borders = np.concatenate([[0], np.cumsum(sizes)])
    for t, (start, stop) in enumerate(itertools.pairwise(borders)):
        alone = Events(*(getattr(events, field)[start:stop] for field in "txyp"))
        np.testing.assert_array_equal(
            frames[t], to_frames(alone, 1, sensor=SENSOR, frames="count")[0]
        )


def test_by_time_frames_are_equally_long() -> None:
    events = _events(*((t, 0, 0, 1) for t in (100, 124, 125, 149, 150, 199)))
    frames = to_frames(events, 4, sensor=SENSOR, frames="count", integrate="time")
    assert frames.sum((1, 2, 3)).tolist() == [2, 2, 1, 1]
    frames = to_frames(events, 4, sensor=SENSOR, frames="count", integrate="time", window=(0, 200))
    assert frames.sum((1, 2, 3)).tolist() == [0, 0, 4, 2]


@pytest.mark.parametrize("integrate", ["number", "time"])
def test_only_events_in_the_window_count(integrate) -> None:
    events = _events(*((t, t // 10, 0, 1) for t in (0, 10, 20, 29, 30, 40)))
    options = {"sensor": SENSOR, "frames": "count", "integrate": integrate}
    frames = to_frames(events, 2, window=(10, 30), **options)
    assert frames.sum(dtype=int) == 3  # 10, 20, 29: start belongs to it, stop does not
    assert frames[0].sum() == (2 if integrate == "number" else 1)
    np.testing.assert_array_equal(
        frames, to_frames(events.between(10, 30), 2, window=(10, 30), **options)
    )
    assert to_frames(events, 2, window=(50, 60), **options).sum() == 0
    assert to_frames(events, 7, window=(10, 11), **options).sum() == 1


@given(recordings, st.integers(1, 12), st.integers(0, 2**32), st.integers(1, 2**32))
def test_any_window_by_time_is_that_of_python_integers(events, T, start, length) -> None:
    frames = to_frames(
        events, T, sensor=SENSOR, frames="count", integrate="time", window=(start, start + length)
    )
    expected = np.zeros((T, 2, *SENSOR), np.uint8)
    for t, x, y, p in zip(*(getattr(events, f).tolist() for f in "txyp"), strict=True):
        if start <= t < start + length:
            expected[(t - start) * T // length, p, y, x] += 1
    np.testing.assert_array_equal(frames, expected)


@pytest.mark.parametrize(
    ("event", "what"),
    [
        ((9, 8, 0, 0), "events.x: event 1: 8 is outside of 0 to 7"),
        ((9, -1, 0, 0), "events.x: event 1: -1 is"),
        ((9, 0, 6, 0), "events.y: event 1: 6 is outside of 0 to 5"),
        ((9, 0, 0, 2), "events.p: event 1: 2 is outside of 0 to 1"),
        ((4, 0, 0, 0), "events.t: event 1: time runs back from 5 to 4 us"),
    ],
)
def test_an_event_that_has_no_place_is_refused(event, what) -> None:
    with pytest.raises(UserError, match="cannot make frames") as caught:
        to_frames(_events((5, 0, 0, 0), event), 2, sensor=SENSOR)
    assert what in str(caught.value)


def test_impossible_frames_are_refused() -> None:
    with pytest.raises(UserError) as caught:
        to_frames(_events((5, 0, 0, 0)), 0, sensor=SENSOR, window=(7, 7))
    assert "T = 0: must be at least 1" in str(caught.value)
    assert "window = (7, 7): must be (start, stop)" in str(caught.value)


def test_counts_stay_at_255_instead_of_wrapping() -> None:
    events = _events(*((t, 0, 0, 1) for t in range(300)))
    assert to_frames(events, 1, sensor=SENSOR, frames="count")[0, 1, 0, 0] == 255


def test_size_is_nearest_as_in_torch() -> None:
    rng = np.random.default_rng(0)
    events = Events(*(rng.integers(0, n, 5000) for n in (1, 128, 128, 2)))
    full = to_frames(events, 1, sensor=(128, 128))
    small = to_frames(events, 1, sensor=(128, 128), size=48)
    expected = torch.nn.functional.interpolate(torch.from_numpy(full), size=48, mode="nearest")
    np.testing.assert_array_equal(small, expected.numpy())
    assert set(np.unique(small)) == {0, 1}


@pytest.mark.parametrize("integrate", ["number", "time"])
def test_no_events_are_empty_frames(integrate) -> None:
    assert to_frames(_events(), 3, sensor=SENSOR, integrate=integrate).sum() == 0


def test_between_takes_start_and_leaves_stop() -> None:
    events = _events((1, 0, 0, 0), (2, 1, 0, 0), (2, 2, 0, 0), (3, 3, 0, 0))
    assert events.between(2, 3).x.tolist() == [1, 2]
    assert len(events.between(7, 9)) == 0
