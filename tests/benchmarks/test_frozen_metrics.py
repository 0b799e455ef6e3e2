"""Accuracy against pyirstdmetrics, whose numbers `tests/experiments/frozen_metrics.py` froze."""

import numpy as np
import pytest
from frozen_metrics import BINS, SIZE, frames

from irstd_edge.benchmarks.accuracy import score_masks
from irstd_edge.benchmarks.blob_curve import blob_counts
from irstd_edge.benchmarks.matching import components_of_mask

EXPECTED = {
    1: {
        "iou": 0.073529412,
        "niou": 0.071772073,
        "pd": 0.444444444,
        "fa": 0.003634983,
        "false_blobs": 32,
        "curve_pd": [
            0.5,
            0.527777778,
            0.5,
            0.472222222,
            0.472222222,
            0.444444444,
            0.222222222,
            0.25,
            0.194444444,
            0.055555556,
        ],
        "curve_fa": [
            0.008843316,
            0.007921007,
            0.006890191,
            0.005913628,
            0.004855686,
            0.003634983,
            0.00265842,
            0.00132921,
            0.000759549,
            0.000271267,
        ],
    },
    2: {
        "iou": 0.054435484,
        "niou": 0.053983102,
        "pd": 0.285714286,
        "fa": 0.004367405,
        "false_blobs": 31,
        "curve_pd": [
            0.457142857,
            0.428571429,
            0.428571429,
            0.428571429,
            0.314285714,
            0.285714286,
            0.285714286,
            0.171428571,
            0.114285714,
            0.114285714,
        ],
        "curve_fa": [
            0.008626302,
            0.008219401,
            0.00764974,
            0.006971571,
            0.005832248,
            0.004367405,
            0.003580729,
            0.002387153,
            0.001464844,
            0.000515408,
        ],
    },
    3: {
        "iou": 0.114754098,
        "niou": 0.125957955,
        "pd": 0.394736842,
        "fa": 0.002468533,
        "false_blobs": 16,
        "curve_pd": [
            0.684210526,
            0.684210526,
            0.578947368,
            0.473684211,
            0.421052632,
            0.394736842,
            0.368421053,
            0.289473684,
            0.184210526,
            0.052631579,
        ],
        "curve_fa": [
            0.004638672,
            0.004231771,
            0.003933377,
            0.003445095,
            0.003092448,
            0.002468533,
            0.001817491,
            0.001085069,
            0.000596788,
            0.000271267,
        ],
    },
}


@pytest.mark.parametrize("seed", EXPECTED)
def test_masks_score_as_pyirstdmetrics_scores_them(seed: int) -> None:
    expected = EXPECTED[seed]
    predicted = [probability > 0.5 for probability, _ in frames(seed)]
    scores = score_masks(predicted, [truth for _, truth in frames(seed)])
    found = {"iou": scores.iou, "niou": scores.niou, "pd": scores.pd}
    assert found == pytest.approx({name: expected[name] for name in found}, abs=1e-9)
    assert scores.fa_per_mpx == pytest.approx(1e6 * expected["fa"], abs=1e-3)
    blobs = sum(len(components_of_mask(mask).areas_px) for mask in predicted)
    assert blobs - scores.matched == expected["false_blobs"]


@pytest.mark.parametrize("seed", EXPECTED)
def test_curves_are_those_of_pyirstdmetrics(seed: int) -> None:
    """Ours are strict at a threshold as theirs are; no value lies on one."""
    thresholds = np.arange(BINS) / BINS
    total = np.zeros((BINS, 4), np.int64)
    targets = 0
    for probability, truth in frames(seed):
        points = components_of_mask(truth).centroids
        total += blob_counts(probability, thresholds, points, points)
        targets += len(points)
    pixels = SIZE * SIZE * len(frames(seed))
    assert total[:, 2] / targets == pytest.approx(EXPECTED[seed]["curve_pd"], abs=1e-9)
    assert total[:, 3] / pixels == pytest.approx(EXPECTED[seed]["curve_fa"], abs=1e-9)
