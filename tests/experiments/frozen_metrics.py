"""What pyirstdmetrics 1.0.2 says of seeded random frames; test_frozen_metrics.py holds us to it.

It needs NumPy 1, so it runs in an environment of its own, which needs nothing of this one:

    python3 -m venv /tmp/metrics
    /tmp/metrics/bin/pip install pyirstdmetrics==1.0.2 "numpy<2"
    /tmp/metrics/bin/python tests/experiments/frozen_metrics.py
"""

import json
from random import Random

import numpy as np

SIZE = 48
BINS = 10
"""Thresholds 0, 0.1, ... 0.9 of the curves."""


def frames(seed: int, count: int = 16) -> list[tuple[np.ndarray, np.ndarray]]:
    """(probability, truth) of each: targets that are found, shifted, missed, merged; clutter.

    Only the standard library's generator is drawn from: its stream is the same in every version.
    """
    random = Random(seed)
    drawn = []
    for _ in range(count):
        truth, probability = np.zeros((SIZE, SIZE), bool), np.zeros((SIZE, SIZE), np.float32)
        for _ in range(random.randint(1, 4)):
            row, col = random.randint(2, SIZE - 8), random.randint(2, SIZE - 8)
            high, wide = random.randint(1, 5), random.randint(1, 5)
            truth[row : row + high, col : col + wide] = True
            if random.random() < 0.8:
                down, right = random.randint(-2, 3), random.randint(-2, 3)
                _paint(random, probability, (row + down, col + right, high, wide))
        for _ in range(random.randint(0, 4)):
            corner = random.randint(0, SIZE - 6), random.randint(0, SIZE - 6)
            _paint(random, probability, (*corner, random.randint(1, 4), random.randint(1, 4)))
        drawn.append((probability, truth))
    return drawn


def _paint(random: Random, probability: np.ndarray, box: tuple[int, int, int, int]) -> None:
    """Lay a blob over what is there; its values lie between the thresholds, never on one."""
    row, col, high, wide = box
    top = random.randint(1, 9)
    for i in range(max(row, 0), min(row + high, SIZE)):
        for j in range(max(col, 0), min(col + wide, SIZE)):
            value = (10 * random.randint(max(top - 2, 0), top) + 5) / 100
            probability[i, j] = max(probability[i, j], value)


def reference(seed: int) -> dict[str, object]:
    """The other package's numbers, at threshold 0.5 and at every one of the curves."""
    import py_irstd_metrics as metrics

    pixels = metrics.CMMetrics(
        metric_handlers={
            "iou": metrics.IoUHandler(sample_based=False),
            "niou": metrics.IoUHandler(sample_based=True),
        }
    )
    single = metrics.ProbabilityDetectionAndFalseAlarmRate()
    curve = metrics.ProbabilityDetectionAndFalseAlarmRate(num_bins=BINS)
    for probability, truth in frames(seed):
        for each in (pixels, single, curve):
            each.update(probability.astype(np.float64), truth)
    areas, points, along = pixels.get(), single.get(), curve.get()
    return {
        "iou": float(areas["iou"]["binary"]),
        "niou": float(areas["niou"]["binary"]),
        "pd": float(points["probability_detection"][0]),
        "fa": float(points["false_alarm"][0]),
        "false_blobs": int(single.fp_objs[0]),
        "curve_pd": along["probability_detection"].tolist(),
        "curve_fa": along["false_alarm"].tolist(),
    }


if __name__ == "__main__":
    print(json.dumps({str(seed): reference(seed) for seed in (1, 2, 3)}, indent=4))
