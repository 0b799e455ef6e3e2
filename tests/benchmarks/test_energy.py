from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irstd_edge.benchmarks.energy import Board, Energy, measure_energy, this_board
from irstd_edge.edge.clocks import Throttle
from irstd_edge.edge.power import Meter
from irstd_edge.edge.sensors import Reading
from irstd_edge.edge.types import Frame

FRAMES = tuple(Frame(str(index), np.zeros((4, 4), np.uint8), 8) for index in range(3))


class Net:
    stages_ms: dict[str, float] = {}

    def __init__(self) -> None:
        self.seen: list[str] = []

    def detect(self, frame: Frame) -> None:
        self.seen.append(frame.name)


def ticking(step_s: float) -> Callable[[], float]:
    ticks = count()
    return lambda: next(ticks) * step_s


def board(reading: Reading, *throttles: Throttle) -> Board:
    states = iter(throttles or (Throttle(frozenset(), 0),) * 2)
    ready = iter([reading] * 30)
    return Board(lambda: Meter(lambda: next(ready, None), interval_s=0), lambda: next(states))


def test_joules_are_watts_over_frames_a_second() -> None:
    net = Net()
    where = board(Reading({"VDD_IN": 8.0}, {"tj": 51.0}))
    energy = measure_energy(net, FRAMES, where, seconds=2.0, clock=ticking(0.5))
    assert energy is not None
    assert net.seen == ["0", "1", "2"]  # at 0.5, 1.0 and 1.5 s
    assert energy.frames_per_s == 3 / 2.0
    assert (energy.mean_w, energy.hottest_c) == (8.0, 51.0)
    assert energy.joule_per_frame == pytest.approx(8.0 / 1.5)
    assert energy.throttled == ()


def test_a_board_that_throttled_meanwhile_is_told() -> None:
    hot = Throttle(frozenset({"gpu-throttle-alert"}), 3)
    where = board(Reading({"VDD_IN": 8.0}, {}), Throttle(frozenset(), 1), hot)
    energy = measure_energy(Net(), FRAMES, where, seconds=1.0, clock=ticking(0.5))
    assert energy is not None
    (weak,) = [reason for reason in energy.weak if "throttled" in reason]
    assert "gpu-throttle-alert, over-current, 2 times" in weak


def test_few_readings_are_weak() -> None:
    assert Energy(5.0, 10.0, None, 4, ()).weak == ("power of 4 readings, 20 are needed",)
    assert Energy(5.0, 10.0, None, 20, ()).weak == ()


def test_without_sensors_nothing_runs(tmp_path: Path) -> None:
    net = Net()
    assert measure_energy(net, FRAMES, this_board(is_jetson=False)) is None
    assert net.seen == []


def test_rails_that_do_not_add_up_give_nothing() -> None:
    where = board(Reading({"VDD_SOC": 1.0}, {}))
    assert measure_energy(Net(), FRAMES, where, seconds=1.0, clock=ticking(0.5)) is None


def test_a_call_of_several_frames_counts_as_so_many() -> None:
    where = board(Reading({"VDD_IN": 8.0}, {"tj": 51.0}))
    energy = measure_energy(Net(), FRAMES, where, batch=8, seconds=2.0, clock=ticking(0.5))
    assert energy is not None and energy.frames_per_s == 8 * 3 / 2.0


def test_clocks_that_are_not_locked_make_every_number_weak(tmp_path: Path) -> None:
    folder = tmp_path / "sys/devices/system/cpu/cpu0/cpufreq"
    folder.mkdir(parents=True)
    ends: dict[str, Any] = {"scaling_min_freq": 729600, "scaling_max_freq": 1510400}
    for name, value in ends.items():
        (folder / name).write_text(str(value))
    assert this_board(True, tmp_path).weak == (
        "clocks are not locked, so speed follows load: sudo jetson_clocks",
    )
    (folder / "scaling_min_freq").write_text("1510400")
    assert this_board(True, tmp_path).weak == ()
