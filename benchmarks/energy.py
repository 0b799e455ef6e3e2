"""What a frame costs in joules: one variant runs alone while the board's sensors are read.

Timing takes turns of two frames, faster than the sensors can follow, so power has its own run:
frames one after the other, as fast as the board can, for some seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from irstd_edge.benchmarks.latency import Timed
from irstd_edge.edge.clocks import LOCK, Throttle, clocks_locked, read_throttle
from irstd_edge.edge.power import Meter, PowerSampler, open_meter
from irstd_edge.edge.types import Frame

SECONDS = 5.0
FEWEST_READINGS = 20


@dataclass(frozen=True)
class Energy:
    """Of one variant at full speed, the whole module: its network, its pre- and postprocessing."""

    mean_w: float
    frames_per_s: float
    hottest_c: float | None
    readings: int
    throttled: tuple[str, ...]
    """What slowed the chip down meanwhile."""

    @property
    def joule_per_frame(self) -> float:
        """Everything that the module drew, idle parts too, over the frames."""
        return self.mean_w / self.frames_per_s

    @property
    def weak(self) -> tuple[str, ...]:
        """Why the numbers deserve distrust; empty when they do not."""
        few = [f"power of {self.readings} readings, {FEWEST_READINGS} are needed"]
        return (
            *throttling("while its power was measured", self.throttled),
            *(few if self.readings < FEWEST_READINGS else ()),
        )


def throttling(when: str, throttled: tuple[str, ...]) -> tuple[str, ...]:
    """Why numbers taken meanwhile deserve distrust, of `Throttle.since`; empty when it is."""
    words = f"the board throttled itself {when} ({', '.join(throttled)}): cool it, or feed it"
    return (words,) if throttled else ()


@dataclass(frozen=True)
class Board:
    """Where power and throttling are read; stands for a machine without sensors as well."""

    open_meter: Callable[[], Meter | None] = lambda: None
    read_throttle: Callable[[], Throttle] = lambda: Throttle(frozenset(), 0)
    clocks_locked: bool | None = None

    @property
    def weak(self) -> tuple[str, ...]:
        """Of every number that is taken here."""
        if self.clocks_locked is False:
            return (f"clocks are not locked, so speed follows load: {LOCK}",)
        return ()


def this_board(is_jetson: bool, root: Path = Path("/")) -> Board:
    """The sensors of a Jetson; of another machine nothing is asked."""
    if not is_jetson:
        return Board()
    return Board(lambda: open_meter(root), lambda: read_throttle(root), clocks_locked(root))


def measure_energy(
    runner: Timed,
    frames: Sequence[Frame],
    board: Board,
    *,
    batch: int = 1,
    seconds: float = SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> Energy | None:
    """Run a variant alone on frames in a circle. None where the board has no sensors for it.

    batch: frames that a call of `runner` takes.
    """
    meter = board.open_meter()
    if meter is None:
        return None
    before, done = board.read_throttle(), 0
    with PowerSampler(meter) as power:
        start = clock()
        while (taken := clock() - start) < seconds or not done:
            runner.detect(frames[done % len(frames)])
            done += 1
    if power.mean_w is None:
        return None
    throttled = board.read_throttle().since(before)
    return Energy(
        power.mean_w, batch * done / taken, power.hottest_c, len(power.readings), throttled
    )
