import copy

import pytest
import torch
from torch import nn

from irstd_edge.edge.types import Sample
from irstd_edge.models import create_model, spec_of
from irstd_edge.models import learner as of_learner
from irstd_edge.models.batches import Augmentation, Labelled, labelled
from irstd_edge.models.launch import launch
from irstd_edge.models.learner import Learner
from irstd_edge.models.mshnet import MSHNet
from irstd_edge.models.optimizers import on_device, optimizer_of, portable
from irstd_edge.models.p2p import P2P
from irstd_edge.models.recipes import Recipe

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def learner(net: MSHNet | P2P, *, optimizer: str, joined: float = 0.0) -> Learner:
    loss = "points" if isinstance(net, P2P) else "soft-iou-bce"
    crops = (Augmentation(64, joined=joined),)
    recipe = Recipe(loss, 4, 4, 1e-3, optimizer, crops, (), average_share=0.3)
    return Learner(copy.deepcopy(net), recipe, 0, launch("cuda"), fine_tunes=True)


@pytest.fixture(autouse=True)
def one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a process that imports torch first: fifteen take a minute to start."""
    monkeypatch.setattr(of_learner, "workers_for", lambda device, processes: 1)


@pytest.fixture
def frames(samples: list[Sample]) -> list[Labelled]:
    return [labelled(sample, spec_of("p2p").input) for sample in samples] * 2


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("model", ["mshnet", "p2p"])
def test_replayed_steps_teach_what_single_kernels_teach(
    model: str, optimizer: str, frames: list[Labelled]
) -> None:
    net = create_model(model)
    replayed, single = learner(net, optimizer=optimizer), learner(net, optimizer=optimizer)
    assert replayed.graphed is not None
    single.graphed = None
    losses = [[one.learn(frames, epoch) for epoch in range(4)] for one in (replayed, single)]
    assert losses[0] == pytest.approx(losses[1], rel=0.03)
    assert losses[0][3] < 0.95 * losses[0][0]
    # Statistics of a batch drift apart in bfloat16; how far the weights went does not.
    far = [distance(net, one) for one in (replayed, single)]
    assert far[0] == pytest.approx(far[1], rel=0.1)


def distance(start: nn.Module, now: Learner) -> float:
    """How far the weights went from where they started."""
    there = dict(now.inner.named_parameters())
    gone = [(there[name].detach().cpu() - p).norm() for name, p in start.named_parameters()]
    return float(torch.stack(gone).norm())


def test_batches_of_two_shapes_take_turns(frames: list[Labelled]) -> None:
    net = create_model("mshnet")
    both = learner(net, optimizer="muon", joined=0.5)
    single = learner(net, optimizer="muon", joined=0.5)
    single.graphed = None
    losses = [[one.learn(frames, epoch) for epoch in range(4)] for one in (both, single)]
    assert losses[0] == pytest.approx(losses[1], rel=0.03)
    assert both.graphed is not None and len(both.graphed.recorded) == 2


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_an_optimizer_goes_on_from_gpu_to_cpu_and_back(
    optimizer: str, frames: list[Labelled]
) -> None:
    net = create_model("p2p")
    first = learner(net, optimizer=optimizer)
    first.learn(frames, 0)
    state = first.optimizer_state()
    recipe = first.recipe
    at_home = copy.deepcopy(first.inner).cpu()
    on_cpu = optimizer_of(at_home, recipe)
    on_cpu.load_state_dict(on_device(state, on_cpu))
    for parameter in at_home.parameters():
        parameter.grad = torch.ones_like(parameter)
    on_cpu.step()
    back = learner(at_home, optimizer=optimizer)
    back.optimizer.load_state_dict(on_device(portable(on_cpu.state_dict()), back.optimizer))
    assert back.learn(frames, 1) == pytest.approx(first.learn(frames, 1), rel=0.2)
    assert back.learn(frames, 2) > 0, "recorded"
