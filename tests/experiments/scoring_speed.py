"""Seconds of one core that scoring takes, ours and a loop over blobs and thresholds.

The loop is written from the description of the reference code's metric: for every threshold label
the frame, take the properties of each blob, match by the first near centroid. It needs
scikit-image, and nothing of irstd-edge:

    python tests/experiments/scoring_speed.py ours NUDT-SIRST predictions.npz
    python tests/experiments/scoring_speed.py loop predictions.npz

The predictions are the true masks, blurred, shifted by up to 2 px, a tenth left out, and false
blobs among them: how they look matters to scoring, not who made them. Both count time of the
process, so other programs do not matter; run them with OMP_NUM_THREADS=1.
"""

import sys
import time
from pathlib import Path

import numpy as np


def make(root: Path, file: Path) -> None:
    import cv2

    from irstd_edge.edge.dataset import open_dataset

    random = np.random.default_rng(0)
    probabilities, truths = [], []
    for sample in open_dataset(root).samples():
        mask = sample.mask.astype(np.float32) * (random.random() < 0.9)
        moved = np.roll(mask, random.integers(-2, 3, 2), (0, 1))
        for row, col in random.integers(0, np.array(mask.shape) - 4, (random.integers(0, 4), 2)):
            moved[row : row + 3, col : col + 3] = random.random()
        probabilities.append((255 * cv2.GaussianBlur(moved, (0, 0), 0.8)).astype(np.uint8))
        truths.append(sample.mask)
    np.savez_compressed(file, probability=np.stack(probabilities), truth=np.stack(truths))


def ours(file: Path) -> None:
    from irstd_edge.benchmarks.accuracy import evaluate
    from irstd_edge.benchmarks.curves import thresholds_with
    from irstd_edge.edge.dataset import points_of_mask
    from irstd_edge.edge.detect import predict_from_outputs
    from irstd_edge.edge.types import DecodeSpec, Frame, Sample

    held = np.load(file)
    samples, predictions = [], {}
    for index, (levels, truth) in enumerate(zip(held["probability"], held["truth"], strict=True)):
        frame = Frame(str(index), levels, 8)
        samples.append(Sample(frame, truth, points_of_mask(truth)))
        level = np.clip(levels / np.float32(255), 1e-6, 1 - 1e-6)
        logits = np.log(level / (1 - level))[None]
        predictions[frame.name] = predict_from_outputs([logits], truth.shape, DecodeSpec("mask"))
    start = time.process_time()
    found = evaluate(samples, lambda f: predictions[f.name], "native", 0.5).accuracy()
    spent = time.process_time() - start
    count = len(thresholds_with(0.5))
    print(f"ours: {spent:.2f} s, {len(samples)} frames, {count} thresholds, Pd {found['pd']:.4f}")


def loop(file: Path, thresholds: int) -> None:
    from skimage import measure

    held = np.load(file)
    levels = np.linspace(0, 1, thresholds, endpoint=False) * 255
    half, found, targets = thresholds // 2, 0, 0
    start = time.process_time()
    for probability, truth in zip(held["probability"], held["truth"], strict=True):
        for index, level in enumerate(levels):
            blobs = measure.regionprops(measure.label(probability > level, connectivity=2))
            wanted = measure.regionprops(measure.label(truth, connectivity=2))
            areas, matched = [blob.area for blob in blobs], []
            for target in wanted:
                for k, blob in enumerate(blobs):
                    apart = np.linalg.norm(np.array(blob.centroid) - np.array(target.centroid))
                    if apart < 3:
                        matched.append(areas[k])
                        del blobs[k], areas[k]
                        break
            if index == half:
                found, targets = found + len(matched), targets + len(wanted)
    spent = time.process_time() - start
    frames = len(held["truth"])
    print(
        f"loop: {spent:.2f} s, {frames} frames, {thresholds} thresholds, Pd {found / targets:.4f}"
    )


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    if what == "ours":
        if not Path(rest[1]).exists():
            make(Path(rest[0]), Path(rest[1]))
        ours(Path(rest[1]))
    else:
        for count in (10, 58):
            loop(Path(rest[0]), count)
