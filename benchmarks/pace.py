"""Frames at the sensor's rate: which come too late, which are never looked at, how old is what.

A detector that is fast enough on average may still be late. Frame k arrives at k / rate, whether
anybody waits for it or not. One frame is held back while the detector is busy, and a newer one
takes its place, as in every capture buffer that is to show the present.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from irstd_edge.benchmarks.latency import SAMPLES_FOR_P99
from irstd_edge.edge.types import Frame

LONGEST_S = 60.0
"""Of one variant: a detector far slower than its sensor must not take all day."""
WARM_UP = 3
"""Frames before the first that counts: the machine has rested."""

SLACK_S = 1e-6
"""Moments closer than this are one: a sum of periods is not exact."""


class Detector(Protocol):
    """What is asked of a runner."""

    def detect(self, frame: Frame) -> Any:
        """Preprocess, infer and decode one frame."""
        ...


@dataclass(frozen=True)
class Pace:
    """What became of a stream of frames."""

    rate_hz: float
    arrived: int
    """Frames up to the last one that was detected in."""
    queued: int
    """Those that were there before the detector was free."""
    ages_ms: npt.NDArray[np.float64]
    """(detected,) from the arrival of a frame to its detections, in their order."""

    @property
    def dropped(self) -> int:
        """Replaced by a newer frame before the detector was free."""
        return self.arrived - len(self.ages_ms)

    @property
    def missed(self) -> int:
        """Detections that came after the next frame had arrived."""
        return int((self.ages_ms > 1000 * (1 / self.rate_hz + SLACK_S)).sum())

    @property
    def weak(self) -> tuple[str, ...]:
        """Why the ages deserve distrust."""
        detected = len(self.ages_ms)
        if detected >= SAMPLES_FOR_P99:
            return ()
        return (f"p99 of the age of {detected} frames, {SAMPLES_FOR_P99} are needed",)

    def to_json(self) -> dict[str, Any]:
        """The `pace` object of bench.json."""
        p50, p99 = np.percentile(self.ages_ms, (50, 99))
        return {
            "rate_hz": self.rate_hz,
            "arrived": self.arrived,
            "detected": len(self.ages_ms),
            "missed": self.missed,
            "dropped": self.dropped,
            "queued": self.queued,
            "age_ms": {"p50": float(p50), "p99": float(p99)},
            "ages_ms": [round(float(ms), 4) for ms in self.ages_ms],
        }


def measure_pace(
    detector: Detector,
    frames: Sequence[Frame],
    rate_hz: float,
    *,
    samples: int,
    longest_s: float = LONGEST_S,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Pace:
    """Let frames come until `samples` of them were detected in, or `longest_s` are over.

    Args:
        detector: an open runner; it has the machine to itself.
        frames: at least one, used in a circle.
        rate_hz: frames a second, more than 0.
        samples: detections, at least one.
        longest_s: after so many seconds no frame is begun any more, unless it is the first.
        clock: seconds.
        sleep: rests for so many seconds.
    """
    if rate_hz <= 0 or samples < 1 or not frames:
        raise ValueError("a pace needs a rate, a frame and a sample")
    for index in range(WARM_UP):
        detector.detect(frames[index % len(frames)])
    start, index, queued = clock(), -1, 0
    ages_ms: list[float] = []
    while len(ages_ms) < samples and not (ages_ms and clock() - start > longest_s):
        newest = math.floor((clock() - start + SLACK_S) * rate_hz)
        was_waiting = newest > index
        index = max(newest, index + 1)
        arrival = start + index / rate_hz
        _wait_until(arrival, clock, sleep)
        queued += was_waiting and len(ages_ms) > 0
        detector.detect(frames[index % len(frames)])
        ages_ms.append(1000 * (clock() - arrival))
    return Pace(rate_hz, index + 1, queued, np.array(ages_ms))


def _wait_until(moment: float, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
    while (left := moment - clock()) > 0:
        sleep(left)
