"""Curves over thresholds: precision against recall, and Pd against false alarms.

What a curve needs is counted frame by frame, in the one pass that scores the frames. The last
threshold is 1: nothing is above it, so every curve ends with no detection and no false alarm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from irstd_edge.benchmarks.blob_curve import blob_counts
from irstd_edge.benchmarks.matching import match_points
from irstd_edge.benchmarks.targets import NEAR_PX
from irstd_edge.edge.types import Prediction, Sample

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

LOGITS = (
    *np.arange(-4.0, -1.5, 0.25),
    *np.arange(-1.5, 1.5, 0.1),
    *np.arange(1.5, 4.0, 0.25),
    *np.arange(4.0, 11.0, 1.0),
)
"""Steps of log odds, as the scores of a trained network crowd near 0 and near 1; finest where
thresholds are set."""
THRESHOLDS = (*(round(1 / (1 + math.exp(-logit)), 6) for logit in LOGITS), 1.0)
"""Of every curve, lowest first; the threshold of the detector joins them."""
PREDICTED, HITS, FOUND, FALSE_PX = range(4)
"""Columns of a frame's counts: points; points within 3 px of their target; targets by the rule
of Pd; pixels of false blobs. The last two are of masks alone."""


def threshold_to_predict(kind: str, own: float) -> float:
    """At which threshold a curve wants the predictions of a mask or heatmap detector.

    A point detector leaves out its weakest points first, so those of every higher threshold are
    part of what it finds at the lowest. A mask comes with the probabilities it was cut from.
    """
    return own if kind == "mask" else min(THRESHOLDS[0], own)


def thresholds_with(own: float) -> Floats:
    """(T,) `THRESHOLDS` and the detector's own, lowest first."""
    return np.array(sorted({*THRESHOLDS, own}))


def frame_counts(
    sample: Sample, prediction: Prediction, thresholds: Floats, targets: Floats | None
) -> Counts:
    """(T, 4) counts of one frame, as `PREDICTED` and its like name the columns.

    prediction: made at `threshold_to_predict`. targets: (K, 2) centroids of the true blobs, where
    the sample has a mask.
    """
    if prediction.mask is not None:
        return blob_counts(prediction.probability, thresholds, sample.points, targets)
    rows = np.array([(d.row, d.col, d.score) for d in prediction.detections]).reshape(-1, 3)
    taken = match_points(rows, sample.points, NEAR_PX).taken
    counts = np.zeros((len(thresholds), 4), np.int64)
    counts[:, PREDICTED] = _above(rows[:, 2], thresholds)
    counts[:, HITS] = _above(rows[taken[taken >= 0], 2], thresholds)
    return counts


def _above(scores: Floats, thresholds: Floats) -> npt.NDArray[np.intp]:
    return len(scores) - np.searchsorted(np.sort(scores), thresholds, side="right")


@dataclass(frozen=True)
class Curve:
    """The counts of all frames at every threshold."""

    thresholds: Floats
    """(T,) lowest first."""
    own: float
    """The detector's own threshold, which is one of them."""
    frames: Counts
    """(frames, T, 4)"""
    pixels: npt.NDArray[np.int64]
    """(frames,)"""
    targets: npt.NDArray[np.int64]
    """(frames,) by the rule of Pd."""
    points: npt.NDArray[np.int64]
    """(frames,) true points; labels of both kinds need not hold as many blobs."""
    of_masks: bool
    """Pd and Fa by blobs and pixels; else by points."""

    @property
    def found(self) -> Counts:
        """(frames, T): targets found, by the rule of this kind of detector."""
        return self.frames[:, :, FOUND if self.of_masks else HITS]

    @property
    def false(self) -> Counts:
        """(frames, T): false-alarm pixels, or points."""
        if self.of_masks:
            return self.frames[:, :, FALSE_PX]
        return np.asarray(self.frames[:, :, PREDICTED] - self.frames[:, :, HITS])

    @property
    def fa_per_mpx(self) -> Floats:
        """(T,)"""
        return np.asarray(1e6 * self.false.sum(axis=0) / self.pixels.sum())

    def to_json(self) -> dict[str, Sequence[float | None]]:
        """Lists of one length, lowest threshold first; null where a ratio has no denominator."""
        predicted, hits = self.frames[:, :, PREDICTED].sum(axis=0), self.frames[:, :, HITS].sum(0)
        targets, points = (
            np.full(len(self.thresholds), each.sum()) for each in (self.targets, self.points)
        )
        return {
            "threshold": [float(threshold) for threshold in self.thresholds],
            "precision_3px": _ratios(hits, predicted),
            "recall_3px": _ratios(hits, points),
            "pd": _ratios(self.found.sum(axis=0), targets),
            "fa_per_mpx": [round(float(value), 6) for value in self.fa_per_mpx],
        }


def curve_of(
    frames: Sequence[Counts],
    pixels: Sequence[int],
    targets: Sequence[int],
    points: Sequence[int],
    own: float,
    of_masks: bool,
) -> Curve:
    """The curve of a data set from the counts of its frames, in their order."""
    sizes, truths, marks = (np.array(each, np.int64) for each in (pixels, targets, points))
    return Curve(thresholds_with(own), own, np.stack(frames), sizes, truths, marks, of_masks)


def _ratios(numerators: Counts, denominators: Counts) -> list[float | None]:
    pairs = zip(numerators.tolist(), denominators.tolist(), strict=True)
    return [round(one / all_, 6) if all_ else None for one, all_ in pairs]
