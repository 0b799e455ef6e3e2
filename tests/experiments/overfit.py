"""How far MSHNet learns a few frames by heart: a table in Markdown.

python tests/experiments/overfit.py --data NUDT-SIRST [--weights FILE] [--frames 32] [--epochs 14]
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from irstd_edge.benchmarks.operating_point import held_out_scores
from irstd_edge.edge.dataset import open_dataset
from irstd_edge.edge.runners import torch_runner
from irstd_edge.edge.types import Sample
from irstd_edge.models import spec_of
from irstd_edge.models.batches import labelled
from irstd_edge.models.launch import launch
from irstd_edge.models.learner import Learner
from irstd_edge.models.mshnet import MSHNet
from irstd_edge.models.recipes import AS_TAKEN, Recipe
from irstd_edge.models.weights import find_weights, load_model

SPEC = spec_of("mshnet")
VARIANTS = [
    ("adamw", 5e-4, True),
    ("adamw", 5e-4, False),
    ("muon", 1e-3, True),
    ("muon", 1e-3, False),
]
"""Optimizer, highest learning rate, whether crops are turned by quarters as well as mirrored."""


def network(weights: Path) -> MSHNet:
    """The network to start from."""
    net = load_model(weights)[0]
    assert isinstance(net, MSHNet)
    return net


def learnt(net: MSHNet, recipe: Recipe, samples: Sequence[Sample]) -> MSHNet:
    """The network at its averaged weights."""
    learner = Learner(net, recipe, 0, launch("auto"), fine_tunes=True)
    frames = [labelled(sample, SPEC.input) for sample in samples]
    for epoch in range(recipe.epochs):
        learner.learn(frames, epoch)
    net.load_state_dict(learner.average)
    return net.cpu()


def iou(net: MSHNet, samples: Sequence[Sample]) -> str:
    """In percent, of the frames themselves, neither mirrored nor turned."""
    with torch_runner(net.deploy(), SPEC) as run:
        return f"{100 * held_out_scores(run.predict, samples)['iou']:.2f}"


def main() -> None:
    """Learn the same frames in every way, and print what each gives on them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=find_weights, default="mshnet")
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=14)
    options = parser.parse_args()
    every = [s for s in open_dataset(options.data, "train").samples() if isinstance(s, Sample)]
    chosen = np.random.default_rng(0).permutation(len(every))[: options.frames]
    samples = [every[at] for at in chosen]
    print(f"| optimizer | rate | frames are | IoU |\n|{'---|' * 4}", flush=True)
    print(f"| before | | | {iou(network(options.weights), samples)} |", flush=True)
    for optimizer, lr, turn in VARIANTS:
        how = (replace(AS_TAKEN, turn=turn),)
        recipe = Recipe(
            "soft-iou-bce", options.epochs, 4, lr, optimizer, how, until=(), final_share=0.6
        )
        net = learnt(network(options.weights), recipe, samples)
        kinds = "mirrored, turned" if turn else "mirrored"
        print(f"| {optimizer} | {lr:g} | {kinds} | {iou(net, samples)} |", flush=True)


if __name__ == "__main__":
    main()
