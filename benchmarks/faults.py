"""What goes wrong in a thermal sensor, put onto frames in the sensor's own counts.

Every fault is seeded by its name and the frame's: the same frame is always spoilt in the same way.
Severities follow the cameras, of a kind that passes acceptance and then ages in the field:

hot-pixels, dead-pixels  0.1 % of the pixels at full scale, at 0. Makers of uncooled cores promise
    0.5 to 1 % bad pixels at most and replace those they know; a tenth of that is what came since.
column-stripes  Each column reads too high or low by a normal error of 3 noises: every column has
    its own amplifier, and drifts away from the last shutter event.
fixed-pattern  Each pixel does, by 2 noises, and slowly over the frame by up to 10: residual
    non-uniformity, up to a few times the temporal noise minutes after a correction.
shutter  The shutter's flag is in front: a uniform frame with the frame's own noise. No target
    can be seen, so nothing can be found or lost in it, and every detection is a false alarm.
saturation  The integration is too long: what was above the 90th percentile is at full scale.
gain-change  The gain falls to half around the frame's darkest counts, as when a camera that
    chooses its own range takes another. The rounding stays, so half of the levels are left.
dropped-rows  A transmission fault: three bands of 2 rows are 0, as lost packets leave them.

A noise is the frame's own, from pixel to pixel (`normalisation.noise_counts`), so that a fault has
the same weight on a sensor of 8 bits and on one of 16.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from irstd_edge.edge.normalisation import noise_counts
from irstd_edge.edge.types import Frame, IrstdError, Sample

BAD_SHARE = 0.001
COLUMN_NOISES = 3.0
PIXEL_NOISES, SLOW_NOISES = 2.0, 10.0
SLOW_CELLS = 4  # to a side, of the slow part
SATURATED_SHARE = 0.1
GAIN = 0.5
BANDS, BAND_ROWS = 3, 2

Counts = npt.NDArray[np.float64]
Fault = Callable[[Frame, np.random.Generator], Counts]
"""A frame and its own generator -> the counts (H, W) that the faulty sensor would give."""


def with_fault(sample: Sample, name: str) -> Sample:
    """The sample as a faulty sensor would see it; without targets behind a shutter.

    Raises IrstdError for a fault that is not in `FAULTS`.
    """
    if name not in FAULTS:
        raise IrstdError(f"fault: {name!r} is not one of {', '.join(FAULTS)}")
    frame = sample.frame
    seen = replace(sample, frame=_with_counts(frame, FAULTS[name](frame, _random(name, frame))))
    return _without_targets(seen) if name in BLIND else seen


def with_noise(sample: Sample, counts: float) -> Sample:
    """The sample with normal noise of a standard deviation of so many counts, from pixel to pixel.

    No fault: every frame has some, and the next frame of the same scene other.
    """
    frame = sample.frame
    noise = _random("noise", frame).normal(0, counts, frame.shape)
    return replace(sample, frame=_with_counts(frame, frame.counts + noise))


def _random(what: str, frame: Frame) -> np.random.Generator:
    seed = sha256(f"{what}/{frame.name}".encode()).digest()[:8]
    return np.random.default_rng(int.from_bytes(seed, "little"))


def _with_counts(frame: Frame, counts: Counts) -> Frame:
    """The frame with what a sensor of its bits and its kind of file makes of these."""
    whole = np.rint(counts).clip(0, 2**frame.bit_depth - 1)
    small = frame.counts.dtype == np.uint8
    return replace(frame, counts=whole.astype(np.uint8) if small else whole.astype(np.uint16))


def _without_targets(sample: Sample) -> Sample:
    mask = None if sample.mask is None else np.zeros_like(sample.mask)
    return replace(sample, mask=mask, points=np.zeros((0, 2), np.float32))


def _hot_pixels(frame: Frame, random: np.random.Generator) -> Counts:
    counts = frame.counts.astype(np.float64)
    counts[random.random(frame.shape) < BAD_SHARE] = 2**frame.bit_depth - 1
    return counts


def _dead_pixels(frame: Frame, random: np.random.Generator) -> Counts:
    counts = frame.counts.astype(np.float64)
    counts[random.random(frame.shape) < BAD_SHARE] = 0
    return counts


def _column_stripes(frame: Frame, random: np.random.Generator) -> Counts:
    errors = random.normal(0, COLUMN_NOISES * noise_counts(frame.counts), frame.shape[1])
    return frame.counts + errors


def _fixed_pattern(frame: Frame, random: np.random.Generator) -> Counts:
    import cv2

    noise = noise_counts(frame.counts)
    cells = random.uniform(-1, 1, (SLOW_CELLS, SLOW_CELLS))
    slow = cv2.resize(cells, frame.shape[::-1], interpolation=cv2.INTER_CUBIC)
    pixels = random.normal(0, PIXEL_NOISES * noise, frame.shape)
    return np.asarray(frame.counts + pixels + SLOW_NOISES * noise * slow, np.float64)


def _shutter(frame: Frame, random: np.random.Generator) -> Counts:
    level = float(np.median(frame.counts))
    noise = random.normal(0, noise_counts(frame.counts), frame.shape)
    return np.asarray(level + noise, np.float64)


def _saturation(frame: Frame, random: np.random.Generator) -> Counts:
    high = max(1.0, float(np.quantile(frame.counts, 1 - SATURATED_SHARE)))
    gain = (2**frame.bit_depth - 1) / high
    return np.asarray(frame.counts * gain, np.float64)


def _gain_change(frame: Frame, random: np.random.Generator) -> Counts:
    low = float(frame.counts.min())
    return np.asarray(low + GAIN * (frame.counts - low), np.float64)


def _dropped_rows(frame: Frame, random: np.random.Generator) -> Counts:
    counts = frame.counts.astype(np.float64)
    for top in random.integers(0, max(1, frame.shape[0] - BAND_ROWS + 1), BANDS):
        counts[top : top + BAND_ROWS] = 0
    return counts


FAULTS: dict[str, Fault] = {
    "hot-pixels": _hot_pixels,
    "dead-pixels": _dead_pixels,
    "column-stripes": _column_stripes,
    "fixed-pattern": _fixed_pattern,
    "shutter": _shutter,
    "saturation": _saturation,
    "gain-change": _gain_change,
    "dropped-rows": _dropped_rows,
}
BLIND = ("shutter",)
"""Nothing can be seen through it."""
