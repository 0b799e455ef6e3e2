import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adagrad, AdamW, Muon

from irstd_edge.models import create_model, optimizers
from irstd_edge.models.optimizers import (
    KernelMuon,
    on_device,
    optimizer_of,
    portable,
    set_rate,
)
from irstd_edge.models.recipes import Recipe

RECIPE = Recipe("dice", epochs=10, batch_size=4, lr=0.01, optimizer="muon")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 1, 1))
    return net.to(memory_format=torch.channels_last)


def steps(net: nn.Module, optimizer: torch.optim.Optimizer, count: int, first: int = 0) -> None:
    for step in range(first, first + count):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(4, 8, 12, 12, generator=generator)
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()


def moved(before: nn.Module, after: nn.Module) -> dict[str, torch.Tensor]:
    old = dict(before.named_parameters())
    return {name: (p - old[name]).detach() for name, p in after.named_parameters()}


@pytest.mark.parametrize(
    ("name", "kind"), [("adamw", AdamW), ("muon", KernelMuon), ("adagrad", Adagrad)]
)
def test_a_recipe_names_its_optimizer(name: str, kind: type) -> None:
    assert type(optimizer_of(network(), Recipe("dice", 1, 1, 1.0, name))) is kind


def test_a_kernel_goes_as_far_in_every_direction() -> None:
    net, old = network(), network()
    steps(net, optimizer_of(net, RECIPE), 1)
    delta = moved(old, net)["0.weight"].flatten(1)
    lengths = torch.linalg.svdvals(delta) / (0.01 * 0.2 * 72**0.5)
    assert lengths.shape == (16,)
    assert 0.5 < lengths.min() and lengths.max() < 1.4
    assert delta.square().mean().sqrt() == pytest.approx(0.01 * 0.2, rel=0.25), "as AdamW's"
    plain = copy.deepcopy(old)
    steps(plain, SGD(plain.parameters(), lr=0.01), 1)
    assert (delta * moved(old, plain)["0.weight"].flatten(1)).sum() > 0, "down"
    other = torch.linalg.svdvals(moved(old, plain)["0.weight"].flatten(1))
    assert other.max() > 10 * other.min()


def test_all_but_kernels_moves_as_adamw_moves_it() -> None:
    net, other, old = network(), network(), network()
    steps(net, optimizer_of(net, RECIPE), 1)
    steps(other, optimizer_of(other, Recipe("dice", 10, 4, 0.01)), 1)
    ours, its = moved(old, net), moved(old, other)
    for name in ("0.bias", "1.weight", "1.bias", "2.weight", "2.bias"):
        torch.testing.assert_close(ours[name], its[name])
        assert ours[name].abs().max() > 0 or name == "0.bias"
    assert not torch.allclose(ours["0.weight"], its["0.weight"], atol=1e-4)


def test_the_rate_that_is_set_is_the_rate() -> None:
    net, other, old = network(), network(), network()
    steps(net, optimizer_of(net, RECIPE), 1)
    optimizer = optimizer_of(other, Recipe("dice", 10, 4, 1.0, "muon", weight_decay=0.0))
    for group in optimizer.param_groups:
        group["lr"] = 0.001
    steps(other, optimizer, 1)
    for name, by in moved(old, net).items():
        torch.testing.assert_close(moved(old, other)[name], by / 10, rtol=1e-2, atol=1e-5)


def test_it_goes_on_from_its_state() -> None:
    undisturbed, first = network(), network()
    steps(undisturbed, optimizer_of(undisturbed, RECIPE), 6)
    optimizer = optimizer_of(first, RECIPE)
    steps(first, optimizer, 3)
    second = copy.deepcopy(first)
    resumed = optimizer_of(second, RECIPE)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(second, resumed, 3, first=3)
    for name, p in second.named_parameters():
        assert torch.equal(p, undisturbed.get_parameter(name)), name


@pytest.mark.parametrize("model", ["mshnet", "p2p"])
def test_every_parameter_of_a_detector_is_taken_once(model: str) -> None:
    net = create_model(model).to(memory_format=torch.channels_last)
    optimizer = optimizer_of(net, RECIPE)
    assert isinstance(optimizer, KernelMuon)
    taken = optimizer.kernels + optimizer.rest
    assert {id(p) for p in taken} == {id(p) for p in net.parameters()}
    assert len(taken) == len(list(net.parameters()))
    share = sum(p.numel() for p in optimizer.kernels) / sum(p.numel() for p in net.parameters())
    assert share > (0.98 if model == "mshnet" else 0.96)


def test_a_depthwise_kernel_is_no_matrix() -> None:
    depthwise, whole = nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 16, 3)
    net = nn.Sequential(depthwise, whole).to(memory_format=torch.channels_last)
    optimizer = optimizer_of(net, RECIPE)
    assert isinstance(optimizer, KernelMuon)
    assert [p is whole.weight for p in optimizer.kernels] == [True]


def test_the_layout_of_a_kernel_is_no_matter() -> None:
    last, first, old = network(), network().to(memory_format=torch.contiguous_format), network()
    for net in (last, first):
        steps(net, optimizer_of(net, RECIPE), 2)
    name = "0.weight"
    torch.testing.assert_close(moved(old, first)[name], moved(old, last)[name], rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(16, 72), (72, 16), (8, 8)])
@pytest.mark.parametrize("bfloat16", [False, True])
def test_a_matrix_becomes_nearly_orthogonal(
    shape: tuple[int, int], bfloat16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimizers, "multiplies_bfloat16", lambda device: bfloat16)
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    made, other = optimizers.orthogonal(torch.stack((matrix, 7 * matrix.flip(0))))
    torch.testing.assert_close(other, made.flip(0), rtol=0, atol=0.03 if bfloat16 else 1e-4)
    assert made.shape == matrix.shape and made.dtype == torch.float32
    lengths = torch.linalg.svdvals(made)
    assert 0.6 < lengths.min() and lengths.max() < 1.3
    # Of the same directions: U^T made V of matrix = U S V^T is diagonal.
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    turned = u.T @ made @ v.T
    assert (turned - turned.diag().diag()).abs().max() < (0.03 if bfloat16 else 1e-4)


def test_no_gradient_has_no_direction() -> None:
    assert not optimizers.orthogonal(torch.zeros(1, 8, 16)).any()


def test_steps_are_those_of_torch() -> None:
    net = network()
    kernel = net[0].weight
    matrix = nn.Parameter(kernel.detach().flatten(1).clone())
    ours = optimizer_of(net, RECIPE)
    its = Muon([matrix], RECIPE.lr, RECIPE.weight_decay, adjust_lr_fn="match_rms_adamw")
    for seed in range(3):
        grad = torch.randn(kernel.shape, generator=torch.Generator().manual_seed(seed))
        kernel.grad, matrix.grad = grad, grad.flatten(1).clone()
        ours.step()
        its.step()
    # bfloat16, in which torch multiplies, has three digits.
    torch.testing.assert_close(kernel.flatten(1), matrix, rtol=0, atol=2e-4)
    assert (kernel - network()[0].weight).abs().max() > 2e-3


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_state_leaves_its_device_behind(name: str) -> None:
    net = network()
    optimizer = optimizer_of(net, Recipe("dice", 10, 4, 0.01, name))
    steps(net, optimizer, 2)
    plain = portable(optimizer.state_dict())
    # As on a GPU: rates are tensors there, and steps may be recorded.
    for part in (optimizer, getattr(optimizer, "adamw", optimizer)):
        for group in part.param_groups:
            group |= {"lr": torch.tensor(0.01)} | ({"capturable": True} if "betas" in group else {})
    state = optimizer.state_dict()
    for group, before in zip(groups(portable(state)), groups(plain), strict=True):
        assert isinstance(group["lr"], float) and group["lr"] == pytest.approx(before["lr"])
        assert group.get("capturable") == before.get("capturable")
    there = on_device(plain, optimizer)
    for group in groups(there):
        assert group["lr"] == pytest.approx(0.01) and isinstance(group["lr"], torch.Tensor)
        assert group.get("capturable", True)
    assert on_device(plain, optimizer_of(net, Recipe("dice", 10, 4, 0.01, name))) == plain


def groups(state: dict[str, Any]) -> list[dict[str, Any]]:
    parts = state.values() if "muon" in state else [state]
    return [group for part in parts for group in part["param_groups"]]


def test_a_rate_that_is_read_in_place_is_set_in_place() -> None:
    net = network()
    optimizer = optimizer_of(net, RECIPE)
    set_rate(optimizer, 0.5)
    assert optimizer.param_groups[0]["lr"] == 0.5
    rate = torch.tensor(0.1)
    optimizer.param_groups[0]["lr"] = rate
    set_rate(optimizer, 0.25)
    assert optimizer.param_groups[0]["lr"] is rate and rate.item() == 0.25
