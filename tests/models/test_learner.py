import pytest
import torch
from torch import nn

from irstd_edge.edge.types import Sample
from irstd_edge.models import create_model, launch, spec_of
from irstd_edge.models.batches import Augmentation, labelled
from irstd_edge.models.learner import Learner
from irstd_edge.models.recipes import Recipe


@pytest.mark.parametrize(("model", "loss"), [("mshnet", "soft-iou-bce"), ("p2p", "points")])
@pytest.mark.parametrize(("pays", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_every_convolution_learns_in_the_precision_of_the_device(
    model: str,
    loss: str,
    pays: bool,
    dtype: torch.dtype,
    samples: list[Sample],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(launch, "multiplies_bfloat16", lambda device: pays)
    recipe = Recipe(loss, 1, 2, 1e-3, crops=(Augmentation(32),), until=())
    learner = Learner(create_model(model), recipe, 0, launch.launch("cpu"), fine_tunes=True)
    seen = set()
    for module in learner.inner.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    learner.learn([labelled(sample, spec_of(model).input) for sample in samples[:2]], 0)
    assert seen == {dtype}
    assert {p.dtype for p in learner.inner.parameters()} == {torch.float32}
