"""The average of weights of one network, judged on held-out frames.

python tests/experiments/average.py ONE TWO ... --data NUDT-SIRST [--data ...] --out FILE

A file that is named twice counts twice. `--restate` estimates MSHNet's statistics of batch
normalisation anew, on the frames to train on.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from torch.optim.swa_utils import update_bn

from irstd_edge.benchmarks.operating_point import held_out_scores
from irstd_edge.edge.dataset import open_dataset
from irstd_edge.edge.runners import torch_runner
from irstd_edge.edge.types import ModelSpec, Sample
from irstd_edge.models.batches import epoch_crops, labelled, mask_batch
from irstd_edge.models.mshnet import MSHNet, normalise
from irstd_edge.models.recipes import AS_TAKEN
from irstd_edge.models.weights import (
    find_weights,
    load_model,
    model_from_state,
    save_weights,
    spec_of_card,
)

OF_ONE_RUN = ("epoch", "loss", "lr")
"""Parts of a card that an average has not."""


def mean_of(states: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The mean of each tensor; counters are those of the first."""
    return {
        key: torch.stack([state[key] for state in states]).mean(0)
        if value.is_floating_point()
        else value
        for key, value in states[0].items()
    }


def usable(data: list[Path], part: str) -> list[Sample]:
    """The frames of a part of all data sets."""
    found = [sample for root in data for sample in open_dataset(root, part).samples()]
    return [sample for sample in found if isinstance(sample, Sample)]


def restate(net: MSHNet, samples: list[Sample], spec: ModelSpec) -> None:
    """Estimate the statistics of normalisation anew: averaged weights make other activations.

    Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018,
    section 3.2.
    """
    frames = [labelled(sample, spec.input) for sample in samples]
    how = replace(AS_TAKEN, aim=0.0, gain=0.0, offset=0.0)
    crops = epoch_crops(frames, how, batch_size=16, seed=0, epoch=0)
    update_bn((normalise(mask_batch(batch)[0]) for batch in crops), net)


def main() -> None:
    """Write FILE, with the card of ONE and its own scores, and print these."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", nargs="+", type=find_weights)
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument("--restate", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    loaded = [load_model(path) for path in options.weights]
    _, model, card = loaded[0]
    net = model_from_state(model, mean_of([n.state_dict() for n, _, _ in loaded]), options.out)
    spec = spec_of_card(model, card)
    if options.restate:
        assert isinstance(net, MSHNet)
        restate(net, usable(options.data, "train"), spec)
    with torch_runner(net.eval().deploy(), spec) as run:
        scores = held_out_scores(run.predict, usable(options.data, "val"))
    card = {key: value for key, value in card.items() if key not in OF_ONE_RUN} | {
        "scores": scores,
        "threshold": scores["threshold"],
        "operating_points": scores["operating_points"],
    }
    save_weights(options.out, model, net, card)
    print({key: value for key, value in scores.items() if key != "operating_points"})


if __name__ == "__main__":
    main()
