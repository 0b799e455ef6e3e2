"""What p2p learns from: a point for each target, and its scale as measured in the frame."""

from __future__ import annotations

import cv2
import numpy as np

from irstd_edge.edge.detect import HEATMAP_STRIDE as STRIDE
from irstd_edge.edge.detect import LOG_SIGMA_RANGE
from irstd_edge.edge.types import FloatArray

WINDOW_PX = 8
"""Half the side of the window in which a target's extent is measured."""

REACH = 0.75
"""Cells this near to a target are all its own, in cells. Where its centre lies between cells no
network can know which is meant: with one cell alone each of two had a probability of a half, and
each of four a quarter."""

FAR = 12
"""Cells beyond which no target is felt: with the largest sigma, 2, what is left there of its heat
is 1.5e-8, which float32 cannot take from 1."""


def radii_px(image: FloatArray, points: FloatArray) -> FloatArray:
    """Return (M,) the radius of the disc that covers what stands out around each point.

    A pixel stands out if it differs from the window's median by over half of what the point
    does, to the same side, and is connected with it. Needs no mask: (H, W) frame, (M, 2) points.
    """
    return np.array([_radius_px(image, row, col) for row, col in points], np.float32)


def _radius_px(image: FloatArray, row: float, col: float) -> float:
    top, left = (max(0, round(float(x)) - WINDOW_PX) for x in (row, col))
    window = image[top : top + 2 * WINDOW_PX + 1, left : left + 2 * WINDOW_PX + 1]
    contrast = window - np.median(window)
    i = min(max(round(float(row)) - top, 0), window.shape[0] - 1)
    j = min(max(round(float(col)) - left, 0), window.shape[1] - 1)
    near = contrast[max(0, i - 1) : i + 2, max(0, j - 1) : j + 2]
    peak = near.flat[np.abs(near).argmax()]
    stands_out = (contrast * np.sign(peak) > abs(peak) / 2).astype(np.uint8)
    _, parts = cv2.connectedComponents(stands_out, connectivity=8)
    own = parts[max(0, i - 1) : i + 2, max(0, j - 1) : j + 2]
    area = np.isin(parts, own[own > 0]).sum()
    return float(np.sqrt(max(area, 1) / np.pi))


def render_points(points: FloatArray, radii: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """Return the target (5, H/2, W/2): heatmap, dx, dy, log sigma, and where those three apply.

    Zhou et al., "Objects as Points", 2019, section 3, with three changes: sigma follows the
    measured scale but never falls under a cell (their rule gives 1/6 px to a 3x3 target), every
    cell within `REACH` is the target's own, and the 3x3 cells around a target all learn its
    place, for the peak may fall on any of them.
    """
    h, w = shape[0] // STRIDE, shape[1] // STRIDE
    target = np.zeros((5, h, w), np.float32)
    nearest = np.full((h, w), np.inf, np.float32)
    rows, cols = np.arange(h, dtype=np.float32)[:, None], np.arange(w, dtype=np.float32)[None]
    for (row, col), radius in zip(points, radii / STRIDE, strict=True):
        y, x = (row - 0.5) / STRIDE, (col - 0.5) / STRIDE  # centre of cell 0 lies at 0.5 px
        i, j = min(max(round(float(y)), 0), h - 1), min(max(round(float(x)), 0), w - 1)
        part = (slice(max(0, i - FAR), i + FAR + 1), slice(max(0, j - FAR), j + FAR + 1))
        down, right = y - rows[part[0]], x - cols[:, part[1]]
        distance = down**2 + right**2
        sigma = np.clip(0.75 + 0.4 * radius, 1.0, 2.0)
        heat = np.exp(-distance / (2 * sigma**2))
        heat[distance <= REACH**2] = 1
        cell = (np.abs(rows[part[0]] - i), np.abs(cols[:, part[1]] - j))
        heat[np.maximum(*cell) == 0] = 1  # a point on the border may lie farther from every cell
        np.maximum(target[0][part], heat, out=target[0][part])
        own = (np.maximum(*cell) <= 1) & (distance < nearest[part])
        nearest[part][own] = distance[own]
        log_sigma = np.clip(np.log(max(radius, 1e-3)), *LOG_SIGMA_RANGE)
        for channel, value in enumerate((right, down, log_sigma), start=1):
            view = target[channel][part]
            view[own] = np.broadcast_to(value, own.shape)[own]
        target[4][part][own] = 1
    return target
