"""Accuracy of a detector: scores of masks and points, and the evaluation of whole data sets.

IoU and nIoU are of the foreground; Pd and Fa follow MSHNet and DNANet; point scores are
micro-averaged over a score-ordered greedy one-to-one matching.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from irstd_edge.benchmarks.counts import MaskCounts, PointCounts
from irstd_edge.benchmarks.curves import Counts, Curve, curve_of, frame_counts, thresholds_with
from irstd_edge.benchmarks.matching import MaskMatch, match_masks, match_points
from irstd_edge.benchmarks.targets import (
    NEAR_PX,
    FalseAlarm,
    Target,
    false_blobs,
    false_points,
    mask_targets,
    point_targets,
)
from irstd_edge.edge.types import BoolArray, Frame, IrstdError, Prediction, Sample, Skip

WIDE_PX = 5.0
"""The radius that published F1 figures of point detectors most likely use."""

METRICS = (
    "iou",
    "niou",
    "pd",
    "fa_per_mpx",
    "fa_legacy_per_mpx",
    "precision_3px",
    "recall_3px",
    "f1_3px",
    "precision_5px",
    "recall_5px",
    "f1_5px",
    "position_px",
)
"""The ratios of an `accuracy` object."""
MASK_METRICS = ("iou", "niou", "fa_legacy_per_mpx")
"""Those that only masks have."""

Predict = Callable[[Frame], Prediction]
"""Frame -> what the network says of it."""

AHEAD_PX = 2**25
"""Pixels read ahead so that frames of equal size are predicted one after the other (512 frames of
256x256): a runtime that compiles per input size then does so once per size."""


def score_masks(predicted: Sequence[BoolArray], truth: Sequence[BoolArray]) -> MaskCounts:
    """Score bool (H, W) masks, frame by frame; IrstdError where two sizes differ."""
    pairs = zip(predicted, truth, strict=True)
    return sum((match_masks(p, t).counts for p, t in pairs), MaskCounts())


def score_points(
    predicted: Sequence[npt.NDArray[np.floating]],
    truth: Sequence[npt.NDArray[np.floating]],
    radius_px: float,
) -> PointCounts:
    """Score (K, 3) row, col, score against (M, 2) row, col, frame by frame.

    Best score first, each detection takes the nearest unused target at most `radius_px` away.
    """
    pairs = zip(predicted, truth, strict=True)
    return sum((match_points(p, t, radius_px).counts for p, t in pairs), PointCounts())


@dataclass(frozen=True)
class ImageResult:
    """The raw result of one frame."""

    name: str
    shape: tuple[int, int]
    """(height, width) in pixels."""
    mask: MaskCounts | None
    """None where prediction or truth are points."""
    points_3px: PointCounts
    points_5px: PointCounts
    targets: tuple[Target, ...]
    false_alarms: tuple[FalseAlarm, ...]
    distances_px: tuple[float, ...] = ()
    """Of the points matched within 3 px."""
    curve: Counts | None = None
    """What the curves need of it; None where none was asked for."""


@dataclass(frozen=True)
class Evaluation:
    """The raw results of a data set, in its order."""

    protocol: str
    """native or paper256: how frames were brought to the network. Not comparable."""
    images: tuple[ImageResult, ...]
    skipped: tuple[Skip, ...] = ()
    threshold: float | None = None
    """Of the detections, where curves were asked for."""

    @property
    def curve(self) -> Curve | None:
        """Over all frames; None unless `evaluate` was given the threshold."""
        counts = [image.curve for image in self.images if image.curve is not None]
        if self.threshold is None or len(counts) < len(self.images):
            return None
        pixels = [image.shape[0] * image.shape[1] for image in self.images]
        targets = [len(image.targets) for image in self.images]
        points = [image.points_3px.truth for image in self.images]
        return curve_of(counts, pixels, targets, points, self.threshold, self.mask is not None)

    @property
    def mask(self) -> MaskCounts | None:
        """Sum over all frames; None unless every frame has masks on both sides."""
        counts = [image.mask for image in self.images if image.mask is not None]
        return sum(counts, MaskCounts()) if len(counts) == len(self.images) else None

    @property
    def points_3px(self) -> PointCounts:
        """Sum over all frames, matched within 3 px."""
        return sum((image.points_3px for image in self.images), PointCounts())

    @property
    def points_5px(self) -> PointCounts:
        """Sum over all frames, matched within 5 px."""
        return sum((image.points_5px for image in self.images), PointCounts())

    @property
    def position_median_px(self) -> float | None:
        """Median distance of the points matched within 3 px; `position_px` is their mean."""
        distances = [each for image in self.images for each in image.distances_px]
        return median(distances) if distances else None

    @property
    def pixels(self) -> int:
        """Of all frames together."""
        return sum(height * width for height, width in (image.shape for image in self.images))

    def metrics(self) -> dict[str, float | None]:
        """Every one of `METRICS`; without masks Pd is the recall and a false alarm is one px."""
        near, wide, mask = self.points_3px, self.points_5px, self.mask
        alarms = near.predicted - near.matched
        return {
            "iou": mask.iou if mask else None,
            "niou": mask.niou if mask else None,
            "pd": mask.pd if mask else near.recall,
            "fa_per_mpx": mask.fa_per_mpx if mask else 1e6 * alarms / self.pixels,
            "fa_legacy_per_mpx": mask.fa_legacy_per_mpx if mask else None,
            "precision_3px": near.precision,
            "recall_3px": near.recall,
            "f1_3px": near.f1,
            "precision_5px": wide.precision,
            "recall_5px": wide.recall,
            "f1_5px": wide.f1,
            "position_px": near.position_px,
        }

    @property
    def frames_sha256(self) -> str:
        """Of names, sizes and targets' places: two evaluations of the same data share it."""
        frames = [
            (i.name, i.shape, [(round(float(t.row), 3), round(float(t.col), 3)) for t in i.targets])
            for i in self.images
        ]
        return sha256(json.dumps(frames).encode()).hexdigest()

    def accuracy(self) -> dict[str, Any]:
        """The `accuracy` object of bench.json; "undefined" names the metrics that apply but fail.

        A metric fails where its denominator is zero: no target, no detection, no match.
        `threshold` and `curve` are there where `evaluate` was given the threshold.
        """
        metrics, curve = self.metrics(), self.curve
        curves = {"threshold": curve.own, "curve": curve.to_json()} if curve else {}
        applies = [name for name in METRICS if self.mask or name not in MASK_METRICS]
        return {
            "protocol": self.protocol,
            "images": len(self.images),
            "skipped": [{"name": skip.name, "reason": skip.reason} for skip in self.skipped],
            "targets": sum(len(image.targets) for image in self.images),
            "frames_sha256": self.frames_sha256,
            **metrics,
            "position_median_px": self.position_median_px,
            "undefined": [name for name in applies if metrics[name] is None],
            **curves,
        }


def evaluate(
    samples: Iterable[Sample | Skip],
    predict: Predict,
    protocol: str,
    threshold: float | None = None,
    done: Callable[[int], None] = lambda count: None,
) -> Evaluation:
    """Predict every sample once and keep the raw results.

    threshold: of the detections that are scored; then `predict` is to give them from
    `threshold_to_predict` on, and the evaluation holds curves. None takes all, without curves.
    done: called with the number of samples that are through. Frames are predicted in parts, each
    from the smallest to the largest. IrstdError if no frame could be used, or if a predicted mask
    has not its frame's size.
    """
    images: list[ImageResult] = []
    skipped: list[Skip] = []
    for part in _parts(samples):
        skips = [each for each in part if isinstance(each, Skip)]
        frames = [each for each in part if isinstance(each, Sample)]
        skipped += skips
        results: dict[int, ImageResult] = {}
        for at in sorted(range(len(frames)), key=lambda k: frames[k].frame.shape):
            results[at] = _scored(frames[at], predict, threshold)
            done(len(images) + len(skipped) + len(results))
        images += [results[at] for at in range(len(frames))]
    if not images:
        why = f"; {skipped[0].name}: {skipped[0].reason}" if skipped else ""
        raise IrstdError(f"data: none of {len(skipped)} frames can be used{why}")
    return Evaluation(protocol, tuple(images), tuple(skipped), threshold)


def _parts(samples: Iterable[Sample | Skip]) -> Iterator[list[Sample | Skip]]:
    """Cut a series into parts of `AHEAD_PX`, or of one frame that is larger."""
    part: list[Sample | Skip] = []
    pixels = 0
    for sample in samples:
        part.append(sample)
        pixels += sample.frame.counts.size if isinstance(sample, Sample) else 0
        if pixels >= AHEAD_PX:
            yield part
            part, pixels = [], 0
    if part:
        yield part


def _scored(sample: Sample, predict: Predict, threshold: float | None) -> ImageResult:
    prediction, counts, pair = predict(sample.frame), None, None
    if prediction.mask is not None and sample.mask is not None:
        pair = match_masks(prediction.mask, sample.mask)
    if threshold is not None:
        blobs = None if pair is None else pair.truth.centroids
        counts = frame_counts(sample, prediction, thresholds_with(threshold), blobs)
        prediction = _cut(prediction, threshold)
    return replace(_image_result(sample, prediction, pair), curve=counts)


def _cut(prediction: Prediction, threshold: float) -> Prediction:
    """Without the points that are not above the threshold; masks are made at their own."""
    if prediction.mask is not None:
        return prediction
    kept = tuple(each for each in prediction.detections if each.score > threshold)
    return replace(prediction, detections=kept)


def _image_result(sample: Sample, prediction: Prediction, pair: MaskMatch | None) -> ImageResult:
    found = np.array([(d.row, d.col, d.score) for d in prediction.detections]).reshape(-1, 3)
    near = match_points(found, sample.points, NEAR_PX)
    if pair is not None:
        targets = mask_targets(sample, prediction, pair)
        false_alarms = false_blobs(prediction, pair)
    else:
        targets = point_targets(sample, prediction, near)
        false_alarms = false_points(prediction, near)
    return ImageResult(
        name=sample.frame.name,
        shape=sample.frame.shape,
        mask=None if pair is None else pair.counts,
        points_3px=near.counts,
        points_5px=match_points(found, sample.points, WIDE_PX).counts,
        targets=targets,
        false_alarms=false_alarms,
        distances_px=near.distances_px,
    )
