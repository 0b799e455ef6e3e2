"""What became of each true target of a frame, and which predictions are none."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from irstd_edge.benchmarks.clutter import signal_to_clutter
from irstd_edge.benchmarks.matching import (
    IndexArray,
    MaskMatch,
    PointMatch,
    Points,
    components_of_mask,
)
from irstd_edge.edge.types import BoolArray, FloatArray, Prediction, Sample

NEAR_PX = 3.0
"""Radius of point matches, of a target's score, and of "the same false alarm"."""

Place = tuple[BoolArray, int | None]
"""Where a target is: its pixels (H, W), and their number where it was labelled."""


@dataclass(frozen=True)
class Target:
    """A true target and what became of it."""

    row: float
    col: float
    area_px: int | None
    """None where only its point is known."""
    scr: float | None
    """Signal-to-clutter ratio; None where its background has no variation."""
    matched: bool
    """Masks: by the rule of Pd. Points: by a detection within 3 px."""
    score: float
    """Highest probability within 3 px, also below the threshold."""


@dataclass(frozen=True)
class FalseAlarm:
    """A predicted blob (masks) or point that is no target."""

    row: float
    col: float
    score: float
    """The highest probability of the blob, or the point's own."""
    area_px: float


def flip_of(before: bool, after: bool) -> str | None:
    """What a change did to a target that was matched before, or after: lost, gained or None."""
    return {(True, False): "lost", (False, True): "gained"}.get((before, after))


def mask_targets(sample: Sample, prediction: Prediction, match: MaskMatch) -> tuple[Target, ...]:
    """The targets of a frame that has masks on both sides, in raster order."""
    truth = match.truth
    places: list[Place] = [
        (truth.labels == k + 1, int(area)) for k, area in enumerate(truth.areas_px)
    ]
    return _targets(sample, prediction, truth.centroids, places, match.taken)


def point_targets(sample: Sample, prediction: Prediction, match: PointMatch) -> tuple[Target, ...]:
    """The targets of a frame where prediction or truth are points, in the order of the labels."""
    points = sample.points.astype(np.float64).reshape(-1, 2)
    return _targets(sample, prediction, points, _places_of_points(sample, points), match.taken)


def false_blobs(prediction: Prediction, match: MaskMatch) -> tuple[FalseAlarm, ...]:
    """The predicted blobs that no target took."""
    blobs = match.predicted
    return tuple(
        FalseAlarm(
            row=float(blobs.centroids[k, 0]),
            col=float(blobs.centroids[k, 1]),
            score=float(prediction.probability[blobs.labels == k + 1].max()),
            area_px=float(blobs.areas_px[k]),
        )
        for k in np.setdiff1d(np.arange(len(blobs.areas_px)), match.taken)
    )


def false_points(prediction: Prediction, match: PointMatch) -> tuple[FalseAlarm, ...]:
    """The detections that no target took."""
    return tuple(
        FalseAlarm(float(d.row), float(d.col), float(d.score), float(d.area_px))
        for k, d in enumerate(prediction.detections)
        if k not in match.taken
    )


def highest_near(probability: FloatArray, stride: int, row: float, col: float) -> float:
    """Highest probability of a cell centred within 3 px of a place; 0 where no cell is.

    Cell (i, j) is centred at row = stride * i + (stride - 1) / 2, and likewise in columns.
    """
    rows = _cells_near(row, probability.shape[0], stride)
    cols = _cells_near(col, probability.shape[1], stride)
    centre = (stride - 1) / 2
    distance = np.hypot(
        stride * np.arange(rows.start, rows.stop)[:, None] + centre - row,
        stride * np.arange(cols.start, cols.stop)[None, :] + centre - col,
    )
    return float(probability[rows, cols].max(where=distance <= NEAR_PX, initial=0.0))


def _cells_near(position: float, cells: int, stride: int) -> slice:
    first, last = ((position + edge - (stride - 1) / 2) / stride for edge in (-NEAR_PX, NEAR_PX))
    start = min(max(math.ceil(first), 0), cells)
    return slice(start, min(max(math.floor(last) + 1, start), cells))


def _targets(
    sample: Sample, prediction: Prediction, truth: Points, places: list[Place], taken: IndexArray
) -> tuple[Target, ...]:
    occupied = np.zeros(sample.frame.shape, bool) if sample.mask is None else sample.mask
    for pixels, _ in places:
        occupied = occupied | pixels
    return tuple(
        Target(
            row=float(row),
            col=float(col),
            area_px=area,
            scr=signal_to_clutter(sample.frame.counts, pixels, occupied),
            matched=bool(by >= 0),
            score=highest_near(prediction.probability, prediction.stride, row, col),
        )
        for (row, col), (pixels, area), by in zip(truth, places, taken, strict=True)
    )


def _places_of_points(sample: Sample, points: Points) -> list[Place]:
    """The nearest blob of the mask within 3 px, else the 3x3 pixels around the point."""
    if sample.mask is None or not sample.mask.any():
        return [(_stamp(sample.frame.shape, point), None) for point in points]
    blobs = components_of_mask(sample.mask)
    places: list[Place] = []
    for point in points:
        distance = np.sqrt(((blobs.centroids - point) ** 2).sum(axis=1))
        k = int(distance.argmin())
        if distance[k] <= NEAR_PX:
            places.append((blobs.labels == k + 1, int(blobs.areas_px[k])))
        else:
            places.append((_stamp(sample.frame.shape, point), None))
    return places


def _stamp(shape: tuple[int, int], point: npt.NDArray[np.float64]) -> BoolArray:
    pixels = np.zeros(shape, bool)
    row, col = (round(float(at)) for at in point)
    pixels[max(row - 1, 0) : max(row + 2, 0), max(col - 1, 0) : max(col + 2, 0)] = True
    return pixels
