"""Over what range activations are rounded: by what the calibration frames show.

A range that holds every value has coarse steps where one pixel of one frame stands out; one that
cuts off what is rare cuts off targets, which are rare. So the rules that cut keep every target of
the calibration frames whole, whatever else they clip.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from irstd_edge.calibration.fake_quantize import LEVELS, FakeQuantize
from irstd_edge.calibration.subset import PEAK_PX
from irstd_edge.edge.types import FloatArray, IrstdError

RULES = ("min-max", "percentile", "mse")
RULE = "percentile"
"""What `quantize` takes: in p2p's signed form, targets' scores are a third nearer to those of float
by it than by min-max (docs/experiments.md)."""

PERCENTILE = 99.99
"""Of magnitudes, over all frames."""
BINS = 4096
CANDIDATES = 100
"""Ranges that `mse` compares: hundredths of the highest magnitude."""


@dataclass(frozen=True)
class Shown:
    """A calibration frame as the network takes it."""

    batch: Tensor
    """(1, 1, H, W) in 0..1."""
    points: FloatArray
    """(M, 2) row, col of its targets."""


@dataclass
class _Values:
    """The magnitudes that one quantizer is given."""

    highest: float = 0.0
    at_targets: float = 0.0
    counts: Tensor = field(default_factory=lambda: torch.zeros(BINS, dtype=torch.float64))
    """Of `BINS` equal parts of 0 to `highest`."""


def check_rule(rule: str) -> None:
    """Raise IrstdError for a name that is no rule."""
    if rule not in RULES:
        raise IrstdError(f"--ranges: {rule!r} is not one of {', '.join(RULES)}")


def estimate_ranges(network: nn.Module, frames: Sequence[Shown], rule: str) -> None:
    """Set the range of every quantizer of activations by what it is given on the frames.

    `min-max` takes the highest magnitude; `percentile` that which 99.99 % of them do not exceed;
    `mse` that with the least squared error of rounding and clipping together. The last two take the
    highest within `PEAK_PX` of a target where that is more. Values are those of the rounded network
    in evaluation mode. A quantizer that is given nothing but zeros stays as it is.
    """
    check_rule(rule)
    values = _seen(network, frames, with_counts=rule != "min-max")
    for each, seen in values.items():
        if seen.highest > 0:
            each.set_limit(max(_limit(seen, rule), seen.at_targets))


def _limit(seen: _Values, rule: str) -> float:
    if rule == "min-max":
        return seen.highest
    counts = seen.counts.numpy()
    if rule == "percentile":
        below = np.cumsum(counts) >= counts.sum() * PERCENTILE / 100
        return seen.highest * (int(np.argmax(below)) + 1) / BINS
    limits = seen.highest * np.arange(1, CANDIDATES + 1) / CANDIDATES
    return float(min(limits, key=lambda limit: _squared_error(counts, seen.highest, limit)))


def _squared_error(counts: Any, highest: float, limit: float) -> float:
    """Of rounding magnitudes to `LEVELS` steps up to `limit`, which clips the rest."""
    middles = (np.arange(BINS) + 0.5) * highest / BINS
    step = limit / LEVELS
    rounded = np.minimum(np.rint(middles / step), LEVELS) * step
    return float((counts * np.square(middles - rounded)).sum())


def _seen(
    network: nn.Module, frames: Sequence[Shown], with_counts: bool
) -> dict[FakeQuantize, _Values]:
    values = {
        each: _Values()
        for each in network.modules()
        if isinstance(each, FakeQuantize) and each.axis is None
    }
    shown = frames[0]

    def extremes(quantizer: Any, inputs: tuple[Tensor, ...]) -> None:
        seen, magnitudes = values[quantizer], inputs[0].abs()
        seen.highest = max(seen.highest, float(magnitudes.max()))
        seen.at_targets = max(seen.at_targets, _at_targets(magnitudes, shown))

    def counts(quantizer: Any, inputs: tuple[Tensor, ...]) -> None:
        seen = values[quantizer]
        found = torch.histc(inputs[0].abs().float(), BINS, 0, seen.highest or 1.0)
        seen.counts += found.double().cpu()

    for look in (extremes, counts) if with_counts else (extremes,):
        with ExitStack() as hooks, torch.no_grad():
            for each in values:
                hooks.callback(each.register_forward_pre_hook(look).remove)
            for shown in frames:
                network(shown.batch)
    return values


def _at_targets(magnitudes: Tensor, shown: Shown) -> float:
    """The highest of (1, C, h, w) in the cells that lie within `PEAK_PX` of a target."""
    height, width = magnitudes.shape[-2:]
    down, right = height / shown.batch.shape[-2], width / shown.batch.shape[-1]
    highest = 0.0
    for row, col in shown.points:
        rows = _cells(float(row), down, height)
        highest = max(highest, float(magnitudes[..., rows, _cells(float(col), right, width)].max()))
    return highest


def _cells(center: float, scale: float, count: int) -> slice:
    """Those of `count` cells, `scale` of them a pixel, that lie within `PEAK_PX` of a pixel."""
    first = min(max(0, math.floor((center - PEAK_PX) * scale)), count - 1)
    return slice(first, max(first + 1, math.ceil((center + PEAK_PX + 1) * scale)))
