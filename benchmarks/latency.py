"""Time several variants of a network on one machine so that they can be compared.

The machine changes while it is timed: clocks ramp, other programs come and go. So every variant
is warmed up until it is steady, and then the variants take turns of two frames, so that what
happens to one happens to all. Raw times are kept, every statistic is derived, and a number that
is weak says so. The reasoning is that of torch.utils.benchmark.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from irstd_edge.edge.types import Frame

Label = TypeVar("Label", bound=Hashable)
Milliseconds = npt.NDArray[np.float64]

STAGES = ("pre", "infer", "post")

SAMPLES_FOR_P99 = 100
"""With fewer, the 99th percentile is one of the two longest times."""
SPREAD_LIMIT = 0.1
"""Largest interquartile range, as a share of the median, of a trustworthy number."""

REST_S = 0.03
"""Between two turns. The worker threads of ONNX Runtime go on spinning for a while when their work
is done; without a rest, OpenVINO in the next turn was measured up to 1.7 times slower. A frame that
is not timed follows the rest: in a stream threads are awake and caches full, and without it p2p's
INT8 on OpenVINO took 1.18 times as long, MSHNet's FP32 1.03 times."""

_WINDOW = 5
"""Calls whose median is compared with that of the calls before, to see whether a variant drifts."""
_DRIFT_LIMIT = 0.05


class Timed(Protocol):
    """What is asked of a runner: one frame in, and the time of its stages."""

    @property
    def stages_ms(self) -> Mapping[str, float]:
        """Of the last call: pre, infer, post."""
        ...

    def detect(self, frame: Frame) -> Any:
        """Preprocess, infer and decode one frame."""
        ...


@dataclass(frozen=True)
class Timing:
    """Raw times of one variant; index i of every stage belongs to the same frame."""

    pre_ms: Milliseconds
    """(S,) counts of the sensor to the input of the network."""
    infer_ms: Milliseconds
    """(S,) the network alone."""
    post_ms: Milliseconds
    """(S,) outputs of the network to detections."""
    read_ms: Milliseconds | None
    """(S,) file to frame, from the page cache; None where the frames had no files."""
    steady: bool
    """Whether the warm-up ended because the times had settled, not because its time was up."""
    batch: int = 1
    """Frames of each call."""

    @property
    def samples(self) -> int:
        """Timed calls."""
        return len(self.infer_ms)

    @property
    def p50_ms(self) -> float:
        """Median of the inference."""
        return float(np.percentile(self.infer_ms, 50))

    @property
    def p90_ms(self) -> float:
        """One inference in ten is slower."""
        return float(np.percentile(self.infer_ms, 90))

    @property
    def p99_ms(self) -> float:
        """One inference in a hundred is slower."""
        return float(np.percentile(self.infer_ms, 99))

    @property
    def mean_ms(self) -> float:
        """Mean of the inference."""
        return float(self.infer_ms.mean())

    @property
    def stages_ms(self) -> dict[str, float | None]:
        """Mean of each stage: they add up to the mean call."""
        return {
            "read": None if self.read_ms is None else float(self.read_ms.mean()),
            "pre": float(self.pre_ms.mean()),
            "infer": self.mean_ms,
            "post": float(self.post_ms.mean()),
        }

    @property
    def raw_ms(self) -> dict[str, list[float] | None]:
        """Every time, `read_ms`, `pre_ms`, `infer_ms`, `post_ms`, to a ten-thousandth of a ms."""
        times = {
            "read_ms": self.read_ms,
            "pre_ms": self.pre_ms,
            "infer_ms": self.infer_ms,
            "post_ms": self.post_ms,
        }
        return {
            name: None if ms is None else [round(float(x), 4) for x in ms]
            for name, ms in times.items()
        }

    @property
    def fps(self) -> float:
        """Frames per second of the inference alone, at its median."""
        return 1000 * self.batch / self.p50_ms

    @property
    def fps_end_to_end(self) -> float:
        """Frames per second of all measured stages one after the other, at their mean."""
        return 1000 * self.batch / sum(ms for ms in self.stages_ms.values() if ms is not None)

    @property
    def weak(self) -> tuple[str, ...]:
        """Why the numbers deserve distrust, one reason each; empty when they do not."""
        low, high = np.percentile(self.infer_ms, (25, 75))
        spread = float(high - low) / self.p50_ms
        reasons = []
        if spread > SPREAD_LIMIT:
            reasons.append(f"noisy: the middle half of the times spreads over {spread:.0%} of p50")
        if self.samples < SAMPLES_FOR_P99:
            reasons.append(f"p99 of {self.samples} samples, {SAMPLES_FOR_P99} are needed")
        if not self.steady:
            reasons.append("the warm-up ended before the times had settled")
        return tuple(reasons)


def measure(
    runners: Mapping[Label, Timed],
    frames: Sequence[Frame],
    *,
    warm_up_s: float,
    samples: int,
    read: Callable[[Frame], object] | None = None,
    batch: int = 1,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[Label, Timing]:
    """Time every runner on the same frames, taking turns of two frames: the second is timed.

    Args:
        runners: label -> open runner.
        frames: at least one, used in a circle.
        warm_up_s: longest warm-up of each runner in seconds; it ends earlier when it is steady.
        samples: timed calls of each runner, at least one.
        read: reads the file of a frame once more, to time the stage `read`.
        batch: frames that each call of a runner takes, and of `read`.
        clock: seconds.
        sleep: rests for so many seconds.
        progress: called with (rounds done, rounds in all).

    Returns:
        Label -> its times, in the order of `runners`.
    """
    if samples < 1 or not frames:
        raise ValueError("timing needs a frame and a sample")
    steady = {
        label: _warm_up(runner, frames, warm_up_s, clock) for label, runner in runners.items()
    }
    # Another order each round, so that nobody always runs in the wake of the same neighbour.
    shuffled, labels = np.random.default_rng(0), list(runners)
    rows: dict[Label, list[list[float]]] = {label: [] for label in runners}
    for index in range(samples):
        frame = frames[index % len(frames)]
        for turn in shuffled.permutation(len(labels)):
            sleep(REST_S)
            label = labels[turn]
            _one(runners[label], frames[(index - 1) % len(frames)], read, clock)
            rows[label].append(_one(runners[label], frame, read, clock))
        progress(index + 1, samples)
    return {
        label: _timing(rows[label], steady[label], read is not None, batch) for label in runners
    }


def _warm_up(
    runner: Timed, frames: Sequence[Frame], limit_s: float, clock: Callable[[], float]
) -> bool:
    """Run until the last calls take as long as those before; False when time ran out first."""
    end = clock() + limit_s
    infer_ms: list[float] = []
    while True:
        runner.detect(frames[len(infer_ms) % len(frames)])
        infer_ms.append(runner.stages_ms["infer"])
        if _is_steady(infer_ms):
            return True
        if clock() >= end:
            return False


def _is_steady(infer_ms: list[float]) -> bool:
    if len(infer_ms) < 2 * _WINDOW:
        return False
    before = float(np.median(infer_ms[-2 * _WINDOW : -_WINDOW]))
    after = float(np.median(infer_ms[-_WINDOW:]))
    return abs(after - before) <= _DRIFT_LIMIT * before


def _one(
    runner: Timed,
    frame: Frame,
    read: Callable[[Frame], object] | None,
    clock: Callable[[], float],
) -> list[float]:
    """[pre, infer, post, read] in ms."""
    read_ms = 0.0
    if read is not None:
        start = clock()
        read(frame)
        read_ms = 1000 * (clock() - start)
    runner.detect(frame)
    return [*(runner.stages_ms[stage] for stage in STAGES), read_ms]


def _timing(rows: list[list[float]], steady: bool, with_read: bool, batch: int) -> Timing:
    pre, infer, post, read = np.asarray(rows, np.float64).T
    return Timing(pre, infer, post, read if with_read else None, steady, batch)
