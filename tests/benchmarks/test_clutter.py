import numpy as np
import pytest

from irstd_edge.benchmarks.clutter import RING_PX, signal_to_clutter


def scene(step: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Columns of 100 - step and 100 + step, and a target of 2x2 px at 150."""
    counts = np.full((64, 64), 100 - step, np.uint16)
    counts[:, ::2] = 100 + step
    target = np.zeros((64, 64), bool)
    target[30:32, 30:32] = True
    counts[target] = 150
    return counts, target


def test_it_is_the_contrast_in_standard_deviations_of_the_background() -> None:
    counts, target = scene()
    assert signal_to_clutter(counts, target, target) == pytest.approx(5.0)


def test_a_cold_target_is_as_visible_as_a_hot_one() -> None:
    counts, target = scene()
    counts[target] = 50
    assert signal_to_clutter(counts, target, target) == pytest.approx(5.0)


def test_other_targets_are_no_background() -> None:
    counts, target = scene()
    occupied = target.copy()
    occupied[35:37, 35:37] = True
    counts[35:37, 35:37] = 60_000
    assert signal_to_clutter(counts, target, occupied) == pytest.approx(5.0)
    assert signal_to_clutter(counts, target, target) < 1


def test_what_lies_beyond_the_ring_does_not_count() -> None:
    counts, target = scene()
    counts[30 - RING_PX - 1] = 60_000
    assert signal_to_clutter(counts, target, target) == pytest.approx(5.0)
    counts[30 - RING_PX] = 60_000
    assert signal_to_clutter(counts, target, target) < 1


def test_without_variation_or_background_there_is_none() -> None:
    counts, target = scene(step=0)
    assert signal_to_clutter(counts, target, target) is None
    assert signal_to_clutter(counts, target, np.ones_like(target)) is None
    assert signal_to_clutter(counts, np.zeros_like(target), target) is None
