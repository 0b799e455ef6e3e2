"""What p2p makes of points that are off by some pixels: a table in Markdown.

python tests/experiments/label_jitter.py --data NUDT-SIRST --other NUAA-SIRST [--epochs 20]
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from irstd_edge.benchmarks.accuracy import evaluate
from irstd_edge.benchmarks.operating_point import held_out_scores
from irstd_edge.edge.dataset import open_dataset
from irstd_edge.edge.runners import Runner, torch_runner
from irstd_edge.edge.types import Sample
from irstd_edge.models import create_model, spec_of
from irstd_edge.models.batches import Augmentation, labelled
from irstd_edge.models.launch import launch
from irstd_edge.models.learner import Learner
from irstd_edge.models.recipes import recipe_of

JITTERS_PX = (0, 1, 2)


def samples(data: Path, split: str) -> list[Sample]:
    """The usable frames of a split."""
    return [s for s in open_dataset(data, split).samples() if isinstance(s, Sample)]


def jittered(sample: Sample, jitter_px: int, random: np.random.Generator) -> Sample:
    """A sample whose points are off by up to so many pixels in rows and in columns, and no mask."""
    off = random.uniform(-jitter_px, jitter_px, sample.points.shape)
    inside = np.clip(sample.points + off, 0, np.array(sample.frame.shape) - 1)
    return replace(sample, mask=None, points=inside.astype(np.float32))


def trained(fit: Sequence[Sample], epochs: int) -> Runner:
    """p2p from scratch by the default recipe with fewer epochs."""
    torch.manual_seed(0)
    spec, recipe = spec_of("p2p"), recipe_of("p2p", epochs=epochs)
    recipe = replace(recipe, crops=(Augmentation(128), Augmentation(256)), until=(0.9,))
    frames = [labelled(sample, spec.input) for sample in fit]
    learner = Learner(create_model("p2p"), recipe, 0, launch("auto"), fine_tunes=False)
    for epoch in range(recipe.epochs):
        learner.learn(frames, epoch)
    net = create_model("p2p")
    net.load_state_dict({key: value.cpu() for key, value in learner.average.items()})
    return torch_runner(net.eval().deploy(), spec)


def row(run: Runner, threshold: float, frames: Sequence[Sample], words: Sequence[str]) -> str:
    """What a network finds in some frames."""
    scores = evaluate(frames, lambda frame: run.predict(frame, threshold), "native").metrics()
    f1_near, f1_wide, error = (
        math.nan if (value := scores[name]) is None else value
        for name in ("f1_3px", "f1_5px", "position_px")
    )
    figures = (f"{threshold:g}", f"{100 * f1_near:.2f}", f"{100 * f1_wide:.2f}", f"{error:.2f} px")
    return f"| {' | '.join((*words, *figures))} |"


def main() -> None:
    """Train with every jitter, and on the other data set; print what each finds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--other", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    own, other = (samples(folder, "train") for folder in (options.data, options.other))
    # Equal numbers of steps, however many frames there are.
    longer = round(options.epochs * len(own) / len(other))
    cases = [(options.data, options.other, own, px, options.epochs) for px in JITTERS_PX]
    cases.append((options.other, options.data, other, 0, longer))
    headings = "trained on | off by | seen | threshold | F1, 3 px | F1, 5 px | mean error"
    print(f"| {headings} |\n|{'---|' * 7}", flush=True)
    for home, abroad, fit, px, epochs in cases:
        random = np.random.default_rng(px)
        run = trained([jittered(sample, px, random) for sample in fit], epochs)
        held_out = samples(home, "val")
        threshold = held_out_scores(run.predict, held_out)["threshold"]
        words = (home.name, f"{px} px")
        print(row(run, threshold, held_out, (*words, f"{home.name} held out")), flush=True)
        foreign = samples(abroad, "trainval")
        print(row(run, threshold, foreign, (*words, f"{abroad.name} trainval")), flush=True)


if __name__ == "__main__":
    main()
