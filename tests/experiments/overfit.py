"""How far a network learns a few frames by heart: a table in Markdown.

python tests/experiments/overfit.py mshnet|p2p --data NUDT-SIRST [--frames 32] [--epochs 14]
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
from irstd_edge.models import MODELS, spec_of
from irstd_edge.models.batches import labelled
from irstd_edge.models.launch import launch
from irstd_edge.models.learner import Learner
from irstd_edge.models.mshnet import MSHNet
from irstd_edge.models.p2p import P2P
from irstd_edge.models.recipes import AS_TAKEN, Recipe, recipe_of
from irstd_edge.models.weights import find_weights, load_model

RATES = {
    "mshnet": {"adamw": 5e-4, "muon": 1e-3},
    "p2p": {"adamw": 1e-3, "muon": 1e-3},
}
"""Highest learning rates of each optimizer."""


def network(weights: Path) -> MSHNet | P2P:
    """The network to start from."""
    net = load_model(weights)[0]
    assert isinstance(net, MSHNet | P2P)
    return net


def learnt(
    net: MSHNet | P2P, model: str, recipe: Recipe, samples: Sequence[Sample]
) -> tuple[float, MSHNet | P2P]:
    """The loss of the last epoch, and the network at its averaged weights."""
    learner = Learner(net, recipe, 0, launch("auto"), fine_tunes=True)
    frames = [labelled(sample, spec_of(model).input) for sample in samples]
    losses = [learner.learn(frames, epoch) for epoch in range(recipe.epochs)]
    net.load_state_dict(learner.average)
    return losses[-1], net.cpu().eval()


def score(net: MSHNet | P2P, model: str, samples: Sequence[Sample]) -> str:
    """IoU or F1 in percent, of the frames themselves, neither mirrored nor turned."""
    with torch_runner(net.deploy(), spec_of(model)) as run:
        return f"{100 * held_out_scores(run.predict, samples)['score']:.2f}"


def main() -> None:
    """Learn the same frames in every way, and print what each gives on them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=list(MODELS))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=14)
    options = parser.parse_args()
    weights, model = find_weights(options.model), options.model
    every = [s for s in open_dataset(options.data, "train").samples() if isinstance(s, Sample)]
    chosen = np.random.default_rng(0).permutation(len(every))[: options.frames]
    samples = [every[at] for at in chosen]
    print(f"| optimizer | rate | frames are | last loss | score |\n|{'---|' * 5}", flush=True)
    print(f"| before | | | | {score(network(weights).eval(), model, samples)} |", flush=True)
    finetune = recipe_of(model, "finetune", epochs=options.epochs)
    for optimizer, lr in RATES[model].items():
        for turn in (True, False):
            how = (replace(AS_TAKEN, turn=turn),)
            recipe = replace(finetune, optimizer=optimizer, lr=lr, crops=how, until=())
            loss, net = learnt(network(weights), model, recipe, samples)
            kinds = "mirrored, turned" if turn else "mirrored"
            said = f"{loss:.3f} | {score(net, model, samples)}"
            print(f"| {optimizer} | {lr:g} | {kinds} | {said} |", flush=True)


if __name__ == "__main__":
    main()
