"""Blobs of masks, and which prediction is which target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from irstd_edge.benchmarks.counts import MaskCounts, PointCounts
from irstd_edge.edge.types import BoolArray, IrstdError

PD_RADIUS_PX = 3.0
"""Centroids closer than this (strictly) are one target, as in MSHNet and DNANet."""

IndexArray = npt.NDArray[np.intp]
Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Components:
    """The 8-connected blobs of a mask, in raster order of their first pixel."""

    labels: npt.NDArray[np.int32]
    """(H, W): 0 is background, k + 1 is blob k."""
    centroids: Points
    """(K, 2) row, col."""
    areas_px: npt.NDArray[np.int64]
    """(K,)"""


def components_of_mask(mask: BoolArray) -> Components:
    """The blobs of a (H, W) mask.

    OpenCV labels 2x2 blocks, not pixels, in raster order; which true target takes which
    predicted one depends on the order, so blobs are sorted as `skimage.measure.label` has them.
    """
    labels = np.zeros(mask.shape, np.int32)
    inside = foreground_box(mask)
    # Nearly all of a frame is background: only the part that holds blobs is labelled.
    count, part, stats, centroids = cv2.connectedComponentsWithStats(
        np.ascontiguousarray(mask[inside], dtype=np.uint8), connectivity=8, ltype=cv2.CV_32S
    )
    flat = part.ravel()
    seen, first = np.unique(flat[np.flatnonzero(flat)], return_index=True)
    order = seen[np.argsort(first)]
    rank = np.zeros(count, np.int32)
    rank[order] = np.arange(1, count)
    labels[inside] = rank[part]
    areas = stats[order, cv2.CC_STAT_AREA].astype(np.int64)
    corner = (inside[0].start, inside[1].start)
    return Components(labels, moved(centroids[order, ::-1], areas, corner), areas)


def foreground_box(mask: BoolArray) -> tuple[slice, slice]:
    """(rows, columns) of the smallest box around the foreground; one pixel where there is none."""
    edges = []
    for axis in (1, 0):
        held = np.flatnonzero(mask.any(axis=axis))
        edges.append(slice(int(held[0]), int(held[-1]) + 1) if held.size else slice(0, 1))
    return edges[0], edges[1]


def moved(
    centroids: npt.NDArray[Any],
    areas_px: npt.NDArray[np.int64],
    by: npt.ArrayLike,
) -> Points:
    """(K, 2) centroids of a cut-out in the coordinates of its frame, without a rounding error.

    A centroid is a sum of whole numbers over an area. Adding to that sum gives what the whole
    frame would have given, and a distance of exactly 3 px stays exactly 3 px.
    """
    area = areas_px[:, None]
    return np.asarray((np.rint(centroids * area) + np.asarray(by) * area) / area, np.float64)


@dataclass(frozen=True)
class MaskMatch:
    """One predicted mask against its truth."""

    predicted: Components
    truth: Components
    taken: IndexArray
    """(true blobs,): the predicted blob that each took, or -1."""
    counts: MaskCounts


@dataclass(frozen=True)
class PointMatch:
    """The points of one frame against its truth."""

    taken: IndexArray
    """(true points,): the predicted point that took each, or -1."""
    counts: PointCounts
    distances_px: tuple[float, ...]
    """Of the matched pairs."""


def _first_unused(truth: Points, predicted: Points) -> IndexArray:
    """Each true centroid takes the FIRST unused predicted one that is near, not the nearest."""
    taken = np.full(len(truth), -1, np.intp)
    unused = np.ones(len(predicted), bool)
    for k, centroid in enumerate(truth):
        near = np.sqrt(((predicted - centroid) ** 2).sum(axis=1)) < PD_RADIUS_PX
        free = np.flatnonzero(near & unused)
        if free.size:
            taken[k] = free[0]
            unused[free[0]] = False
    return taken


def match_masks(predicted: BoolArray, truth: BoolArray) -> MaskMatch:
    """Match two (H, W) masks by the rule of MSHNet and DNANet; IrstdError if sizes differ."""
    if predicted.shape != truth.shape:
        raise IrstdError(
            f"mask: predicted {predicted.shape}, truth {truth.shape}; crop the prediction to it"
        )
    blobs, targets = components_of_mask(predicted), components_of_mask(truth)
    taken = _first_unused(targets.centroids, blobs.centroids)
    hits = taken[taken >= 0]
    areas, matched_areas = blobs.areas_px, blobs.areas_px[hits]
    intersection = int(np.logical_and(predicted, truth).sum())
    union = int(np.logical_or(predicted, truth).sum())
    counts = MaskCounts(
        pixels=truth.size,
        intersection_px=intersection,
        union_px=union,
        iou_sum=intersection / union if union else 0.0,
        iou_frames=int(union > 0),
        targets=len(taken),
        matched=len(hits),
        false_px=int(areas.sum() - matched_areas.sum()),
        false_legacy_px=int(areas[~np.isin(areas, matched_areas)].sum()),
    )
    return MaskMatch(blobs, targets, taken, counts)


def match_points(
    predicted: npt.NDArray[np.floating] | Sequence[Sequence[float]],
    truth: npt.NDArray[np.floating] | Sequence[Sequence[float]],
    radius_px: float,
) -> PointMatch:
    """Match (K, 3) row, col, score with (M, 2) row, col, one to one.

    Best score first, each predicted point takes the nearest unused true one within `radius_px`.
    """
    points = np.asarray(predicted, np.float64).reshape(-1, 3)
    targets = np.asarray(truth, np.float64).reshape(-1, 2)
    taken = np.full(len(targets), -1, np.intp)
    matched: list[float] = []
    distances = np.sqrt(((points[:, None, :2] - targets) ** 2).sum(axis=2))  # (K, M)
    best_first = np.argsort(-points[:, 2], kind="stable")
    for k in best_first[(distances <= radius_px).any(axis=1)[best_first]]:
        distance = np.where(taken >= 0, np.inf, distances[k])
        nearest = int(distance.argmin())
        if distance[nearest] <= radius_px:
            taken[nearest] = k
            matched.append(float(distance[nearest]))
    counts = PointCounts(len(points), len(targets), len(matched), sum(matched))
    return PointMatch(taken, counts, tuple(matched))
