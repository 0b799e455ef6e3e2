"""How much faster one variant is than another, and how far that could be chance.

Variants are timed in turns, so index i of both raw times belongs to the same round: a busy spell
of the machine hits both. Rounds are drawn in blocks, because a spell outlasts a round.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000
BLOCK = 5
"""Rounds that are drawn together."""
SAME_SPEED = 0.05
"""A gain that may be smaller than this is none: not worth the risk of rounding."""
FEWEST = 4 * BLOCK
"""Rounds under which no interval is told."""


@dataclass(frozen=True)
class SpeedUp:
    """Median time of a reference over that of a candidate: 2 is twice as fast."""

    ratio: float
    interval: tuple[float, float] | None = None
    """95 % of the bootstrap's ratios; None where the rounds are too few or not the same."""

    @property
    def lowest(self) -> float:
        """What it is at least; 0 without an interval."""
        return 0.0 if self.interval is None else self.interval[0]

    @property
    def highest(self) -> float:
        """What it is at most; infinite without an interval."""
        return math.inf if self.interval is None else self.interval[1]

    @property
    def margin(self) -> float:
        """Half of the interval; infinite without one."""
        return (self.highest - self.lowest) / 2

    @property
    def inverse(self) -> SpeedUp:
        """The reference against the candidate."""
        ends = None if self.interval is None else (1 / self.interval[1], 1 / self.interval[0])
        return SpeedUp(1 / self.ratio, ends)


def speed_up_of(reference_ms: Sequence[float], candidate_ms: Sequence[float]) -> SpeedUp:
    """Of raw times that were taken in the same rounds."""
    times = np.array([reference_ms, candidate_ms], np.float64)  # (2, rounds)
    slow, fast = np.median(times, axis=1)
    rounds = times.shape[1]
    if rounds < FEWEST:
        return SpeedUp(float(slow / fast))
    starts = np.random.default_rng(0).integers(0, rounds, (RESAMPLES, -(-rounds // BLOCK)))
    drawn = ((starts[:, :, None] + np.arange(BLOCK)) % rounds).reshape(RESAMPLES, -1)
    slow_drawn, fast_drawn = np.median(times[:, drawn[:, :rounds]], axis=2)
    low, high = np.percentile(slow_drawn / fast_drawn, [2.5, 97.5])
    return SpeedUp(float(slow / fast), (float(low), float(high)))
