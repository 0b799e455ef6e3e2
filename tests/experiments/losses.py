"""SLS against soft IoU, at equal budget, on MSHNet and on a plain U-Net: a table in Markdown.

python tests/experiments/losses.py --data NUDT-SIRST [--epochs 12] [--net U-Net] [--loss sls]

`--other NUAA-SIRST` measures each network on all of that data set's trainval, too.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from unet import UNet

from irstd_edge.benchmarks.operating_point import held_out_scores
from irstd_edge.edge.dataset import open_dataset
from irstd_edge.edge.runners import torch_runner
from irstd_edge.edge.types import Sample
from irstd_edge.models import spec_of
from irstd_edge.models.batches import Augmentation, labelled
from irstd_edge.models.launch import launch
from irstd_edge.models.learner import Learner
from irstd_edge.models.mshnet import MSHNet, normalise
from irstd_edge.models.recipes import Recipe

NETS = {"MSHNet": MSHNet, "U-Net": UNet}
LOSSES = ("sls", "soft-iou")
CROPS, UNTIL = (Augmentation(64), Augmentation(128)), (0.8,)


class Grey(nn.Module):
    """A network of three channels, for the one-channel frame in 0..1."""

    def __init__(self, net: MSHNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(normalise(x))


def trained(net: MSHNet, recipe: Recipe, fit: Sequence[Sample]) -> MSHNet:
    """The network at its averaged weights."""
    learner = Learner(net, recipe, 0, launch("auto"), fine_tunes=False)
    frames = [labelled(sample, spec_of("mshnet").input) for sample in fit]
    for epoch in range(recipe.epochs):
        learner.learn(frames, epoch)
    net.load_state_dict(learner.average)
    return net.cpu().eval()


def samples_of(root: Path, split: str) -> list[Sample]:
    """The frames of a part of a data set that can be used."""
    return [s for s in open_dataset(root, split).samples() if isinstance(s, Sample)]


def main() -> None:
    """Train them, and print what each gives on the held-out frames."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--net", choices=NETS, help="this one alone")
    parser.add_argument("--loss", choices=LOSSES, help="this one alone")
    parser.add_argument("--other", type=Path, help="data set to measure on as well")
    options = parser.parse_args()
    fit = samples_of(options.data, "train")
    measured_on = {f"{options.data.name} held out": samples_of(options.data, "val")}
    if options.other:
        both = samples_of(options.other, "train") + samples_of(options.other, "val")
        measured_on[f"{options.other.name} trainval"] = both
    print("| network | loss | measured on | IoU | nIoU | Pd | Fa per Mpx |")
    print(f"|{'---|' * 7}", flush=True)
    for title in [options.net] if options.net else NETS:
        for loss in [options.loss] if options.loss else LOSSES:
            torch.manual_seed(0)
            recipe = Recipe(loss, options.epochs, 16, 1e-3, crops=CROPS, until=UNTIL, warm_epochs=6)
            net = trained(NETS[title](), recipe, fit)
            with torch_runner(Grey(net).eval(), spec_of("mshnet")) as run:
                for where, samples in measured_on.items():
                    found = held_out_scores(run.predict, samples)
                    percent = [f"{100 * found[key]:.2f}" for key in ("iou", "niou", "pd")]
                    cells = (title, loss, where, *percent, f"{found['fa_per_mpx']:.1f}")
                    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
