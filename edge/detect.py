"""Network outputs -> detections: the one decode that every runtime shares.

mask: blobs of a segmentation net. heatmap: peaks of a point detector, refined by its offset head.
A cell (i, j) of the stride-2 heatmap grid stands for the target at

    row = 2 (i + dy) + 0.5        col = 2 (j + dx) + 0.5        sigma = exp(log sigma) cells
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from irstd_edge.edge.components import Components
from irstd_edge.edge.types import (
    BoolArray,
    DecodeSpec,
    Detection,
    FloatArray,
    IrstdError,
    Prediction,
)

HEATMAP_STRIDE = 2
"""Pixels of the frame per heatmap cell."""
SLACK_PX = 1e-6
"""Of distances, which carry rounding errors."""
MAX_OFFSET_CELLS = 1.0
"""A peak's true position lies within its 3x3 neighbourhood: a larger dx or dy is noise."""
LOG_SIGMA_RANGE = (-1.5, 2.5)
"""Limits of the predicted log sigma: 0.22 to 12.2 cells, whatever an unseen frame brings."""
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
    maps = _checked(outputs, _grid(shape, decode.kind), decode.kind)
    found = _finder(shape, decode)
    mask = found.add(maps)
    return Prediction(found.detections(), sigmoid(maps[0][0]), _stride(decode.kind), mask)


def detections_from_strips(
    strips: Iterable[Sequence[npt.NDArray[np.floating]]],
    shape: tuple[int, int],
    decode: DecodeSpec,
) -> tuple[Detection, ...]:
    """The detections of `predict_from_outputs`, of outputs that come by strips of rows.

    strips: from the top of the frame down, each of all outputs; together they cover it. Two of them
    are held at a time, so that memory does not grow with the height of the frame.
    """
    rows, cols = _grid(shape, decode.kind)
    found = _finder(shape, decode)
    for outputs in strips:
        height = min(rows, outputs[0].shape[1])
        found.add(_checked(outputs, (height, cols), decode.kind))
        rows -= height
    if rows:
        raise ValueError(f"the strips end {rows} rows above the end of the frame")
    return found.detections()


def _stride(kind: str) -> int:
    return HEATMAP_STRIDE if kind == "heatmap" else 1


def _grid(shape: tuple[int, int], kind: str) -> tuple[int, int]:
    """Rows and columns of cells that cover a frame (H, W)."""
    stride = _stride(kind)
    return -(-shape[0] // stride), -(-shape[1] // stride)


def _finder(shape: tuple[int, int], decode: DecodeSpec) -> _Blobs | _Peaks:
    least = math.log(decode.threshold / (1.0 - decode.threshold))
    return _Blobs(least) if decode.kind == "mask" else _Peaks(least, shape)


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


class _Blobs:
    """8-connected components above the threshold: centroid, highest probability, area."""

    def __init__(self, least: float) -> None:
        self._least = least
        self._row = 0
        """Of the frame, where the next strip begins."""
        self._components = Components()
        self._best: list[FloatArray] = []
        self._moments: list[npt.NDArray[np.float64]] = []
        """(parts, 3) of each strip: area, sum of rows, sum of columns; whole numbers."""

    def add(self, maps: Sequence[FloatArray]) -> BoolArray:
        """Take the strip below; return its mask."""
        logits = maps[0][0]
        above: BoolArray = logits > self._least
        labelled, marked = cv2.connectedComponents(above.view(np.uint8), connectivity=8)
        count, labels = labelled - 1, np.asarray(marked, np.int32)  # 0 is the background
        at = np.flatnonzero(above)
        part = np.take(labels, at) - 1
        best = np.full(count, -np.inf, np.float32)
        np.maximum.at(best, part, np.take(logits, at))
        rows, cols = np.divmod(at, logits.shape[1])
        sums = [np.bincount(part, of, count) for of in (None, rows + self._row, cols)]
        self._components.add(labels, count)
        self._best.append(best)
        self._moments.append(np.stack(sums, axis=1).astype(np.float64))
        self._row += len(logits)
        return above

    def detections(self) -> tuple[Detection, ...]:
        """Of all strips, best first."""
        best, moments = np.concatenate(self._best), np.concatenate(self._moments)
        if len(self._best) > 1:
            roots, inverse = np.unique(self._components.roots(), return_inverse=True)
            highest, sums = best[roots], np.zeros((len(roots), 3))
            np.maximum.at(highest, inverse, best)
            np.add.at(sums, inverse, moments)
            best, moments = highest, sums
        area, row, col = moments.T
        row, col = row / area, col / area
        order = np.lexsort((col, row, -best))
        scores = sigmoid(best)
        return tuple(
            Detection(float(row[k]), float(col[k]), float(scores[k]), float(area[k])) for k in order
        )


class _Peaks:
    """Local maxima with sub-pixel position and size, suppressed by scale.

    A maximum is one of 3x3 cells above the threshold; a plateau counts by its first cell in raster
    order. Neighbouring maxima are equal by definition, so a plateau is a component of them. area_px
    is the disc whose radius is the net's sigma: pi * (sigma in pixels) ** 2.
    """

    def __init__(self, least: float, shape: tuple[int, int]) -> None:
        self._least = least
        self._shape = shape
        self._row = 0
        """Of the grid, where the strip in hand begins."""
        self._upper: FloatArray | None = None
        """(1, W) the logits above the strip in hand."""
        self._strip: Sequence[FloatArray] | None = None
        """In hand: its last row waits for the one below."""
        self._components = Components()
        self._cells: list[npt.NDArray[np.float64]] = []
        """(parts, 6) of each strip: row, col, logit, dx, dy, log sigma."""

    def add(self, maps: Sequence[FloatArray]) -> None:
        """Take the strip below."""
        if self._strip is not None:
            self._search(self._strip, maps[0][0, :1])
        self._strip = maps

    def detections(self) -> tuple[Detection, ...]:
        """Of all strips, best first."""
        if self._strip is not None:
            self._search(self._strip, None)
            self._strip = None
        cells = self._first_cells()
        order = np.lexsort((cells[:, 1], cells[:, 0], -cells[:, 2]))
        rows, cols, logits, dx, dy, log_sigma = cells[order].T
        row = _position(rows, dy, self._shape[0])
        col = _position(cols, dx, self._shape[1])
        sigma_px = HEATMAP_STRIDE * np.exp(np.clip(log_sigma, *LOG_SIGMA_RANGE))
        scores = sigmoid(logits.astype(np.float32))
        return tuple(
            Detection(
                float(row[k]), float(col[k]), float(scores[k]), math.pi * float(sigma_px[k]) ** 2
            )
            for k in _suppress(row, col, sigma_px)
        )

    def _search(self, strip: Sequence[FloatArray], lower: FloatArray | None) -> None:
        """Collect the maxima of a strip between the rows above and below it."""
        logits, geometry = strip[0][0], strip[1]
        around = [part for part in (self._upper, logits, lower) if part is not None]
        joined = np.concatenate(around) if len(around) > 1 else logits
        highest = cv2.dilate(joined, np.ones((3, 3), np.uint8))
        start = 0 if self._upper is None else 1
        maxima = (logits > self._least) & (logits == highest[start : start + len(logits)])
        rows, cols = np.divmod(np.flatnonzero(maxima), maxima.shape[1])  # faster than np.nonzero
        count, labels = len(rows), maxima.view(np.uint8)
        if count > 1:
            count, labels = cv2.connectedComponents(labels, connectivity=8)
            count -= 1
            _, first = np.unique(labels[rows, cols], return_index=True)
            rows, cols = rows[first], cols[first]
        self._components.add(np.asarray(labels, np.int32), count)
        at = [rows + self._row, cols, logits[rows, cols], *geometry[:, rows, cols]]
        self._cells.append(np.stack(at, axis=1).astype(np.float64))
        self._upper = logits[-1:].copy()
        self._row += len(logits)

    def _first_cells(self) -> npt.NDArray[np.float64]:
        """(plateaus, 6) of the first cell of each."""
        if len(self._cells) == 1:  # each strip holds the first cells of its own
            return self._cells[0]
        cells, roots = np.concatenate(self._cells), self._components.roots()
        order = np.lexsort((cells[:, 1], cells[:, 0], roots))
        _, first = np.unique(roots[order], return_index=True)
        return np.asarray(cells[order[first]])


def _position(
    cells: npt.NDArray[np.float64], offset: npt.NDArray[np.float64], size_px: int
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
    radius = np.maximum(sigma_px, float(HEATMAP_STRIDE))
    # Only peaks of near rows are compared: all with all takes minutes where a frame is but noise.
    order = np.argsort(row)
    first = np.searchsorted(row[order], row - radius - SLACK_PX)
    last = np.searchsorted(row[order], row + radius + SLACK_PX)
    alive = np.ones(len(row), bool)
    kept = []
    for k in range(len(row)):
        if alive[k]:
            kept.append(k)
            near = order[first[k] : last[k]]
            alive[near] &= np.hypot(row[near] - row[k], col[near] - col[k]) >= radius[k]
    return kept
