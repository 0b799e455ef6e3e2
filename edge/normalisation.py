"""Counts of a sensor -> what a network takes, 0..1: policies that a bundle freezes.

A scene seldom fills a sensor's range: a target 300 counts above its background is half a percent
of 16 bits, and no network trained on 8-bit pictures sees it. `percentile` stretches the frame as
those pictures were, `local-contrast` every neighbourhood of it. Both stop where the sensor's own
noise would be stretched into structure, so a shutter frame stays flat. The policy looks at whole
frames: the tiles of a frame share one stretch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from irstd_edge.edge.types import (
    CountArray,
    FloatArray,
    Frame,
    InputSpec,
    IrstdError,
    ModelSpec,
)

FULL_SCALE, PERCENTILE, LOCAL_CONTRAST = "full-scale", "percentile", "local-contrast"
BY_DEPTH = "by-depth"
NORMALISATIONS = (FULL_SCALE, PERCENTILE, LOCAL_CONTRAST, BY_DEPTH)
"""by-depth: full-scale for frames of 8 bits, which are pictures already, else percentile."""

SHARES = (0.01, 0.99)
"""Of the pixels at or below the ends of a frame's range: a few dead or hot ones don't move them."""
LOW, HIGH = 0.2, 0.7
"""Where these ends go: the middle half of NUDT-SIRST's frames, with room for what is brighter."""
NOISES_PER_RANGE = 40
"""Least width of the range, in standard deviations of the noise: it stays at 0.0125 of 1."""
ROUNDING = 12**-0.5
"""Noise of rounding to whole counts: a frame cannot have less."""
LOCAL_PX = 65
"""Side of the square that a pixel of local-contrast is held against."""
DEVIATIONS = 16
"""Local standard deviations from 0 to 1."""
LOCAL_NOISES = 4
"""Least local deviation, in standard deviations of the noise."""
MIDDLE = (LOW + HIGH) / 2

BAND_ROWS = 256
"""Statistics go over a frame in bands, so that a large one needs no copies of itself."""

Stretch = Callable[[slice, slice], FloatArray]
"""(rows, columns) of a frame -> that part of it in 0..1."""


@dataclass(frozen=True)
class Range:
    """The counts that become `LOW` to `HIGH`."""

    middle: float
    width: float


def stretch_of(frame: Frame, spec: InputSpec) -> Stretch:
    """How the whole frame is stretched, to be asked for any part of it. Raises IrstdError."""
    policy = policy_of(frame, spec)
    if policy == LOCAL_CONTRAST:
        noise = noise_counts(frame.counts)
        return lambda rows, cols: _local_contrast(frame.counts, rows, cols, noise)
    if policy == PERCENTILE:
        ends = range_of(frame.counts)
        return lambda rows, cols: _stretched(frame.counts[rows, cols], ends)
    full = np.float32(2**frame.bit_depth - 1)
    return lambda rows, cols: frame.counts[rows, cols].astype(np.float32) / full


def policy_of(frame: Frame, spec: InputSpec) -> str:
    """The policy for this frame, `by-depth` resolved. Raises IrstdError for an unknown one."""
    if spec.normalisation not in NORMALISATIONS:
        raise IrstdError(
            f"normalisation: {spec.normalisation!r} is not known, use one of "
            f"{', '.join(NORMALISATIONS)}"
        )
    if spec.normalisation != BY_DEPTH:
        return spec.normalisation
    return FULL_SCALE if frame.bit_depth == 8 else PERCENTILE


def with_normalisation(spec: ModelSpec, name: str | None) -> ModelSpec:
    """The spec with another policy, or as it is for None. Raises IrstdError naming --normalise."""
    if name is None:
        return spec
    if name not in NORMALISATIONS:
        known = ", ".join(NORMALISATIONS)
        raise IrstdError(f"--normalise: {name!r} is not known, use one of {known}")
    return replace(spec, input=replace(spec.input, normalisation=name))


def counts_per_unit(frame: Frame, spec: InputSpec) -> float:
    """Counts of the sensor that 0..1 stands for; of local-contrast the median over the frame."""
    policy = policy_of(frame, spec)
    if policy == FULL_SCALE:
        return float(2**frame.bit_depth - 1)
    if policy == PERCENTILE:
        return range_of(frame.counts).width / (HIGH - LOW)
    rows, cols = (slice(0, side) for side in frame.shape)
    _, deviation = _local_figures(frame.counts, rows, cols)
    least = LOCAL_NOISES * noise_counts(frame.counts)
    return DEVIATIONS * float(np.median(np.maximum(deviation, least)))


def range_of(counts: CountArray) -> Range:
    """The percentiles of a frame (H, W), no closer than its noise allows."""
    levels = sum(
        (np.bincount(band.ravel(), minlength=1 << 16) for band in _bands(counts, 0)),
        np.zeros(1 << 16, np.int64),
    )
    low, high = (_level_at(levels, share) for share in SHARES)
    width = max(high - low, NOISES_PER_RANGE * noise_counts(counts))
    return Range((low + high) / 2, width)


def noise_counts(counts: CountArray) -> float:
    """Standard deviation of the noise from pixel to pixel, at least that of rounding.

    From the median of |a - b - c + d| over squares of 2x2: edges and slopes cancel, targets are
    too few to move a median, and that of a normal distribution is 0.6745 of its deviation, which
    is twice that of a pixel.
    """
    sizes = np.zeros(1 << 17, np.int64)
    for band in _bands(counts, 1):
        x = band.astype(np.int32)
        second = x[:-1, :-1] - x[1:, :-1] - x[:-1, 1:] + x[1:, 1:]
        sizes += np.bincount(np.abs(second).ravel(), minlength=1 << 17)
    if not sizes.any():  # a single row or column
        return ROUNDING
    return max(ROUNDING, _level_at(sizes, 0.5) / (2 * 0.6745))


def _bands(counts: CountArray, overlap: int) -> Iterator[CountArray]:
    for top in range(0, counts.shape[0], BAND_ROWS):
        yield counts[top : top + BAND_ROWS + overlap]


def _level_at(levels: npt.NDArray[np.int64], share: float) -> int:
    """The lowest level that this share of a histogram is at or below."""
    sums = np.cumsum(levels)
    return int(np.searchsorted(sums, share * float(sums[-1])))


def _stretched(counts: CountArray, ends: Range) -> FloatArray:
    gain = np.float32((HIGH - LOW) / ends.width)
    image = (counts.astype(np.float32) - np.float32(ends.middle)) * gain + np.float32(MIDDLE)
    return np.asarray(image.clip(0, 1), np.float32)


def _local_contrast(counts: CountArray, rows: slice, cols: slice, noise: float) -> FloatArray:
    mean, deviation = _local_figures(counts, rows, cols)
    least = np.maximum(deviation, LOCAL_NOISES * noise)
    image = (counts[rows, cols] - mean) / (DEVIATIONS * least) + MIDDLE
    return np.asarray(image.clip(0, 1), np.float32)


def _local_figures(
    counts: CountArray, rows: slice, cols: slice
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and standard deviation of the square around each pixel of a part of the frame.

    The frame goes on as its mirror image, and the part knows the frame around it.
    """
    import cv2

    reach = LOCAL_PX // 2
    sides = list(zip((rows, cols), counts.shape, strict=True))
    spans = [slice(max(0, part.start - reach), part.stop + reach) for part, _ in sides]
    margins = [
        (max(0, reach - part.start), max(0, min(part.stop, side) + reach - side))
        for part, side in sides
    ]
    around = np.pad(counts[spans[0], spans[1]].astype(np.float64), margins, mode="symmetric")
    size, inner = (LOCAL_PX, LOCAL_PX), np.s_[reach:-reach, reach:-reach]
    mean = np.asarray(cv2.boxFilter(around, -1, size)[inner], np.float64)
    square = np.asarray(cv2.sqrBoxFilter(around, -1, size)[inner], np.float64)
    return mean, np.asarray(np.sqrt(np.maximum(square - mean**2, 0)), np.float64)
