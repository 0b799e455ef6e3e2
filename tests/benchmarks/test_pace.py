import numpy as np
import pytest

from irstd_edge.benchmarks.pace import WARM_UP, Pace, measure_pace
from irstd_edge.benchmarks.schema import SCHEMA, check_bench
from irstd_edge.edge.types import Frame

FRAMES = [Frame(f"f{i}", np.zeros((4, 4), np.uint8), 8) for i in range(3)]


class Bench:
    """A clock in seconds, and a detector on it that takes the times it is told to."""

    def __init__(self, *times_ms: float) -> None:
        self.now_s = 7.0
        self.times_ms = [0.0] * WARM_UP + list(times_ms)
        self.seen: list[str] = []

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def detect(self, frame: Frame) -> None:
        self.seen.append(frame.name)
        self.now_s += self.times_ms[min(len(self.seen), len(self.times_ms)) - 1] / 1000

    def pace(self, rate_hz: float, samples: int, longest_s: float = 60.0) -> Pace:
        return measure_pace(
            self,
            FRAMES,
            rate_hz,
            samples=samples,
            longest_s=longest_s,
            clock=self.clock,
            sleep=self.sleep,
        )


def ages(pace: Pace) -> list[float]:
    return [round(float(age), 6) for age in pace.ages_ms]


def test_a_detector_that_keeps_up_sees_every_frame_at_its_own_age() -> None:
    bench = Bench(8.0)
    pace = bench.pace(50, samples=5)
    assert (pace.arrived, pace.dropped, pace.queued, pace.missed) == (5, 0, 0, 0)
    assert ages(pace) == [8.0] * 5
    assert bench.seen[WARM_UP:] == ["f0", "f1", "f2", "f0", "f1"]
    assert bench.now_s == pytest.approx(7 + 4 * 0.02 + 0.008)


def test_one_slow_frame_makes_the_next_wait_and_none_is_lost() -> None:
    """Frames arrive at 0, 20, 40, 60 ms; the first is done at 30, the second at 40 ms."""
    pace = Bench(30.0, 10.0).pace(50, samples=4)
    assert ages(pace) == [30.0, 20.0, 10.0, 10.0]
    assert (pace.arrived, pace.dropped, pace.missed) == (4, 0, 1)
    assert pace.queued == 2  # the second waited 10 ms; the third was there when that was done


def test_of_the_frames_that_wait_the_newest_is_taken() -> None:
    """50 ms each at 50 Hz: done at 50, 90 + 0, ... and two of three frames are never seen."""
    bench = Bench(50.0)
    pace = bench.pace(50, samples=3)
    assert bench.seen[WARM_UP:] == ["f0", "f2", "f2"]  # 0, 2 and 5
    assert ages(pace) == [50.0, 60.0, 50.0]
    assert (pace.arrived, pace.dropped, pace.queued, pace.missed) == (6, 3, 2, 3)


def test_a_detector_that_takes_exactly_a_period_misses_nothing() -> None:
    pace = Bench(62.5).pace(16, samples=20)
    assert (pace.missed, pace.dropped) == (0, 0)
    assert ages(pace) == [62.5] * 20


def test_seeded_noise_gives_the_counts_that_a_plain_simulation_gives() -> None:
    random = np.random.default_rng(11)
    times_ms = random.gamma(4.0, 4.5, 400)
    pace = Bench(*times_ms).pace(50, samples=400)

    free, taken, late = 0.0, [], 0
    for work in times_ms:
        waiting = [k for k in range(2000) if (not taken or k > taken[-1]) and 20.0 * k <= free]
        frame = waiting[-1] if waiting else (taken[-1] + 1 if taken else 0)
        free = max(free, 20.0 * frame) + work
        late += free - 20.0 * frame > 20.0
        taken.append(frame)

    assert (pace.arrived, pace.missed) == (taken[-1] + 1, late)
    assert pace.dropped == taken[-1] + 1 - 400 > 0
    assert pace.ages_ms[-1] == pytest.approx(free - 20.0 * taken[-1])


def test_a_hopeless_detector_is_bounded_and_says_that_it_is_weak() -> None:
    pace = Bench(2000.0).pace(50, samples=100, longest_s=5.0)
    assert len(pace.ages_ms) == 3
    assert pace.weak == ("p99 of the age of 3 frames, 100 are needed",)
    assert Bench(1.0).pace(50, samples=100).weak == ()


def test_json_keeps_the_raw_ages(bench_json: dict) -> None:
    pace = Bench(30.0, 10.0).pace(50, samples=4).to_json()
    assert {name: pace[name] for name in ("arrived", "detected", "missed", "dropped")} == {
        "arrived": 4,
        "detected": 4,
        "missed": 1,
        "dropped": 0,
    }
    assert pace["ages_ms"] == [30.0, 20.0, 10.0, 10.0]
    assert pace["age_ms"] == {"p50": pytest.approx(15.0), "p99": pytest.approx(29.7)}
    bench_json["results"][0]["variants"][0]["pace"] = pace
    assert check_bench(bench_json)["schema"] == SCHEMA


@pytest.mark.parametrize("rate_hz", [0.0, -1.0])
def test_no_rate_is_a_fault_of_the_caller(rate_hz: float) -> None:
    with pytest.raises(ValueError, match="a rate, a frame and a sample"):
        Bench(1.0).pace(rate_hz, samples=1)
