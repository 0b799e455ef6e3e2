from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from irstd_edge.edge.types import Sample
from irstd_edge.models import create_model, spec_of, train
from irstd_edge.models.batch_statistics import UNCHANGED, restate
from irstd_edge.models.batches import Augmentation, Labelled, epoch_crops, labelled, mask_batch
from irstd_edge.models.mshnet import MSHNet, normalise
from irstd_edge.models.recipes import recipe_of
from irstd_edge.models.weights import find_weights, load_state

LivedIn = Callable[[nn.Module], nn.Module]


@pytest.fixture
def frames(samples: list[Sample]) -> list[Labelled]:
    return [labelled(sample, spec_of("mshnet").input) for sample in samples]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    how = replace(UNCHANGED, size_px=32)
    monkeypatch.setattr("irstd_edge.models.batch_statistics.UNCHANGED", how)
    monkeypatch.setattr("irstd_edge.models.batch_statistics.BATCH", 4)


def test_statistics_are_those_of_the_frames(frames: list[Labelled], lived_in: LivedIn) -> None:
    net = create_model("mshnet")
    assert isinstance(net, MSHNet)
    lived_in(net)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    restate(net, frames)
    assert not net.training
    how = replace(UNCHANGED, size_px=32)
    batches = list(epoch_crops(frames, how, batch_size=4, seed=0, epoch=0))
    assert len(batches) == 2
    block = net.encoder_0[0]
    maps = [block.conv1(net.conv_init(normalise(mask_batch(crops)[0]))) for crops in batches]
    mean = torch.stack([x.mean((0, 2, 3)) for x in maps]).mean(0)
    variance = torch.stack([x.var((0, 2, 3)) for x in maps]).mean(0)
    torch.testing.assert_close(block.bn1.running_mean, mean)
    torch.testing.assert_close(block.bn1.running_var, variance)
    for key, value in net.state_dict().items():
        of_statistics = key.rsplit(".", 1)[1] in ("running_mean", "running_var")
        if value.is_floating_point():
            assert torch.equal(value, before[key]) != of_statistics, key
    assert block.bn1.momentum == 0.1, "as it was, for whoever trains on"


def test_a_share_of_the_start_has_statistics_of_its_own(
    samples: list[Sample], frames: list[Labelled], tmp_path: Path
) -> None:
    recipe = replace(
        recipe_of("mshnet", "finetune", epochs=2, batch_size=4),
        crops=(Augmentation(32, turn=False),),
        average_share=0.0,
    )
    mixed = replace(recipe, start_share=0.5)
    start = find_weights("mshnet")
    paths = [
        train.train("mshnet", samples, tmp_path / name, how, weights=start, device="cpu")
        for name, how in (("plain", recipe), ("mixed", mixed))
    ]
    states = [load_state(path, "mshnet") for path in (start, *paths)]
    net = create_model("mshnet")
    assert isinstance(net, MSHNet)
    net.load_state_dict(
        {
            key: value.lerp(states[1][key], 0.5) if value.is_floating_point() else states[1][key]
            for key, value in states[0].items()
        }
    )
    restate(net, frames)
    for key, value in net.state_dict().items():
        torch.testing.assert_close(states[2][key], value, rtol=1e-4, atol=1e-5)
