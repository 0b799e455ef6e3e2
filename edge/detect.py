"""Network outputs -> detections: the one decode that every runtime shares.

mask: blobs of a segmentation net. heatmap: peaks of a point detector, refined by its offset head.
A cell (i, j) of the stride-2 heatmap grid stands for the target at

    row = 2 (i + dy) + 0.5        col = 2 (j + dx) + 0.5        sigma = exp(log sigma) cells
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from irstd_edge.edge.types import DecodeSpec, Detection, FloatArray, IrstdError, Prediction

HEATMAP_STRIDE = 2
"""Pixels of the frame per heatmap cell."""
MAX_OFFSET_CELLS = 1.0
"""A peak's true position lies within its 3x3 neighbourhood: a larger dx or dy is noise."""
LOG_SIGMA_RANGE = (-1.5, 2.5)
"""0.22 to 12.2 cells."""
OUTPUTS = {"mask": ("logits",), "heatmap": ("heatmap", "geometry")}
"""Decode kind -> names of the graph's outputs, in order."""

_LOGIT_LIMIT = np.float32(80.0)  # exp(80) still fits a float32


def predict_from_outputs(
    outputs: Sequence[npt.NDArray[np.floating]], shape: tuple[int, int], decode: DecodeSpec
) -> Prediction:
    """Decode what a network says of one frame.

    outputs: without the batch axis, in the order of `OUTPUTS`. mask: logits (1, H', W').
    heatmap: logits (1, h, w) and geometry (3, h, w) = dx, dy, log sigma, in cells.
    shape: (H, W) of the frame before padding; everything beyond is cropped away.
    Raises IrstdError, naming the output, when one is missing, too small, NaN or infinite.
    """
    stride = HEATMAP_STRIDE if decode.kind == "heatmap" else 1
    grid = (-(-shape[0] // stride), -(-shape[1] // stride))
    maps = _checked(outputs, grid, decode.kind)
    logits = maps[0][0]
    probability = sigmoid(logits)
    above = logits > math.log(decode.threshold / (1.0 - decode.threshold))
    if decode.kind == "mask":
        return Prediction(_blobs(probability, above), probability, stride, above)
    return Prediction(_peaks(logits, above, maps[1], probability, shape), probability, stride, None)


def sigmoid(logits: FloatArray) -> FloatArray:
    """1 / (1 + exp(-x)) in float32, without overflow and with full relative precision near 0."""
    value = np.clip(logits, -_LOGIT_LIMIT, _LOGIT_LIMIT)
    np.negative(value, out=value)
    np.exp(value, out=value)
    value += np.float32(1.0)
    return np.reciprocal(value, out=value)


def _checked(
    outputs: Sequence[npt.NDArray[np.floating]], grid: tuple[int, int], kind: str
) -> list[FloatArray]:
    """The outputs as float32, cropped to the grid (rows, columns) that covers the frame."""
    names = OUTPUTS[kind]
    if len(outputs) != len(names):
        raise IrstdError(
            f"{names[0]}: a {kind} network has the outputs {', '.join(names)}, this one gave "
            f"{len(outputs)}; the manifest's decode kind does not fit the graph: quantize again"
        )
    maps = []
    for name, output, channels in zip(names, outputs, (1, 3), strict=False):
        size = output.shape
        if len(size) != 3 or size[0] != channels or size[1] < grid[0] or size[2] < grid[1]:
            raise IrstdError(
                f"{name}: its shape is {tuple(size)}, the frame needs at least "
                f"({channels}, {grid[0]}, {grid[1]}); pad the frame to the network's stride"
            )
        cropped = np.asarray(output[:, : grid[0], : grid[1]], dtype=np.float32)
        if not np.isfinite(cropped).all():
            raise IrstdError(
                f"{name}: the network gave NaN or infinity; its weights or scales are broken: "
                "check the weights and quantize again"
            )
        maps.append(cropped)
    return maps


def _blobs(probability: FloatArray, above: npt.NDArray[np.bool_]) -> tuple[Detection, ...]:
    """8-connected components: centroid, highest probability, area; best first."""
    count, labels, stats, centroids = cv2.connectedComponentsWithStats(
        above.view(np.uint8), connectivity=8
    )
    best = np.zeros(count, np.float32)
    np.maximum.at(best, labels[above].astype(np.intp), probability[above])
    order = 1 + np.argsort(-best[1:], kind="stable")
    areas = stats[:, cv2.CC_STAT_AREA]
    return tuple(
        Detection(float(centroids[k, 1]), float(centroids[k, 0]), float(best[k]), float(areas[k]))
        for k in order
    )


def _peaks(
    logits: FloatArray,
    above: npt.NDArray[np.bool_],
    geometry: FloatArray,
    probability: FloatArray,
    shape: tuple[int, int],
) -> tuple[Detection, ...]:
    """Local maxima with sub-pixel position and size; best first, suppressed by scale.

    area_px is the disc whose radius is the net's sigma: pi * (sigma in pixels) ** 2.
    """
    rows, cols = _local_maxima(logits, above)
    order = np.argsort(-logits[rows, cols], kind="stable")
    rows, cols = rows[order], cols[order]
    dx, dy, log_sigma = geometry[:, rows, cols].astype(np.float64)
    row = _position(rows, dy, shape[0])
    col = _position(cols, dx, shape[1])
    sigma_px = HEATMAP_STRIDE * np.exp(np.clip(log_sigma, *LOG_SIGMA_RANGE))
    scores = probability[rows, cols]
    return tuple(
        Detection(float(row[k]), float(col[k]), float(scores[k]), math.pi * float(sigma_px[k]) ** 2)
        for k in _suppress(row, col, sigma_px)
    )


def _local_maxima(
    logits: FloatArray, above: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """(rows, cols) of 3x3 maxima above the threshold; of a plateau its first cell in raster order.

    Neighbouring maxima are equal by definition, so a plateau is a connected component of them.
    """
    highest = cv2.dilate(logits, np.ones((3, 3), np.uint8))
    maxima = above & (logits == highest)
    rows, cols = np.nonzero(maxima)
    if len(rows) > 1:
        _, labels = cv2.connectedComponents(maxima.view(np.uint8), connectivity=8)
        _, first = np.unique(labels[rows, cols], return_index=True)
        rows, cols = rows[first], cols[first]
    return rows, cols


def _position(
    cells: npt.NDArray[np.intp], offset: npt.NDArray[np.float64], size_px: int
) -> npt.NDArray[np.float64]:
    """Cells and their offsets -> pixels, kept inside the frame."""
    offset = np.clip(offset, -MAX_OFFSET_CELLS, MAX_OFFSET_CELLS)
    return np.clip(HEATMAP_STRIDE * (cells + offset) + 0.5, 0.0, size_px - 1.0)


def _suppress(
    row: npt.NDArray[np.float64], col: npt.NDArray[np.float64], sigma_px: npt.NDArray[np.float64]
) -> list[int]:
    """Indices that survive, strongest first (the order they come in).

    A peak silences the weaker ones closer than its own sigma, and at least one cell (2 px): two
    peaks of one target, whose offsets point to the same place, become one; close targets stay two.
    """
    alive = np.ones(len(row), bool)
    kept = []
    for k, radius in enumerate(np.maximum(sigma_px, float(HEATMAP_STRIDE))):
        if alive[k]:
            kept.append(k)
            alive &= np.hypot(row - row[k], col - col[k]) >= radius
    return kept
