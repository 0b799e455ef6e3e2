"""A mask at many thresholds at once: its blobs, and which of them are targets.

Labelling a frame once for each threshold would take longer than the detector. Blobs of a higher
threshold lie inside those of the lowest, so these are cut out and set side by side on a small
canvas; one copy of it for each threshold, one below the other, is labelled in a single call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from irstd_edge.benchmarks.matching import (
    PD_RADIUS_PX,
    Points,
    foreground_box,
    moved,
)
from irstd_edge.benchmarks.targets import NEAR_PX
from irstd_edge.edge.types import BoolArray, FloatArray

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Blobs:
    """The blobs of every threshold; of each threshold in raster order of their first pixel."""

    level: Ints
    """(B,): index of the threshold, rising."""
    centroids: Points
    """(B, 2) row, col in the frame."""
    areas_px: Ints
    """(B,)"""
    scores: FloatArray
    """(B,): highest probability."""


@dataclass(frozen=True)
class _Canvas:
    """Cut-outs of a frame, a pixel apart; the last row and column are background."""

    probability: FloatArray
    """(h, w): 0 between them."""
    row: Ints
    """(w,): row of the frame at the top of each column."""
    col: Ints
    """(w,): column of the frame of each column."""


def blob_counts(
    probability: FloatArray,
    thresholds: npt.NDArray[np.float64],
    points: npt.NDArray[np.floating],
    targets: Points | None,
) -> Ints:
    """(T, 4): points predicted, points that hit, targets found, false pixels at each threshold.

    probability: (H, W). thresholds: (T,) rising. points: (M, 2) row, col of the true targets.
    targets: (K, 2) centroids of the blobs of their mask; without one the last two are 0.
    """
    counts = np.zeros((len(thresholds), 4), np.int64)
    blobs = blobs_above(probability, thresholds)
    counts[:, 0] = np.bincount(blobs.level, minlength=len(thresholds))
    counts[:, 1] = _point_hits(blobs, points.astype(np.float64).reshape(-1, 2), len(thresholds))
    if targets is not None:
        taken = _taken(blobs, targets)
        counts[:, 2] = np.bincount(blobs.level[taken], minlength=len(thresholds))
        false = np.where(taken, 0, blobs.areas_px)
        counts[:, 3] = np.bincount(blobs.level, false, minlength=len(thresholds))
    return counts


def blobs_above(probability: FloatArray, thresholds: npt.NDArray[np.float64]) -> Blobs:
    """The 8-connected blobs above each of the rising (T,) thresholds of a (H, W) map."""
    canvas = _packed(probability, thresholds[:1])
    levels = int(np.searchsorted(thresholds, canvas.probability.max(), side="left"))
    height, width = canvas.probability.shape
    stack = (canvas.probability > thresholds[:levels, None, None]).reshape(-1, width)
    if not levels:
        stack = np.zeros((1, width), bool)
    count, labels, stats, centroids = cv2.connectedComponentsWithStats(
        stack.view(np.uint8), connectivity=8, ltype=cv2.CV_32S
    )
    stats, top = stats[1:], stats[1:, cv2.CC_STAT_TOP]
    level = top // height
    first = (labels[top] == np.arange(1, count)[:, None]).argmax(axis=1)
    areas = stats[:, cv2.CC_STAT_AREA].astype(np.int64)
    offset = np.stack([canvas.row[first] - level * height, canvas.col[first] - first], axis=1)
    order = np.lexsort((canvas.col[first], top + offset[:, 0], level))
    return Blobs(
        level[order].astype(np.int64),
        moved(centroids[1:, ::-1], areas, offset)[order],
        areas[order],
        _highest(canvas.probability, labels, count)[order],
    )


def _highest(probability: FloatArray, labels: npt.NDArray[Any], count: int) -> FloatArray:
    """(count - 1,): the highest probability under each label."""
    inside = np.flatnonzero(labels)
    best = np.zeros(count, np.float32)
    values = probability.ravel()[inside % probability.size]
    np.maximum.at(best, labels.ravel()[inside], values)
    return best[1:]


def _packed(probability: FloatArray, lowest: npt.NDArray[np.float64]) -> _Canvas:
    """Every blob above `lowest` (1,) side by side, or the box of all where that is smaller."""
    above = probability > lowest  # an array, not a number: compared in float64 as all levels are
    rows, cols = foreground_box(above)
    part = np.where(above[rows, cols], probability[rows, cols], np.float32(0))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(
        (part > 0).view(np.uint8), connectivity=8, ltype=cv2.CV_32S
    )
    left, top, width, height, _ = stats[1:].T
    size = (int(height.max(initial=0)) + 1, int(width.sum() + len(width)) + 1)
    if size[0] * size[1] >= part.size:
        span = np.arange(cols.start, cols.stop + 1)
        return _Canvas(np.pad(part, ((0, 1), (0, 1))), np.full_like(span, rows.start), span)
    canvas, row, col = np.zeros(size, np.float32), *np.zeros((2, size[1]), np.int64)
    at = 0
    for k, (x, y, w, h) in enumerate(zip(left, top, width, height, strict=True), start=1):
        box = np.s_[y : y + h, x : x + w]
        canvas[:h, at : at + w] = np.where(labels[box] == k, part[box], 0)
        row[at : at + w] = rows.start + y
        col[at : at + w] = np.arange(cols.start + x, cols.start + x + w)
        at += w + 1
    return _Canvas(canvas, row, col)


def _taken(blobs: Blobs, targets: Points) -> BoolArray:
    """(B,): which blobs a target took; each takes the first unused near one, as Pd has it."""
    taken = np.zeros(len(blobs.level), bool)
    for target in targets:
        near = np.sqrt(((blobs.centroids - target) ** 2).sum(axis=1)) < PD_RADIUS_PX
        free = np.flatnonzero(near & ~taken)
        _, first = np.unique(blobs.level[free], return_index=True)
        taken[free[first]] = True
    return taken


def _point_hits(blobs: Blobs, targets: Points, levels: int) -> Ints:
    """(levels,): blobs that hit; best score first, each takes the nearest unused target."""
    used = np.zeros((levels, len(targets)), bool)
    distance = np.sqrt(((blobs.centroids[:, None] - targets) ** 2).sum(axis=2))  # (B, M)
    near = np.flatnonzero((distance <= NEAR_PX).any(axis=1))
    order = near[np.lexsort((near, -blobs.scores[near], blobs.level[near]))]
    level = blobs.level[order]
    rank = np.arange(len(order)) - np.searchsorted(level, level)
    for turn in range(int(rank.max(initial=-1)) + 1):
        now = order[rank == turn]  # at most one blob of each level
        free = np.where(used[blobs.level[now]], np.inf, distance[now])
        nearest = free.argmin(axis=1)
        hit = free[np.arange(len(now)), nearest] <= NEAR_PX
        used[blobs.level[now][hit], nearest[hit]] = True
    return np.asarray(used.sum(axis=1), np.int64)
