import numpy as np
import pytest

from irstd_edge.benchmarks.matching import match_masks, match_points
from irstd_edge.benchmarks.targets import (
    false_blobs,
    false_points,
    highest_near,
    mask_targets,
    point_targets,
)
from irstd_edge.edge.types import Detection, Frame, Prediction, Sample


@pytest.mark.parametrize(
    ("stride", "cell", "row", "col", "expected"),
    [
        (1, (10, 10), 10, 13, 0.7),
        (1, (10, 10), 10, 13.01, 0.0),
        (1, (10, 10), 12, 12, 0.7),
        (1, (10, 10), 12.5, 12.5, 0.0),  # 3.5 px along the diagonal
        (2, (5, 5), 10.5, 13.5, 0.7),  # cell 5 of stride 2 is centred at 10.5
        (2, (5, 5), 10.5, 13.6, 0.0),
        (2, (5, 5), 7.5, 10.5, 0.7),
        (2, (5, 5), 7.4, 10.5, 0.0),
        (2, (0, 0), 0.0, 0.0, 0.7),
        (1, (15, 15), 17.0, 15.0, 0.7),
        (1, (15, 15), 90.0, 15.0, 0.0),  # no cell is near
    ],
)
def test_a_score_is_the_highest_within_three_pixels(
    stride: int, cell: tuple[int, int], row: float, col: float, expected: float
) -> None:
    probability = np.zeros((16, 16), np.float32)
    probability[cell] = 0.7
    assert highest_near(probability, stride, row, col) == pytest.approx(expected)


def textured(size: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(90, 110, (size, size)).astype(np.uint8)


def prediction(*points: tuple[float, float, float], mask: np.ndarray | None = None) -> Prediction:
    probability = np.zeros((32, 32), np.float32)
    for row, col, score in points:
        probability[round(row), round(col)] = score
    detections = tuple(Detection(row, col, score, 2.0) for row, col, score in points)
    return Prediction(detections, probability, 1, mask)


def test_targets_of_masks_know_area_match_and_score_below_the_threshold() -> None:
    truth, predicted = np.zeros((2, 32, 32), bool)
    truth[4:6, 4:7] = truth[20, 20] = True
    predicted[4:6, 5:7] = predicted[28, 3] = True
    frame = Frame("a", textured(), 8)
    sample = Sample(frame, truth, np.zeros((0, 2), np.float32))
    said = prediction((4, 5, 0.9), (20, 20, 0.25), (28, 3, 0.6), mask=predicted)
    match = match_masks(predicted, truth)
    found = mask_targets(sample, said, match)
    assert [(t.row, t.col, t.area_px, t.matched) for t in found] == [
        (4.5, 5, 6, True),
        (20, 20, 1, False),
    ]
    assert [t.score for t in found] == pytest.approx([0.9, 0.25])
    assert all(t.scr is not None for t in found)
    (alarm,) = false_blobs(said, match)
    assert (alarm.row, alarm.col, alarm.area_px) == (28, 3, 1)
    assert alarm.score == pytest.approx(0.6)


def test_targets_of_points_take_their_area_from_the_mask_where_there_is_one() -> None:
    mask = np.zeros((32, 32), bool)
    mask[10:12, 10:12] = True
    points = np.array([[10.5, 10.5], [25, 25]], np.float32)
    said = prediction((11, 11, 0.8), (3, 3, 0.6))
    match = match_points(np.array([[11, 11, 0.8], [3, 3, 0.6]]), points, 3)
    found = point_targets(Sample(Frame("a", textured(), 8), mask, points), said, match)
    assert [(t.area_px, t.matched) for t in found] == [(4, True), (None, False)]
    bare = point_targets(Sample(Frame("a", textured(), 8), None, points), said, match)
    assert [(t.area_px, t.matched) for t in bare] == [(None, True), (None, False)]
    (alarm,) = false_points(said, match)
    assert (alarm.row, alarm.col, alarm.score, alarm.area_px) == (3, 3, 0.6, 2)


def test_a_point_is_as_visible_as_the_nine_pixels_around_it() -> None:
    counts = np.full((32, 32), 90, np.uint8)
    counts[:, ::2] = 110
    counts[9:12, 9:12] = 150
    points = np.array([[10.2, 9.8], [0, 0]], np.float32)
    none = match_points(np.zeros((0, 3)), points, 3)
    inner, corner = point_targets(Sample(Frame("a", counts, 8), None, points), prediction(), none)
    assert inner.scr == pytest.approx(5.0, abs=0.1)
    assert corner.scr is not None  # the 3x3 is cut at the frame's edge
