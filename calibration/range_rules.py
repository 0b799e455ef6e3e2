"""Where the range of a tensor ends, by what it holds on the calibration frames.

A range that holds every value has coarse steps where one pixel of one frame stands out; one that
cuts off what is rare cuts off targets, which are rare: on NUDT-SIRST 918 of 945 were lost so. Hence
the rules that cut spare the peak of every target of the calibration frames, whatever else they
clip, and nothing is cut where these show too few. To spare all that a large target holds up to its
rim was tried, and is coarser (docs/experiments.md).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from irstd_edge.calibration.fake_quantize import LEVELS
from irstd_edge.calibration.subset import CalibrationFrame
from irstd_edge.edge.types import IrstdError

RULES = ("min-max", "percentile", "mse")
RULE_OF = {"heatmap": "percentile", "mask": "min-max"}
"""Kind of decode -> what `quantize` takes. Scores of p2p's targets are nearer to float's by the
percentile; MSHNet's masks lose IoU by it (docs/experiments.md)."""

PERCENTILE = 99.99
"""Of magnitudes over 0, of all frames: behind a ReLU most are 0."""
BINS = 4096
CANDIDATES = 100
"""Ranges that `mse` compares: hundredths of the highest magnitude."""
TINY = 1e-30
"""Magnitudes up to it count as 0: parts of less are beyond float32."""
FEWEST_TARGETS = 8
"""Peaks of fewer say little of those to come."""


def check_rule(rule: str) -> None:
    """Raise IrstdError for a name that is no rule."""
    if rule not in RULES:
        raise IrstdError(f"--ranges: {rule!r} is not one of {', '.join(RULES)}")


def rule_for(rule: str, targets: int) -> str:
    """The rule to go by where the calibration frames show so many targets."""
    return rule if targets >= FEWEST_TARGETS else "min-max"


class RangeObserver:
    """What one tensor holds on frame after frame."""

    def __init__(self) -> None:
        self.low = self.high = 0.0
        """The extremes, with 0 between them."""
        self.at_targets = 0.0
        """Highest magnitude within `PEAK_PX` of a target's centre."""
        self.counts = torch.zeros(BINS, dtype=torch.int64)
        """Of magnitudes over 0, in equal parts of 0 to `end`."""
        self.end = 0.0

    @property
    def highest(self) -> float:
        """Of all magnitudes."""
        return max(self.high, -self.low)

    def add(self, values: Tensor, shown: CalibrationFrame) -> None:
        """Take in the tensor, (1, C, h, w) or of any other shape, of one frame.

        Raises IrstdError where it holds what is not finite.
        """
        values = values.detach().float().cpu()
        low, high = map(float, values.aminmax())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise IrstdError(
                "these weights give values that are not finite on a calibration frame; train them "
                "again, or give others"
            )
        self.low, self.high = min(self.low, low), max(self.high, high)
        magnitudes = values if low >= 0 else values.abs()
        if values.ndim == 4:
            self.at_targets = max(self.at_targets, _at_targets(magnitudes, shown))
        self._widen()
        if self.end:
            self._count(magnitudes)

    def _count(self, magnitudes: Tensor) -> None:
        # A product with a power of two, which rounds nothing.
        parts = (magnitudes.flatten() * (BINS / self.end)).int()
        counts = torch.bincount(parts, minlength=BINS + 1)
        self.counts += counts[:-1]
        self.counts[-1] += counts[-1]  # of what is at `end` itself
        # numpy counts the bytes of a comparison; torch's count_nonzero takes ten times as long
        self.counts[0] -= len(parts) - int(np.count_nonzero(magnitudes.numpy() != 0))

    def _widen(self) -> None:
        """Let the parts cover the highest magnitude; a part that is doubled is two of before."""
        if not self.end and self.highest > TINY:
            self.end = 2.0 ** math.ceil(math.log2(self.highest))
        while self.end and self.highest > self.end:
            pairs = self.counts.reshape(-1, 2).sum(1)
            self.counts = torch.cat([pairs, torch.zeros_like(pairs)])
            self.end *= 2

    def limit(self, rule: str) -> float:
        """Where the range of magnitudes ends; 0 where there was nothing but zeros.

        `min-max`: at the highest; `percentile`: where 99.99 % of those over 0 end; `mse`: where
        rounding and clipping together have the least squared error. The last two not below the
        highest peak of a target. Raises IrstdError for a name that is no rule.
        """
        check_rule(rule)
        if rule == "min-max" or not self.end:
            return self.highest
        limit = self._percentile() if rule == "percentile" else self._least_error()
        return min(self.highest, max(limit, self.at_targets))

    def _percentile(self) -> float:
        enough = self.counts.cumsum(0) >= self.counts.sum() * PERCENTILE / 100
        return float(self.end * (int(enough.int().argmax()) + 1) / BINS)

    def _least_error(self) -> float:
        limits = self.highest * np.arange(1, CANDIDATES + 1) / CANDIDATES
        return float(min(limits, key=self._squared_error))

    def _squared_error(self, limit: float) -> float:
        """Of rounding magnitudes to `LEVELS` steps up to `limit`, which clips the rest."""
        middles = (np.arange(BINS) + 0.5) * self.end / BINS
        step = limit / LEVELS
        rounded: Any = np.minimum(np.rint(middles / step), LEVELS) * step
        return float((self.counts.numpy() * np.square(middles - rounded)).sum())


def _at_targets(magnitudes: Tensor, shown: CalibrationFrame) -> float:
    """The highest of (1, C, h, w) in the cells that hold a pixel near a target."""
    inside = magnitudes[..., _cells(shown, magnitudes.shape[-2:])]
    return float(inside.max()) if inside.numel() else 0.0


@lru_cache(maxsize=8)  # tensors of one frame have few sizes
def _cells(shown: CalibrationFrame, size: torch.Size) -> Tensor:
    """(h, w) whether a cell holds a pixel near a target."""
    return F.adaptive_max_pool2d(shown.near.float()[None, None], size)[0, 0] > 0
