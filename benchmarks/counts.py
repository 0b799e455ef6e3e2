"""The counts behind every accuracy figure, of one frame or of many.

Counts add. Ratios are derived, and None where the denominator is zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


def _values(counts: object) -> Iterable[Any]:
    """Of its fields; `dataclasses.astuple` copies deeply, which takes most of a sum's time."""
    return vars(counts).values()


def _ratio(numerator: float, denominator: float) -> float | None:
    return numerator / denominator if denominator else None


@dataclass(frozen=True)
class MaskCounts:
    """What masks are judged by, of one frame or of many."""

    pixels: int = 0
    intersection_px: int = 0
    union_px: int = 0
    iou_sum: float = 0.0
    """Of the per-frame IoUs."""
    iou_frames: int = 0
    """Frames with truth or prediction; the others have no IoU."""
    targets: int = 0
    matched: int = 0
    false_px: int = 0
    """Area of the predicted blobs that match no true one."""
    false_legacy_px: int = 0
    """The same, less the blobs whose area happens to be that of a matched one in their frame."""

    def __add__(self, other: MaskCounts) -> MaskCounts:
        """Those of both together."""
        return MaskCounts(*(a + b for a, b in zip(_values(self), _values(other), strict=True)))

    @property
    def iou(self) -> float | None:
        """Foreground IoU, pooled over all frames."""
        return _ratio(self.intersection_px, self.union_px)

    @property
    def niou(self) -> float | None:
        """Mean of the per-frame IoUs, without frames that have neither truth nor prediction."""
        return _ratio(self.iou_sum, self.iou_frames)

    @property
    def pd(self) -> float | None:
        """Probability of detection: matched of true targets."""
        return _ratio(self.matched, self.targets)

    @property
    def fa_per_mpx(self) -> float | None:
        """False-alarm pixels per 10^6 pixels."""
        return _ratio(1e6 * self.false_px, self.pixels)

    @property
    def fa_legacy_per_mpx(self) -> float | None:
        """False alarms as the authors of MSHNet count them, to compare with papers only."""
        return _ratio(1e6 * self.false_legacy_px, self.pixels)


@dataclass(frozen=True)
class PointCounts:
    """What points are judged by, of one frame or of many."""

    predicted: int = 0
    truth: int = 0
    matched: int = 0
    distance_sum_px: float = 0.0
    """Over the matched pairs."""

    def __add__(self, other: PointCounts) -> PointCounts:
        """Those of both together."""
        return PointCounts(*(a + b for a, b in zip(_values(self), _values(other), strict=True)))

    @property
    def precision(self) -> float | None:
        """Matched of predicted points."""
        return _ratio(self.matched, self.predicted)

    @property
    def recall(self) -> float | None:
        """Matched of true points."""
        return _ratio(self.matched, self.truth)

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall."""
        return _ratio(2 * self.matched, self.predicted + self.truth)

    @property
    def position_px(self) -> float | None:
        """Mean distance of the matched points from their targets."""
        return _ratio(self.distance_sum_px, self.matched)
