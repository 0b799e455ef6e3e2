from collections.abc import Sequence

import numpy as np
import pytest

from irstd_edge.benchmarks.operating_point import THRESHOLDS, best_threshold, held_out_scores
from irstd_edge.edge.types import Detection, FloatArray, Frame, Prediction, Sample

SIZE = (32, 32)


def rows(*values: Sequence[float]) -> FloatArray:
    return np.array(values, np.float32).reshape(len(values), -1)


def sample(name: str, points: FloatArray, mask: FloatArray | None = None) -> Sample:
    frame = Frame(name, np.zeros(SIZE, np.uint8), 8)
    return Sample(frame, None if mask is None else mask > 0, points)


def box(height: int, width: int) -> FloatArray:
    """(32, 32): 1 in that many pixels from row 4, column 8 on."""
    picture = np.zeros(SIZE, np.float32)
    picture[4 : 4 + height, 8 : 8 + width] = 1
    return picture


NOTHING = np.zeros((0, 3), np.float32)
ONE = rows((10, 10))


@pytest.mark.parametrize(
    ("found", "truth", "expected"),
    [
        # F1 is 1 from 0.35 to 0.55, where only the true one is left
        ([rows((10, 10, 0.58), (20, 20, 0.32))], [ONE], 0.45),
        # 1 from 0.35 to 0.6: six of them, the fourth
        ([rows((10, 10, 0.62), (20, 20, 0.32))], [ONE], 0.5),
        # frames count together: up to 0.2 both true ones are found
        ([rows((10, 10, 0.93)), rows((10, 10, 0.22))], [ONE, ONE], 0.15),
        # none is better than another
        ([NOTHING], [ONE], 0.5),
        ([NOTHING], [NOTHING[:, :2]], 0.5),
    ],
)
def test_the_best_threshold_is_the_middle_of_equals(
    found: list[FloatArray], truth: list[FloatArray], expected: float
) -> None:
    assert best_threshold(found, truth) == expected


@pytest.mark.parametrize(("others", "expected"), [(150, 0.4), (20, 0.6)])
def test_a_target_of_many_is_chance(others: int, expected: float) -> None:
    """From 0.5 on a false alarm of 0.47 is gone: half a target in 150, a point and more in 20."""
    found = [rows((10, 10, 0.72))] * others + [rows((10, 10, 0.72), (25, 25, 0.47))]
    assert best_threshold(found, [ONE] * (others + 1)) == expected


def test_points_are_scored_at_their_best_threshold() -> None:
    detections = {
        "a": (Detection(10, 10, 0.92, 4), Detection(25, 25, 0.32, 4)),  # true, false
        "b": (Detection(10, 13.5, 0.78, 4),),  # 3.5 px off
    }

    def predict(frame: Frame, threshold: float) -> Prediction:
        kept = tuple(d for d in detections[frame.name] if d.score > threshold)
        return Prediction(kept, np.zeros((16, 16), np.float32), 2, None)

    # F1 is 2 / (3 + 2) with all three, 2 / (2 + 2) from 0.35 on without the false one, and
    # 2 / (1 + 2) from 0.8 to 0.9, where the one that is off is gone too.
    scores = held_out_scores(predict, [sample("a", ONE), sample("b", ONE)])
    points = {t: [pd, fa] for t, pd, fa in scores.pop("operating_points")}
    alarm = 1e6 / (2 * 32 * 32)
    assert points[0.3] == [0.5, pytest.approx(2 * alarm)]
    assert points[0.35] == points[0.75] == [0.5, pytest.approx(alarm)]
    assert points[0.8] == points[0.9] == [0.5, 0.0]
    assert points[0.95] == [0.0, 0.0]
    assert scores == {
        "score": pytest.approx(2 / 3),
        "f1_3px": pytest.approx(2 / 3),
        "f1_5px": pytest.approx(2 / 3),
        "precision_3px": 1.0,
        "recall_3px": 0.5,
        "threshold": 0.85,
    }


def test_the_wider_radius_is_scored_at_the_same_threshold() -> None:
    def predict(frame: Frame, threshold: float) -> Prediction:
        near, off = Detection(10, 10, 0.97, 4), Detection(20, 24, 0.97, 4)
        return Prediction((near, off), np.zeros((16, 16), np.float32), 2, None)

    scores = held_out_scores(predict, [sample("a", rows((10, 10), (20, 20)))])
    assert (scores["f1_3px"], scores["f1_5px"]) == (0.5, 1.0)
    assert scores["threshold"] == THRESHOLDS[len(THRESHOLDS) // 2] == 0.5


@pytest.mark.parametrize("masks", [False, True])
def test_frames_without_targets_are_scored_by_their_false_alarms(masks: bool) -> None:
    """A clean epoch is not to give way to one with an alarm."""
    alarm, nothing = (Detection(4, 8, 0.9, 4.0),), ()
    samples = [sample("a", ONE[:0], box(0, 0) if masks else None)]

    def score(found: tuple[Detection, ...]) -> float:
        shown = box(2, 2) if found else box(0, 0)

        def predict(frame: Frame, threshold: float) -> Prediction:
            return Prediction(found, shown, 1 if masks else 2, shown > threshold if masks else None)

        return float(held_out_scores(predict, samples)["score"])

    assert score(alarm) < score(nothing) == 0


def test_masks_are_scored_at_one_half() -> None:
    probability = 0.9 * box(2, 2)
    probability[4:6, 10:12] = 0.3  # foreground at a lower threshold
    probability[20, 20] = 0.6  # a false blob of one pixel

    def predict(frame: Frame, threshold: float) -> Prediction:
        return Prediction((), probability, 1, probability > threshold)

    labelled = sample("a", rows((4.5, 9.5)), box(2, 4))
    scores = held_out_scores(predict, [labelled, sample("points only", ONE)])
    points = {t: [pd, fa] for t, pd, fa in scores.pop("operating_points")}
    assert points[0.05] == points[0.55] == [1.0, pytest.approx(1e6 / 1024)]
    assert points[0.65] == [1.0, 0.0] and points[0.95] == [0.0, 0.0]
    assert scores == {
        "score": pytest.approx(4 / 9),
        "iou": pytest.approx(4 / 9),
        "niou": pytest.approx(4 / 9),
        "pd": 1.0,
        "fa_per_mpx": pytest.approx(1e6 / 1024),
        "threshold": 0.5,
    }
