"""Drift: what a cheaper variant changes, target by target, on the same frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from irstd_edge.benchmarks.accuracy import Evaluation, ImageResult
from irstd_edge.benchmarks.bootstrap import intervals_of, resamples
from irstd_edge.benchmarks.buckets import flips_by_range
from irstd_edge.benchmarks.equal_fa import pd_at_fa
from irstd_edge.benchmarks.targets import NEAR_PX, FalseAlarm, Target, flip_of
from irstd_edge.edge.types import IrstdError

METRICS = ("iou", "niou", "pd", "fa_per_mpx", "f1_3px", "f1_5px", "position_px")
"""Reported as differences."""
ALARMS = 20
"""False alarms that an entry lists, the surest first."""
DISTANCES = 2**20
"""Between false alarms, held at once: 8 MiB each for rows, columns and what comes of them."""


def drift(
    reference: Evaluation,
    candidate: Evaluation,
    names: tuple[str, str] = ("fp32", "int8"),
    runtime: str = "onnxruntime",
    reference_runtime: str | None = None,
) -> dict[str, Any]:
    """The drift entry of bench.json: every difference is candidate - reference.

    `names` are the variants (reference, candidate), `runtime` is the candidate's and
    `reference_runtime` the reference's, None where it is the same. A difference is None where
    either side is. `masked`: false alarms are pixels of masks, not points.
    `p_value`: exact two-sided McNemar test of targets lost against targets gained.
    `ci95`: percentile bootstrap over frames, of the difference of Pd (masks) or of
    F1 at 3 px (points), both variants on the same resample; None where it is undefined.
    `ci95_of`: the same of every difference. `pd_at_fa`: Pd at equal false alarms, empty
    unless both evaluations hold curves. `by_area`, `by_scr`: flips by size and by contrast.
    `targets`: all true targets, also those that did not flip. `false_alarms`: the surest ones of
    the candidate.
    IrstdError unless both come from the same frames and targets in the same order.
    """
    _check_same_frames(reference, candidate)
    before, after = reference.metrics(), candidate.metrics()
    targets = [
        _target_entry(one.name, a, b)
        for one, other in zip(reference.images, candidate.images, strict=True)
        for a, b in zip(one.targets, other.targets, strict=True)
    ]
    lost = sum(target["flip"] == "lost" for target in targets)
    gained = sum(target["flip"] == "gained" for target in targets)
    weights = resamples(len(reference.images))
    intervals = intervals_of(reference, candidate, weights)
    before_curve, after_curve = reference.curve, candidate.curve
    return {
        "reference": names[0],
        "candidate": names[1],
        "runtime": runtime,
        "reference_runtime": reference_runtime or runtime,
        "masked": reference.mask is not None,
        **{name: difference(before[name], after[name]) for name in METRICS},
        "targets_lost": lost,
        "targets_gained": gained,
        "false_alarms_gained": _false_alarms_gained(reference, candidate),
        "p_value": mcnemar_p_value(lost, gained),
        "ci95": intervals["f1_3px" if reference.mask is None else "pd"],
        "ci95_of": intervals,
        "pd_at_fa": pd_at_fa(before_curve, after_curve, weights),
        **flips_by_range(targets),
        "targets": targets,
        "false_alarms": _surest_alarms(candidate),
    }


def _surest_alarms(candidate: Evaluation) -> list[dict[str, Any]]:
    """The candidate's false alarms of the highest scores, the largest of equals first.

    Those of a mask are nearly all 1, and Fa counts their pixels.
    """
    alarms = [(image.name, alarm) for image in candidate.images for alarm in image.false_alarms]
    return [
        {
            "image": name,
            "row": round(alarm.row, 3),
            "col": round(alarm.col, 3),
            "area_px": alarm.area_px,
            "score": round(alarm.score, 6),
        }
        for name, alarm in sorted(alarms, key=_sureness, reverse=True)[:ALARMS]
    ]


def _sureness(named: tuple[str, FalseAlarm]) -> tuple[float, float]:
    return round(named[1].score, 3), named[1].area_px or 0.0


def difference(before: float | None, after: float | None) -> float | None:
    """after - before; None where either side is."""
    return None if before is None or after is None else after - before


def score_error(before: Sequence[float], after: Sequence[float]) -> float:
    """Root of the mean squared change of a target's score; 0 without targets."""
    return math.dist(before, after) / math.sqrt(max(1, len(before)))


def mcnemar_p_value(lost: int, gained: int) -> float:
    """Exact two-sided probability of flips at least as one-sided, were both ways as likely."""
    flips = lost + gained
    term = tail = 1  # each binomial coefficient from the one before, and their sum
    for k in range(min(lost, gained)):
        term = term * (flips - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / (1 << flips))


def _check_same_frames(reference: Evaluation, candidate: Evaluation) -> None:
    fix = "evaluate both variants on the same data"
    if reference.protocol != candidate.protocol:
        raise IrstdError(
            f"drift: protocols {reference.protocol} and {candidate.protocol} do not compare; {fix}"
        )
    if len(reference.images) != len(candidate.images):
        raise IrstdError(
            f"drift: {len(reference.images)} frames against {len(candidate.images)}; {fix}"
        )
    for one, other in zip(reference.images, candidate.images, strict=True):
        if _identity(one) != _identity(other):
            raise IrstdError(f"drift: frame {one.name} is not {other.name}, or differs; {fix}")


def _identity(image: ImageResult) -> tuple[Any, ...]:
    places = tuple((target.row, target.col) for target in image.targets)
    return image.name, image.shape, image.mask is None, places


def _target_entry(image: str, before: Target, after: Target) -> dict[str, Any]:
    """One target; decimals beyond any use are cut to keep the file small."""
    return {
        "image": image,
        "row": round(before.row, 3),
        "col": round(before.col, 3),
        "area_px": before.area_px,
        "scr": None if before.scr is None else round(before.scr, 3),
        "score_reference": round(before.score, 6),
        "score_candidate": round(after.score, 6),
        "matched_reference": before.matched,
        "matched_candidate": after.matched,
        "flip": flip_of(before.matched, after.matched),
    }


def _false_alarms_gained(reference: Evaluation, candidate: Evaluation) -> int:
    """False alarms of the candidate with none of the reference within 3 px."""
    return sum(
        _far_from_all(other.false_alarms, one.false_alarms)
        for one, other in zip(reference.images, candidate.images, strict=True)
    )


def _far_from_all(alarms: Sequence[FalseAlarm], known: Sequence[FalseAlarm]) -> int:
    """How many have none of the known within 3 px; some at a time, for there may be thousands."""
    if not alarms or not known:
        return len(alarms)
    ours, theirs = _places(alarms), _places(known)
    step = max(1, DISTANCES // len(known))
    far = [
        (np.hypot(*(ours[:, start : start + step, None] - theirs[:, None])) > NEAR_PX).all(axis=1)
        for start in range(0, len(alarms), step)
    ]
    return int(np.concatenate(far).sum())


def _places(alarms: Sequence[FalseAlarm]) -> npt.NDArray[np.float64]:
    """(2, K): rows and columns."""
    return np.array([(alarm.row, alarm.col) for alarm in alarms], np.float64).T
