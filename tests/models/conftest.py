"""Networks with numbers in every tensor, and frames to train on."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from irstd_edge.benchmarks.scenes import KINDS, scene
from irstd_edge.edge.types import Sample
from irstd_edge.models.batches import Augmentation
from irstd_edge.models.recipes import Recipe, recipe_of
from irstd_edge.models.train import train


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Sums are taken in one order, and the tests leave the machine's other core alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Fresh networks are the same in every run."""
    torch.manual_seed(0)


@pytest.fixture
def lived_in() -> Callable[[nn.Module], nn.Module]:
    """Give a network, in place, batch normalisations and biases that are not those of a start."""

    def fill(net: nn.Module, seed: int = 0) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        for key, value in net.state_dict().items():
            noise = torch.rand(value.shape, generator=generator, dtype=torch.float64)
            if key.endswith("running_var"):
                value.copy_(0.5 + noise)
            elif value.ndim == 1:
                value.add_(0.4 * (noise - 0.5))
        return net.eval()

    return fill


@pytest.fixture(scope="session")
def samples() -> list[Sample]:
    """Eight small synthetic frames, most with a target."""
    kinds = list(KINDS)
    scenes = [
        scene(np.random.default_rng([7, k]), (72, 96), 8, kinds[k % len(kinds)], f"{k:02d}")
        for k in range(8)
    ]
    return [Sample(drawn.frame, drawn.mask, drawn.points) for drawn in scenes]


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Recipe]:
    """Recipe of two steps an epoch on the eight frames of `samples`."""
    crops = {"mshnet": Augmentation(32), "p2p": Augmentation(64)}

    def recipe(model: str, epochs: int = 2, **changes: Any) -> Recipe:
        chosen = recipe_of(model, epochs=epochs, batch_size=4, lr=recipe_of(model).lr)
        return replace(chosen, **{"crops": (crops[model],), "until": (), **changes})

    return recipe


@pytest.fixture(scope="session")
def run(tiny: Callable[..., Recipe]) -> Callable[..., Path]:
    """Train on the CPU, by `tiny` unless told otherwise."""

    def trained(
        model: str, samples: list[Sample], out: Path, recipe: Recipe | None = None, **options: Any
    ) -> Path:
        return train(model, samples, out, recipe or tiny(model), device="cpu", **options)

    return trained


@pytest.fixture(scope="session")
def metrics() -> Callable[[Path], list[dict[str, Any]]]:
    """Read the metrics of a run."""
    return lambda out: [json.loads(x) for x in (out / "metrics.jsonl").read_text().splitlines()]
