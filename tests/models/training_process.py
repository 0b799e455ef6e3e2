"""Train as options in JSON say, one training after another: for tests that need a process.

python training_process.py '[{"model": "p2p", "data": DIR, "out": RUN, "epochs": 4, ...}]'
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from irstd_edge.edge.dataset import open_dataset
from irstd_edge.edge.types import IrstdError, Sample
from irstd_edge.models.batches import Augmentation
from irstd_edge.models.recipes import recipe_of
from irstd_edge.models.train import train

SMALL = {"mshnet": Augmentation(32), "p2p": Augmentation(64)}


def main(
    *, model: str, data: str, out: str, recipe: dict[str, Any], resume: bool = False, seed: int = 0
) -> Path:
    """Train on the training list of a data set, with small crops on the CPU."""
    samples = [s for s in open_dataset(Path(data), "trainval").samples() if isinstance(s, Sample)]
    small = {"crops": (SMALL[model],), "until": ()}
    chosen = replace(recipe_of(model), **small, **recipe)
    return train(
        model,
        samples,
        Path(out),
        chosen,
        seed=seed,
        device="cpu",
        resume=resume,
        validate=lambda net: (
            {"score": net.state_dict()["stem.1.bias"].sum().item()} if model == "p2p" else {}
        ),
        validate_every=2,
        progress=lambda done: print(f"epoch {done.epoch}", flush=True),
    )


def told(**options: Any) -> None:
    """Print what a training gives, or the line that says why not."""
    try:
        print(main(**options), flush=True)
    except IrstdError as error:
        print(f"irstd-edge: {error}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for options in json.loads(sys.argv[1]):
        told(**options)
