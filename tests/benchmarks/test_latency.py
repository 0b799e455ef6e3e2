from collections.abc import Mapping

import numpy as np
import pytest

from irstd_edge.benchmarks.latency import Timing, measure
from irstd_edge.edge.types import Frame

FRAMES = [Frame(f"f{i}", np.zeros((4, 4), np.uint8), 8) for i in range(3)]


class Clock:
    """Seconds that pass only when somebody works."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.rests = 0

    def __call__(self) -> float:
        return self.now_s

    def work(self, ms: float) -> None:
        self.now_s += ms / 1000

    def rest(self, seconds: float) -> None:
        self.now_s += seconds
        self.rests += 1


class Runner:
    """Takes the times it is told to, the last one for ever, with seeded noise."""

    def __init__(self, clock: Clock, infer_ms: list[float], noise: float, calls: list[str]) -> None:
        self.clock, self.infer_ms, self.noise, self.calls = clock, infer_ms, noise, calls
        self.rng = np.random.default_rng(7)
        self.stages_ms: Mapping[str, float] = {}
        self.done = 0

    def detect(self, frame: Frame) -> None:
        ms = self.infer_ms[min(self.done, len(self.infer_ms) - 1)]
        infer = ms * float(1 + self.noise * self.rng.standard_normal())
        self.stages_ms = {"pre": 1.0, "infer": infer, "post": 2.0}
        self.clock.work(infer + 3.0)
        self.calls.append(frame.name)
        self.done += 1


def timing(infer_ms: list[float], read_ms: list[float] | None = None) -> Timing:
    ones = np.ones(len(infer_ms))
    read = None if read_ms is None else np.asarray(read_ms)
    return Timing(ones, np.asarray(infer_ms), 2 * ones, read, steady=True)


def alone(runner: Runner, clock: Clock, warm_up_s: float, samples: int) -> Timing:
    return measure(
        {"int8": runner},
        FRAMES,
        warm_up_s=warm_up_s,
        samples=samples,
        clock=clock,
        sleep=clock.rest,
    )["int8"]


def test_statistics_derive_from_the_raw_times() -> None:
    times = timing([10.0] * 90 + [20.0] * 9 + [110.0], [5.0] * 100)

    assert times.samples == 100
    assert (times.p50_ms, times.p90_ms, times.mean_ms) == (10.0, pytest.approx(11.0), 11.9)
    assert times.p99_ms == pytest.approx(20.9)
    assert times.stages_ms == {"read": 5.0, "pre": 1.0, "infer": 11.9, "post": 2.0}
    assert times.fps == 100.0
    assert times.fps_end_to_end == pytest.approx(1000 / 19.9)
    assert times.weak == ()


def test_frames_without_a_file_have_no_reading_time() -> None:
    times = timing([10.0] * 100)
    assert times.stages_ms["read"] is None
    assert times.fps_end_to_end == pytest.approx(1000 / 13)


def test_a_noisy_number_says_so() -> None:
    (reason,) = timing([10.0] * 60 + [16.0] * 60).weak
    assert reason == "noisy: the middle half of the times spreads over 46% of p50"


def test_too_few_samples_for_the_99th_percentile_are_named() -> None:
    assert timing([10.0] * 99).weak == ("p99 of 99 samples, 100 are needed",)


def test_variants_take_turns_on_the_same_frames() -> None:
    clock, calls = Clock(), list[str]()
    runners = {name: Runner(clock, [10.0], 0.0, calls) for name in ("fp32", "int8")}

    measure(runners, FRAMES, warm_up_s=1.0, samples=4, clock=clock, sleep=clock.rest)

    assert clock.rests == 8, "nobody starts while the threads of the one before still spin"
    turns = calls[-16:]
    assert turns[1::2] == ["f0", "f0", "f1", "f1", "f2", "f2", "f0", "f0"]
    assert turns[::2] == ["f2", "f2", "f0", "f0", "f1", "f1", "f2", "f2"], "the frame before"


def test_the_first_frame_after_a_rest_is_not_timed() -> None:
    clock = Clock()

    class Sleepy(Runner):
        def detect(self, frame: Frame) -> None:
            self.infer_ms = [500.0 if clock.rests > self.woken else 10.0]
            self.woken = clock.rests
            super().detect(frame)

        woken = 0

    runners = {name: Sleepy(clock, [10.0], 0.0, []) for name in ("fp32", "int8")}
    times = measure(runners, FRAMES, warm_up_s=1.0, samples=4, clock=clock, sleep=clock.rest)
    assert times["fp32"].infer_ms.tolist() == times["int8"].infer_ms.tolist() == [10.0] * 4


def test_the_order_of_the_turns_changes() -> None:
    clock, order = Clock(), list[str]()

    class Named(Runner):
        def detect(self, frame: Frame) -> None:
            super().detect(frame)
            order.append(self.calls[0])

    runners = {name: Named(clock, [10.0], 0.0, [name]) for name in ("a", "b", "c")}
    measure(runners, FRAMES, warm_up_s=0.0, samples=12, clock=clock, sleep=clock.rest)
    turns = order[3:]
    assert turns[::2] == turns[1::2], "two frames each"
    rounds = ["".join(turns[k : k + 6 : 2]) for k in range(0, len(turns), 6)]
    assert len(rounds) == 12
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert len(set(rounds)) > 2


def test_raw_times_are_those_of_the_runners_and_the_clock() -> None:
    clock, rounds, reads = Clock(), list[tuple[int, int]](), list[str]()

    def read(frame: Frame) -> None:
        clock.work(4.0)
        reads.append(frame.name)

    runners = {name: Runner(clock, [ms], 0.0, []) for name, ms in (("slow", 40.0), ("fast", 8.0))}

    times = measure(
        runners,
        FRAMES,
        warm_up_s=1.0,
        samples=5,
        read=read,
        clock=clock,
        sleep=clock.rest,
        progress=lambda done, total: rounds.append((done, total)),
    )

    assert list(times) == ["slow", "fast"]
    assert times["fast"].infer_ms.tolist() == [8.0] * 5
    read_ms = times["slow"].read_ms
    assert read_ms is not None
    assert read_ms == pytest.approx(np.full(5, 4.0))
    assert reads[:4] == ["f2", "f0"] * 2, "what is not timed is read as well"
    assert rounds[-1] == (5, 5)


def test_a_slow_machine_hits_every_variant_alike() -> None:
    """The clock ramps while they are timed; the ratio of the medians stays that of the variants."""
    clock = Clock()
    ramp = np.linspace(1.0, 3.0, 420)
    runners = {
        "fp32": Runner(clock, [30.0] * 10 + [30 * r for r in ramp], 0.02, []),
        "int8": Runner(clock, [10.0] * 10 + [10 * r for r in ramp], 0.02, []),
    }
    times = measure(runners, FRAMES, warm_up_s=10.0, samples=200, clock=clock, sleep=clock.rest)
    assert times["fp32"].p50_ms / times["int8"].p50_ms == pytest.approx(3.0, rel=0.03)
    assert "noisy" in times["fp32"].weak[0]


def test_the_warm_up_ends_when_the_times_have_settled() -> None:
    clock = Clock()
    runner = Runner(clock, [90.0] * 5 + [50.0] * 5 + [10.0], 0.0, [])
    times = measure(
        {"int8": runner}, FRAMES, warm_up_s=60.0, samples=3, clock=clock, sleep=clock.rest
    )["int8"]
    assert runner.done == 5 + 5 + 8 + 2 * 3  # median of five against median of the five before
    assert times.steady
    assert times.infer_ms.tolist() == [10.0] * 3


def test_a_warm_up_that_never_settles_is_bounded_and_named() -> None:
    clock = Clock()
    runner = Runner(clock, [100.0 * 1.2**i for i in range(60)], 0.0, [])
    times = measure(
        {"int8": runner}, FRAMES, warm_up_s=5.0, samples=1, clock=clock, sleep=clock.rest
    )["int8"]
    assert not times.steady
    assert "the warm-up ended before the times had settled" in times.weak
    assert clock.now_s < 100 + 10


@pytest.mark.parametrize(("frames", "samples"), [([], 3), (FRAMES, 0)], ids=["frame", "sample"])
def test_nothing_to_time_is_a_fault_of_the_caller(frames: list[Frame], samples: int) -> None:
    with pytest.raises(ValueError, match="a frame and a sample"):
        measure({}, frames, warm_up_s=1.0, samples=samples)
