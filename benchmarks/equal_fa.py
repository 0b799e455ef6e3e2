"""Pd at equal false alarms: whether a threshold moved, or what it judged by is lost.

INT8 shifts scores. At one fixed threshold that looks like lost targets or like new false alarms;
at equal false alarms, with each side's own threshold, only what no threshold brings back is lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from irstd_edge.benchmarks.bootstrap import interval
from irstd_edge.benchmarks.comparison import percent, reference_of, signed
from irstd_edge.benchmarks.curves import Curve

RATES_PER_MPX = (1.0, 5.0, 20.0)
"""False alarms to compare at, beside those that the reference has at its own threshold."""
SLACK = 1e-9
"""Of a rate that was computed in two ways."""

Floats = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]


def pd_at_fa(
    reference: Curve | None, candidate: Curve | None, weights: Floats
) -> list[dict[str, Any]]:
    """Pd of both at the reference's own rate of false alarms (`own`), then at round rates.

    Each side takes, of the thresholds at which its false alarms are at most that rate, the one that
    finds most, the lowest of equals; at threshold 1 nothing is found. (A mask that a high threshold
    breaks in two may have more false alarms than at a low one.) A round rate is left out where a
    side never gets above it, or only by finding nothing. So is the reference's own where a mask
    gets down to it only so: its false pixels hardly follow the threshold, and one more false blob
    would make Pd 0. `ci95`: of candidate - reference over `weights` (draws, frames), every draw
    with thresholds of its own, as `interval` has it. Empty without curves or targets.
    """
    if reference is None or candidate is None or not reference.targets.sum():
        return []
    own = float(reference.fa_per_mpx[np.searchsorted(reference.thresholds, reference.own)])
    sides = (reference, candidate)
    rates = [rate for rate in RATES_PER_MPX if all(_reaches(side, rate) for side in sides)]
    entries = [_entry(sides, own, True, weights)]
    entries += [_entry(sides, rate, False, weights) for rate in rates]
    return [entry for entry in entries if entry is not None]


def _reaches(curve: Curve, rate: float) -> bool:
    at = int(_pd(curve, rate, np.ones((1, len(curve.pixels))))[1][0])
    return 0 < at < len(curve.thresholds) - 1


def _entry(
    sides: tuple[Curve, Curve], rate: float, is_own: bool, weights: Floats
) -> dict[str, Any] | None:
    whole = np.ones((1, weights.shape[1]))
    (before, old), (after, new) = (_pd(side, rate, whole) for side in sides)
    if not np.isfinite([before[0], after[0]]).all():
        return None
    drawn = [_pd(side, rate, weights)[0] for side in sides]
    return {
        "fa_per_mpx": rate,
        "own": is_own,
        "pd_reference": float(before[0]),
        "pd_candidate": float(after[0]),
        "threshold_reference": float(sides[0].thresholds[old[0]]),
        "threshold_candidate": float(sides[1].thresholds[new[0]]),
        "ci95": interval(drawn[1] - drawn[0], weights.shape[1]),
    }


def _pd(curve: Curve, rate: float, weights: Floats) -> tuple[Floats, Index]:
    """(draws,) Pd at the rate, and the thresholds' indices.

    NaN where a draw has no target, and of masks that get down to it by finding nothing alone.
    """
    targets, pixels = weights @ curve.targets, weights @ curve.pixels
    few = 1e6 * (weights @ curve.false) / pixels[:, None] <= rate + SLACK
    found = np.where(few, weights @ curve.found, -1.0)
    at = found.argmax(1)
    defined = (targets > 0) & ((at < len(curve.thresholds) - 1) | (not curve.of_masks))
    return np.where(defined, found.max(1) / np.maximum(targets, 1), np.nan), at


def own_entry(drift: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The comparison at the reference's own false alarms; None in a file without one."""
    return next((entry for entry in drift.get("pd_at_fa") or () if entry["own"]), None)


def is_masked(drift: Mapping[str, Any]) -> bool:
    """Whether a drift entry is of masks, also where their IoU is undefined."""
    return bool(drift.get("masked", drift["iou"] is not None))


def false_alarm_unit(drift: Mapping[str, Any]) -> str:
    """Of a drift entry: those of a mask are counted in pixels."""
    return "px per Mpx" if is_masked(drift) else "per Mpx"


def equal_fa_words(drift: Mapping[str, Any]) -> str | None:
    """One sentence on a drift entry of bench.json; None where it has no comparison."""
    entry = own_entry(drift)
    if entry is None:
        return None
    names = {"reference": reference_of(drift), "candidate": drift["candidate"]}
    sides = [
        f"{name} finds {percent(entry[f'pd_{side}'])} % "
        f"(threshold {_threshold(entry[f'threshold_{side}'])})"
        for side, name in names.items()
    ]
    rate = f"{entry['fa_per_mpx']:.2f} {false_alarm_unit(drift)}"
    said = f"{', '.join(sides)}: {_meaning(drift['pd'], entry)}"
    return f"At the false alarms of {names['reference']}, {rate}: {said}."


def _meaning(change_at_own: float | None, entry: Mapping[str, Any]) -> str:
    change, ends = entry["pd_candidate"] - entry["pd_reference"], entry["ci95"]
    if change > -SLACK:
        if change_at_own is not None and change_at_own < -SLACK:
            if entry["threshold_candidate"] == entry["threshold_reference"]:
                return "nothing is lost at this threshold, only at the bundle's own"
            return "the threshold moved, the information is there"
        return "nothing is lost"
    missing = f"{signed(100 * change, 2)} points that no threshold brings back"
    if change_at_own is not None and change_at_own < change - SLACK:
        missing = (
            f"of the {signed(100 * change_at_own, 2)} points at the old threshold, no threshold "
            f"brings back {signed(100 * change, 2)}"
        )
    if ends is None:
        return f"{missing}; these frames do not tell whether by chance"
    if ends[1] > -SLACK:
        return f"{missing}, no more than chance gives on these frames"
    return f"the information is lost, {missing}"


def _threshold(value: float) -> str:
    """Three decimals, but all that tell it from 1."""
    return f"{value:.3f}" if value < 0.99 else f"{value:.6g}"
