"""Scores on held-out frames, at the threshold that serves them best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from irstd_edge.benchmarks.accuracy import WIDE_PX, score_masks, score_points
from irstd_edge.benchmarks.counts import MaskCounts, PointCounts
from irstd_edge.benchmarks.targets import NEAR_PX
from irstd_edge.edge.types import FloatArray, Frame, IrstdError, Prediction, Sample

THRESHOLDS = tuple(np.round(np.arange(0.05, 0.96, 0.05), 2).tolist())
"""Candidates for the threshold of a heatmap."""

MOST_CHANCE = 0.01
"""F1 that a threshold may be short of the best and still be as good."""

Predict = Callable[[Frame, float], Prediction]
"""(frame, threshold) -> what the network says of it."""


def held_out_scores(predict: Predict, samples: Sequence[Sample]) -> dict[str, Any]:
    """Score a network on held-out frames; `score` is what training maximises.

    Masks: IoU at probability 0.5, as the field reports it. Points: F1 at 3 px, at the
    `best_threshold`, which is returned with it. Where the frames have no targets, `score` is the
    false alarms, less than 0. `operating_points` holds
    [threshold, Pd, Fa per Mpx] of every threshold. Raises IrstdError without samples.
    """
    if not samples:
        raise IrstdError("--data: no frame is held out; list more frames in trainval.txt")
    if predict(samples[0].frame, 0.5).mask is not None:
        return _mask_scores(predict, samples)
    found = [_rows(predict(sample.frame, THRESHOLDS[0])) for sample in samples]
    truth = [sample.points for sample in samples]
    threshold = best_threshold(found, truth)
    near, wide = (_at(threshold, found, truth, radius) for radius in (NEAR_PX, WIDE_PX))
    pixels = sum(sample.frame.counts.size for sample in samples)
    fa_per_mpx = 1e6 * (near.predicted - near.matched) / pixels
    return {
        "score": near.f1 if any(map(len, truth)) else -fa_per_mpx,
        "f1_3px": near.f1,
        "f1_5px": wide.f1,
        "precision_3px": near.precision,
        "recall_3px": near.recall,
        "threshold": threshold,
        "operating_points": [
            [t, c.recall, 1e6 * (c.predicted - c.matched) / pixels]
            for t in THRESHOLDS
            if (c := _at(t, found, truth)).recall is not None
        ],
    }


def best_threshold(found: Sequence[FloatArray], truth: Sequence[FloatArray]) -> float:
    """Return the middle one of the thresholds whose F1 at 3 px is the highest, or nearly so.

    Nearly: by one target of all, and by no more than a point. That much is chance, and the middle
    is farther from where targets are missed and from where false alarms begin.

    `found` holds (K, 3) row, col, score of each frame, `truth` (M, 2) row, col. A detector leaves
    out the weakest detections first, so those of a higher threshold are a part of these.
    """
    scores = [_at(t, found, truth).f1 or 0.0 for t in THRESHOLDS]
    enough = max(scores) - min(MOST_CHANCE, 1 / max(1, sum(len(points) for points in truth)))
    best = [t for t, score in zip(THRESHOLDS, scores, strict=True) if score >= enough]
    return float(best[len(best) // 2])


def _at(
    threshold: float,
    found: Sequence[FloatArray],
    truth: Sequence[FloatArray],
    radius_px: float = NEAR_PX,
) -> PointCounts:
    return score_points([rows[rows[:, 2] > threshold] for rows in found], truth, radius_px)


def _mask_scores(predict: Predict, samples: Sequence[Sample]) -> dict[str, Any]:
    known = [(predict(s.frame, 0.5).probability, s.mask) for s in samples if s.mask is not None]
    truth = [mask for _, mask in known]

    def at(threshold: float) -> MaskCounts:
        return score_masks([p > threshold for p, _ in known], truth)

    counts = at(0.5)
    return {
        "score": counts.iou if any(map(np.any, truth)) else -(counts.fa_per_mpx or 0.0),
        "iou": counts.iou,
        "niou": counts.niou,
        "pd": counts.pd,
        "fa_per_mpx": counts.fa_per_mpx,
        "threshold": 0.5,
        "operating_points": [
            [t, c.pd, c.fa_per_mpx] for t in THRESHOLDS if (c := at(t)).pd is not None
        ],
    }


def _rows(prediction: Prediction) -> FloatArray:
    rows = [(d.row, d.col, d.score) for d in prediction.detections]
    return np.array(rows, np.float32).reshape(-1, 3)
