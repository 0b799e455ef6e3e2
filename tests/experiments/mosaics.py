"""What large frames cost: F1 of mosaics of frames, whole and by tiles, and frame by frame.

python tests/experiments/mosaics.py p2p --data NUDT-SIRST [--split test] [--mosaics 12]

A mosaic is 1280x1024: twenty frames of 256x256 in the order of the list, side by side. Its seams
are sharper than anything in a real frame.
"""

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from irstd_edge.benchmarks.accuracy import score_points
from irstd_edge.edge.dataset import open_dataset
from irstd_edge.edge.runners import Runner, torch_runner
from irstd_edge.edge.tiles import Tiling, predict_tiled
from irstd_edge.edge.types import Frame, Prediction, Sample
from irstd_edge.models.weights import load_model, spec_of_card

ROWS, COLS, SIDE = 4, 5, 256


def mosaics(samples: list[Sample]) -> Iterator[tuple[Frame, np.ndarray]]:
    """Frames of 1280x1024 and their (M, 2) points."""
    many = ROWS * COLS
    for first in range(0, len(samples), many):
        part = samples[first : first + many]
        counts = [[part[COLS * i + j].frame.counts for j in range(COLS)] for i in range(ROWS)]
        corners = [SIDE * np.array(divmod(k, COLS), np.float32) for k in range(many)]
        points = [s.points + corner for s, corner in zip(part, corners, strict=True)]
        yield Frame(f"mosaic{first}", np.block(counts), 8), np.concatenate(points)


def rows_of(prediction: Prediction) -> np.ndarray:
    """(K, 3) row, col, score."""
    return np.array([(d.row, d.col, d.score) for d in prediction.detections]).reshape(-1, 3)


def predicts_of(run: Runner, stride: int) -> dict[str, object]:
    """Name -> what predicts a mosaic that way."""
    tiles = {f"tiles of {side}": Tiling((side, side), stride) for side in (320, 512, 768, 1024)}
    by_tiles = {
        name: lambda frame, tiling=tiling: predict_tiled(run, frame, tiling)
        for name, tiling in tiles.items()
    }
    return {"whole": run.predict, **by_tiles}


def main() -> None:
    """Print a row of the table for each way to look."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--mosaics", type=int, default=12)
    options = parser.parse_args()
    net, model, card = load_model(options.weights)
    spec = spec_of_card(model, card)
    found = open_dataset(options.data, options.split).samples()
    frames = (s for s in found if isinstance(s, Sample) and s.frame.shape == (SIDE, SIDE))
    samples = list(islice(frames, options.mosaics * ROWS * COLS))
    samples = samples[: len(samples) // (ROWS * COLS) * ROWS * COLS]
    large = list(mosaics(samples))
    with torch_runner(net.deploy(), spec) as run:
        ways = {"frame by frame": ([(s.frame, s.points) for s in samples], run.predict)}
        ways |= {
            name: (large, predict) for name, predict in predicts_of(run, spec.input.stride).items()
        }
        print("| frames | F1 at 3 px | precision | recall |\n|---|---|---|---|")
        for name, (frames, predict) in ways.items():
            found = [rows_of(predict(frame)) for frame, _ in frames]
            score = score_points(found, [points for _, points in frames], 3.0)
            values = (score.f1, score.precision, score.recall)
            print(f"| {name} | " + " | ".join(f"{100 * value:.2f}" for value in values) + " |")


if __name__ == "__main__":
    main()
