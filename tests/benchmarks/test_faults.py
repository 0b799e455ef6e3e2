from dataclasses import replace

import numpy as np
import pytest

from irstd_edge.benchmarks.faults import BLIND, FAULTS, with_fault, with_noise
from irstd_edge.edge.normalisation import noise_counts
from irstd_edge.edge.types import Frame, IrstdError, Sample

DEPTHS = (8, 14, 16)


def sample(depth: int = 14, name: str = "x") -> Sample:
    """200x160, noise of 1/250 of full scale about a third of it, a target of 3x3."""
    full = 2**depth - 1
    random = np.random.default_rng(1)
    counts = np.rint(random.normal(full / 3, full / 250, (200, 160)))
    counts[50:53, 80:83] += full // 10
    mask = np.zeros(counts.shape, bool)
    mask[50:53, 80:83] = True
    kind = np.uint8 if depth == 8 else np.uint16
    points = np.array([[51, 81]], np.float32)
    return Sample(Frame(name, counts.astype(kind), depth), mask, points)


def spoilt(name: str, depth: int = 14) -> tuple[np.ndarray, np.ndarray, int]:
    """Counts before and after as float, and full scale."""
    before = sample(depth)
    after = with_fault(before, name).frame.counts.astype(float)
    return before.frame.counts.astype(float), after, 2**depth - 1


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_stays_within_the_sensor_and_is_the_same_every_time(name: str, depth: int) -> None:
    first, again = (with_fault(sample(depth), name) for _ in range(2))
    np.testing.assert_array_equal(first.frame.counts, again.frame.counts)
    before = sample(depth).frame
    assert (first.frame.counts.dtype, first.frame.shape) == (before.counts.dtype, before.shape)
    assert first.frame.bit_depth == depth and first.frame.counts.max() < 2**depth
    assert (first.frame.counts != before.counts).any()
    assert len(first.points) == (0 if name in BLIND else 1)
    assert first.mask is not None and first.mask.any() == (name not in BLIND)


@pytest.mark.parametrize("depth", DEPTHS)
def test_noise_is_of_so_many_counts_and_the_same_every_time(depth: int) -> None:
    before = sample(depth)
    first, again, other = (with_noise(sample(depth, name), 2.0) for name in ("x", "x", "y"))
    np.testing.assert_array_equal(first.frame.counts, again.frame.counts)
    assert (first.frame.counts != other.frame.counts).any()
    assert first.frame.counts.dtype == before.frame.counts.dtype
    added = first.frame.counts.astype(float) - before.frame.counts
    assert abs(added.mean()) < 0.05 and added.std() == pytest.approx(2.0, rel=0.05)
    assert (first.points == before.points).all() and (first.mask == before.mask).all()


def test_noise_ends_where_the_sensor_does() -> None:
    for value in (0, 2**14 - 1):
        counts = np.full((20, 20), value, np.uint16)
        seen = with_noise(replace(sample(), frame=Frame("x", counts, 14)), 50.0).frame.counts
        assert seen.min() >= 0 and seen.max() <= 2**14 - 1 and (seen != value).any()


@pytest.mark.parametrize("name", ["hot-pixels", "column-stripes", "shutter", "dropped-rows"])
def test_another_frame_is_spoilt_in_another_way(name: str) -> None:
    one, other = (with_fault(sample(name=frame), name).frame.counts for frame in ("x", "y"))
    assert (one != other).any()


@pytest.mark.parametrize(("name", "level"), [("hot-pixels", 1), ("dead-pixels", 0)])
@pytest.mark.parametrize("depth", DEPTHS)
def test_a_thousandth_of_the_pixels_is_stuck(name: str, level: int, depth: int) -> None:
    before, after, full = spoilt(name, depth)
    stuck = after != before
    assert 10 <= stuck.sum() <= 60  # 32 of 32 000 are expected
    assert (after[stuck] == level * full).all()


@pytest.mark.parametrize("depth", DEPTHS)
def test_columns_are_off_by_three_noises(depth: int) -> None:
    before, after, _ = spoilt("column-stripes", depth)
    change = after - before
    assert np.ptp(change, axis=0).max() <= 1  # a column is off as a whole, but for rounding
    assert change.mean(axis=0).std() == pytest.approx(3 * noise_counts(as_counts(before)), rel=0.2)


def as_counts(values: np.ndarray) -> np.ndarray:
    return values.astype(np.uint16)


def test_a_fixed_pattern_has_a_fine_and_a_slow_part() -> None:
    before, after, _ = spoilt("fixed-pattern")
    change, noise = after - before, noise_counts(as_counts(before))
    slow = change.reshape(10, 20, 8, 20).mean(axis=(1, 3))
    fine = change - np.kron(slow, np.ones((20, 20)))
    assert fine.std() == pytest.approx(2 * noise, rel=0.35)
    assert 2 * noise < np.abs(slow).max() < 15 * noise


def test_a_shutter_shows_the_noise_alone() -> None:
    before, after, _ = spoilt("shutter")
    assert after.mean() == pytest.approx(np.median(before), rel=0.01)
    assert after.std() == pytest.approx(noise_counts(as_counts(before)), rel=0.1)


def test_a_tenth_saturates() -> None:
    before, after, full = spoilt("saturation")
    assert np.mean(after == full) == pytest.approx(0.1, abs=0.01)
    assert (after >= before).all()


def test_half_the_gain_leaves_half_the_contrast() -> None:
    before, after, _ = spoilt("gain-change")
    assert after.min() == before.min()
    assert np.ptp(after) == pytest.approx(np.ptp(before) / 2, abs=1)


def test_three_bands_of_rows_are_dropped() -> None:
    before, after, _ = spoilt("dropped-rows")
    gone = (after == 0).all(axis=1)
    assert 2 <= gone.sum() <= 6
    np.testing.assert_array_equal(after[~gone], before[~gone])


def test_an_unknown_fault_lists_the_known() -> None:
    with pytest.raises(IrstdError, match="fault: 'rain' is not one of hot-pixels, dead-pixels"):
        with_fault(sample(), "rain")
