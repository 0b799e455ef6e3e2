import math

import numpy as np
import pytest

from irstd_edge.benchmarks.speed import SpeedUp, speed_up_of


def rounds(count: int, seed: int, noise: float = 0.1) -> tuple[list[float], list[float]]:
    """A reference of 30 ms and a candidate of 10 ms on a machine that slows down threefold."""
    random = np.random.default_rng(seed)
    ramp = np.linspace(1, 3, count)
    slow, fast = (ms * ramp * (1 + noise * random.standard_normal(count)) for ms in (30.0, 10.0))
    return slow.tolist(), fast.tolist()


def test_it_is_the_ratio_of_the_medians() -> None:
    assert speed_up_of([30.0, 10.0, 20.0], [5.0, 4.0, 100.0]) == SpeedUp(4.0)


def test_without_an_interval_nothing_is_known() -> None:
    alone = SpeedUp(4.0)
    assert (alone.lowest, alone.highest, alone.margin) == (0.0, math.inf, math.inf)


def test_equal_times_leave_no_doubt() -> None:
    assert speed_up_of([20.0] * 20, [10.0] * 20) == SpeedUp(2.0, (2.0, 2.0))
    assert speed_up_of([20.0] * 19, [10.0] * 19).interval is None


def test_the_interval_holds_the_truth_though_the_machine_slows_down() -> None:
    """Of 20 seeded runs at most three miss 3; each interval is far below the threefold ramp."""
    found = [speed_up_of(*rounds(100, seed)) for seed in range(20)]
    assert sum(each.lowest <= 3.0 <= each.highest for each in found) >= 17
    assert max(each.margin for each in found) < 0.4


def test_more_rounds_tell_more() -> None:
    few, many = speed_up_of(*rounds(40, 1)), speed_up_of(*rounds(320, 1))
    assert many.margin < few.margin / 2


def test_the_same_rounds_give_the_same_interval() -> None:
    assert speed_up_of(*rounds(50, 4)) == speed_up_of(*rounds(50, 4))


def test_turned_round_it_is_the_inverse() -> None:
    assert SpeedUp(2.0, (1.6, 2.5)).inverse == SpeedUp(0.5, (0.4, pytest.approx(0.625)))
