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


def test_each_step_has_its_rate_its_share_of_the_average_and_a_bounded_gradient(
    samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    crops = (Augmentation(32), Augmentation(64))
    recipe = Recipe("points", 4, 4, 1e-3, crops=crops, until=(0.5,), max_norm=0.25)
    learner = Learner(create_model("p2p"), recipe, 0, launch.launch("cpu"), fine_tunes=True)
    rates, sizes, norms, weights = ([] for _ in range(4))
    step = learner.optimizer.step

    def watched() -> None:
        rates.append(learner.optimizer.param_groups[0]["lr"])
        gradients = [p.grad for p in learner.inner.parameters() if p.grad is not None]
        norms.append(float(torch.stack([g.norm() for g in gradients]).norm()))
        weights.append(float(learner.ema_weight))
        step()

    monkeypatch.setattr(learner.optimizer, "step", watched)
    learner.inner.register_forward_pre_hook(lambda net, inputs: sizes.append(inputs[0].shape[-1]))
    frames = [labelled(sample, spec_of("p2p").input) for sample in samples]
    for epoch in range(recipe.epochs):
        learner.learn(frames, epoch)
    steps = len(rates)
    assert steps == 8 and sizes == [32] * 4 + [64] * 4
    assert rates == pytest.approx([recipe.lr_at((at + 1) / steps) for at in range(steps)])
    assert weights == pytest.approx([1 - recipe.decay_at(at, steps) for at in range(steps)])
    assert max(norms) == pytest.approx(recipe.max_norm, rel=1e-3)
