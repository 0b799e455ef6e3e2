"""Accuracy against a second implementation: plain loops over pixels, slow and easy to check."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from irstd_edge.benchmarks.accuracy import score_masks, score_points

SIZE = 14
Blob = list[tuple[int, int]]
Pair = tuple[np.ndarray, np.ndarray]


def blobs_of(mask: np.ndarray) -> list[Blob]:
    """8-connected, in raster order of their first pixel."""
    left = [(r, c) for r in range(SIZE) for c in range(SIZE) if mask[r, c]]
    found: list[Blob] = []
    while left:
        blob = [left.pop(0)]
        for row, col in blob:
            near = [p for p in left if abs(p[0] - row) <= 1 and abs(p[1] - col) <= 1]
            blob += near
            left = [p for p in left if p not in near]
        found.append(blob)
    return found


def centre(blob: Blob) -> tuple[float, float]:
    return sum(r for r, _ in blob) / len(blob), sum(c for _, c in blob) / len(blob)


def plain_masks(pairs: list[Pair]) -> dict[str, float | None]:
    inside = union = targets = matched = false = legacy = 0
    ratios = []
    for predicted, truth in pairs:
        both = sum(bool(p and t) for p, t in zip(predicted.flat, truth.flat, strict=True))
        either = sum(bool(p or t) for p, t in zip(predicted.flat, truth.flat, strict=True))
        inside, union = inside + both, union + either
        ratios += [both / either] if either else []
        free, taken = blobs_of(predicted), []
        for target in blobs_of(truth):
            targets += 1
            for blob in free:
                if math.dist(centre(blob), centre(target)) < 3:
                    taken.append(blob)
                    free.remove(blob)
                    break
        matched += len(taken)
        false += sum(map(len, free))
        areas = [len(blob) for blob in taken]
        legacy += sum(len(blob) for blob in free if len(blob) not in areas)
    pixels = len(pairs) * SIZE * SIZE
    return {
        "iou": inside / union if union else None,
        "niou": sum(ratios) / len(ratios) if ratios else None,
        "pd": matched / targets if targets else None,
        "fa_per_mpx": 1e6 * false / pixels,
        "fa_legacy_per_mpx": 1e6 * legacy / pixels,
    }


masks = arrays(bool, (SIZE, SIZE), elements=st.booleans(), fill=st.just(False))


@settings(database=None, deadline=None, max_examples=120)
@given(st.lists(st.tuples(masks, masks), min_size=1, max_size=3))
def test_masks_score_as_plain_loops_score_them(pairs: list[Pair]) -> None:
    scores = score_masks([p for p, _ in pairs], [t for _, t in pairs])
    for name, expected in plain_masks(pairs).items():
        assert getattr(scores, name) == pytest.approx(expected, abs=1e-9), name


places = st.tuples(st.integers(0, 12), st.integers(0, 12))
truths = st.lists(places, max_size=5)
detections = st.lists(st.tuples(places, st.sampled_from([0.2, 0.5, 0.9])), max_size=6)


def plain_points(frames: list[tuple[list, list]], radius_px: float) -> tuple[int, int, int, float]:
    """(predicted, true, matched, sum of distances): best score first takes the nearest left."""
    predicted = true = matched = 0
    distance = 0.0
    for found, targets in frames:
        predicted, true, left = predicted + len(found), true + len(targets), list(targets)
        for place, _ in sorted(found, key=lambda pair: -pair[1]):
            near = min(left, key=lambda target: math.dist(place, target), default=None)
            if near is not None and math.dist(place, near) <= radius_px:
                left.remove(near)
                matched += 1
                distance += math.dist(place, near)
    return predicted, true, matched, distance


@settings(database=None, deadline=None, max_examples=120)
@given(st.lists(st.tuples(detections, truths), min_size=1, max_size=3), st.sampled_from([3, 5]))
def test_points_score_as_plain_loops_score_them(
    frames: list[tuple[list, list]], radius_px: int
) -> None:
    given_points = [
        np.array([(*place, score) for place, score in found]).reshape(-1, 3) for found, _ in frames
    ]
    true_points = [np.array(targets, float).reshape(-1, 2) for _, targets in frames]
    scores = score_points(given_points, true_points, radius_px)
    predicted, true, matched, distance = plain_points(frames, radius_px)
    assert (scores.predicted, scores.truth, scores.matched) == (predicted, true, matched)
    assert scores.distance_sum_px == pytest.approx(distance, abs=1e-9)
    assert scores.f1 == (2 * matched / (predicted + true) if predicted + true else None)
    assert scores.precision == (matched / predicted if predicted else None)
    assert scores.recall == (matched / true if true else None)
