import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from irstd_edge.benchmarks.matching import components_of_mask, match_masks, match_points
from irstd_edge.edge.types import IrstdError

fast = settings(database=None, deadline=None, max_examples=200)
masks = arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.booleans())


def plain_components(mask: np.ndarray) -> list[list[tuple[int, int]]]:
    """Flood fill from each pixel in raster order, over all eight neighbours."""
    left = {(int(r), int(c)) for r, c in np.argwhere(mask)}
    found = []
    for start in sorted(left):
        if start not in left:
            continue
        left.discard(start)
        blob = [start]
        for row, col in blob:
            near = {(row + i, col + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            blob.extend(near)
        found.append(blob)
    return found


@fast
@given(masks)
def test_components_are_those_of_a_flood_fill_in_raster_order(mask: np.ndarray) -> None:
    components = components_of_mask(mask)
    expected = plain_components(mask)
    assert components.areas_px.tolist() == [len(blob) for blob in expected]
    for k, blob in enumerate(expected):
        assert {tuple(at) for at in np.argwhere(components.labels == k + 1)} == set(blob)
        assert components.centroids[k] == pytest.approx(np.mean(blob, axis=0), abs=1e-12)


def test_order_is_by_pixel_where_opencv_labels_blocks() -> None:
    mask = np.zeros((4, 8), bool)
    mask[1, 0] = mask[0, 5] = True
    assert components_of_mask(mask).centroids.tolist() == [[0, 5], [1, 0]]


def test_a_target_takes_the_first_unused_blob_not_the_nearest() -> None:
    predicted, truth = np.zeros((2, 9, 9), bool)
    truth[4, 4] = truth[6, 4] = True
    predicted[2, 4] = predicted[4, 4] = True
    assert match_masks(predicted, truth).taken.tolist() == [0, 1]


def test_three_pixels_apart_is_no_match_for_masks_and_is_one_for_points() -> None:
    predicted, truth = np.zeros((2, 9, 9), bool)
    truth[4, 4] = predicted[4, 7] = True
    assert match_masks(predicted, truth).taken.tolist() == [-1]
    assert match_points([[4, 7, 0.9]], [[4, 4]], 3).taken.tolist() == [0]
    assert match_points([[4, 7.001, 0.9]], [[4, 4]], 3).taken.tolist() == [-1]


def test_masks_of_two_sizes_are_refused() -> None:
    with pytest.raises(IrstdError, match=r"mask: predicted \(4, 4\), truth \(4, 5\); crop"):
        match_masks(np.zeros((4, 4), bool), np.zeros((4, 5), bool))


def test_the_best_score_chooses_first() -> None:
    predicted = [[0, 2, 0.3], [0, 1, 0.9]]
    match = match_points(predicted, [[0, 0], [0, 4]], 5)
    assert match.taken.tolist() == [1, 0]
    assert match.counts.distance_sum_px == 3
    assert match.distances_px == (1, 2)


points = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=7)
scores = st.sampled_from([0.1, 0.5, 0.5000001, 0.9])
detections = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8), scores), max_size=7)


def plain_match(
    predicted: list[tuple[float, ...]], truth: list[tuple[int, int]], radius_px: float
) -> list[int]:
    taken = [-1] * len(truth)
    for k in sorted(range(len(predicted)), key=lambda k: -predicted[k][2]):
        best, best_square = -1, radius_px**2
        for t, (row, col) in enumerate(truth):
            square = (row - predicted[k][0]) ** 2 + (col - predicted[k][1]) ** 2
            closer = square < best_square or (best < 0 and square == best_square)
            if taken[t] < 0 and closer:
                best, best_square = t, square
        if best >= 0:
            taken[best] = k
    return taken


@fast
@given(detections, points, st.sampled_from([1, 2, 3, 5]))
def test_points_match_as_a_plain_loop_matches_them(
    predicted: list[tuple[float, ...]], truth: list[tuple[int, int]], radius_px: int
) -> None:
    match = match_points(np.array(predicted), np.array(truth), radius_px)
    expected = plain_match(predicted, truth, radius_px)
    assert match.taken.tolist() == expected
    assert match.counts.matched == len(truth) - expected.count(-1)
    assert (match.counts.predicted, match.counts.truth) == (len(predicted), len(truth))
