"""Copy-paste of targets: more of them, on other backgrounds, from bright to hardly visible.

After Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation Method for Instance
Segmentation", CVPR 2021, and Kisantal et al., "Augmentation for Small Object Detection", 2019; an
infrared target is added to its new background rather than put over it. Needs points alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from irstd_edge.edge.types import FloatArray

CLEAR = 2.0
"""A donor stands out this many standard deviations from its background, so that what is copied
is the target and not its surroundings."""

FAINTEST = 1.5
"""A pasted target stands out at least this many standard deviations: one can learn to see it."""

FAINTEST_OF_SCALE = 0.01
"""And at least this much of full scale."""

GAIN = (0.4, 1.2)
"""Range of contrast of the copy against its donor, log-uniform."""

GAP_PX = 3
"""Least room between the outer edges of two targets."""


@dataclass(frozen=True)
class Patch:
    """A target without its background. All arrays are square, of one odd side."""

    contrast: FloatArray
    """What the target adds to its background, faded out around it."""
    mask: FloatArray
    """0 or 1; all 0 where only the point is known."""
    offset: FloatArray
    """(2,) row, col of the point from the middle pixel."""
    radius: float
    """Of the target, in pixels."""


def cut_target(
    image: FloatArray, mask: FloatArray, points: FloatArray, radii: FloatArray, at: int
) -> Patch | None:
    """Return target number `at` of an (H, W) frame, or None where it would not come out clean.

    The background is the median of the ring around it. None near the border or another target,
    and where the target stands out by no more than `CLEAR` deviations of the ring.
    """
    point, radius = points[at], float(radii[at])
    half = int(np.ceil(2 * radius)) + 4
    row, col = np.rint(point).astype(int)
    if min(row, col) < half or row + half >= image.shape[0] or col + half >= image.shape[1]:
        return None
    apart = np.hypot(*(points - point).T)
    apart[at] = np.inf
    if (apart <= 2 * radius + 4 + radii).any():
        return None
    window = np.s_[row - half : row + half + 1, col - half : col + half + 1]
    offset = (point - (row, col)).astype(np.float32)
    distance = _distance(half, offset)
    ring = image[window][distance > 1.5 * radius + 2]
    contrast = image[window] - np.median(ring)
    core = contrast[distance <= max(radius, 1.0)]
    if not core.size or abs(core.mean()) <= CLEAR * ring.std():
        return None
    fade = np.clip((2 * radius + 4 - distance) / (0.5 * radius + 2), 0, 1)
    own = mask[window] * (distance <= 1.5 * radius + 2)
    return Patch((contrast * fade).astype(np.float32), own.astype(np.float32), offset, radius)


def paste(
    image: FloatArray,
    mask: FloatArray,
    points: FloatArray,
    radii: FloatArray,
    patch: Patch,
    rng: np.random.Generator,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return the frame, mask, points and radii with `patch` added at a random place.

    As they were where that place is too near to another target, or to black or white. The inputs
    are left alone.
    """
    place = rng.integers(0, image.shape)
    gain = np.exp(rng.uniform(*np.log(GAIN)))
    point = place + patch.offset
    apart = np.hypot(*(points - point).T)
    inside = (point > -0.5).all() and (point < np.array(image.shape) - 0.5).all()
    if not inside or (apart < 2 * (radii + patch.radius) + GAP_PX).any():
        return image, mask, points, radii
    here, own = _overlap(place, len(patch.contrast) // 2, image.shape)
    needed = max(FAINTEST * image[here].std(), FAINTEST_OF_SCALE)
    peak = patch.contrast.flat[abs(patch.contrast).argmax()]
    gain = max(gain, needed / abs(peak))
    pasted = np.clip(image[here] + np.float32(gain) * patch.contrast[own], 0, 1)
    added = np.sign(peak) * (pasted - image[here])
    if added.max() < 0.99 * needed:  # it is cut off at black or white
        return image, mask, points, radii
    image, mask = image.copy(), mask.copy()
    image[here] = pasted
    mask[here] = np.maximum(mask[here], patch.mask[own])
    points = np.concatenate((points, point[None])).astype(np.float32)
    return image, mask, points, np.append(radii, patch.radius).astype(np.float32)


def _distance(half: int, offset: FloatArray) -> FloatArray:
    """Return how far each pixel of a square window lies from `offset` off its middle."""
    axis = np.arange(-half, half + 1, dtype=np.float32)
    return np.asarray(np.hypot(axis[:, None] - offset[0], axis[None] - offset[1]), np.float32)


def _overlap(
    place: npt.NDArray[np.int64], half: int, shape: tuple[int, ...]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return where a window around `place` lies in an image, and which part of it does."""
    low = np.maximum(place - half, 0)
    high = np.minimum(place + half + 1, shape)
    here = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    own = tuple(slice(a, b) for a, b in zip(low - place + half, high - place + half, strict=True))
    return here, own
