import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from irstd_edge.edge.detect import LOG_SIGMA_RANGE
from irstd_edge.models import create_model
from irstd_edge.models.p2p import (
    P2P,
    Attention,
    CrossFusion,
    DynamicConv,
    DynamicStage,
    DynamicUnit,
    PointHead,
    StaticUnit,
    trade,
)

PARAMETERS, MACS = 0.24e6, 1.53e9  # of the paper's abstract


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def test_it_has_the_papers_parameters() -> None:
    count = sum(p.numel() for p in create_model("p2p").parameters())
    assert count == pytest.approx(PARAMETERS, rel=0.02)


@pytest.mark.parametrize("deployed", [False, True])
@torch.no_grad()
def test_it_has_the_papers_multiply_accumulates(deployed: bool) -> None:
    net = P2P().eval()
    with FlopCounterMode(display=False) as counter:
        (net.deploy() if deployed else net)(torch.zeros(1, 1, 256, 256))
    assert counter.get_total_flops() / 2 == pytest.approx(MACS, rel=0.05)


def dynamic_kernels(
    conv: DynamicConv, into: Tensor, out: Tensor, taps: tuple[Tensor, ...], vertical: bool
) -> Tensor:
    """ODConv as its paper writes it, W * a_c * a_f * a_s: a kernel per sample, (N, F, C, h, w)."""
    shape = (3, 1) if vertical else (1, 3)
    weight = conv.conv.weight
    if conv.spatial:  # (F, 3 C, 1, 1), the copies one after another -> (F, C, h, w)
        weight = torch.stack(weight.chunk(3, 1), -1).reshape(len(weight), -1, *shape)
    n = len(into)
    kernels = weight[None] * into.view(n, 1, -1, 1, 1) * out.view(n, -1, 1, 1, 1)
    return kernels * torch.cat(taps, 1).view(n, 1, 1, *shape) if conv.spatial else kernels


def per_sample_conv(x: Tensor, kernels: Tensor) -> Tensor:
    """Convolve each sample by its own kernel: a grouped convolution with the batch as groups."""
    n, _, _, height, width = kernels.shape
    y = F.conv2d(
        x.reshape(1, -1, *x.shape[2:]),
        kernels.flatten(0, 1),
        padding=(height // 2, width // 2),
        groups=n,
    )
    return y.view(n, -1, *x.shape[2:])


@pytest.mark.parametrize("spatial", [False, True])
@pytest.mark.parametrize("vertical", [False, True])
@torch.no_grad()
def test_scaled_activations_equal_the_papers_kernels(vertical: bool, spatial: bool) -> None:
    conv = DynamicConv(6, vertical, spatial).double()
    x = random(3, 6, 7, 5)
    into, out = random(3, 6, 1, 1, seed=1).sigmoid(), random(3, 6, 1, 1, seed=2).sigmoid()
    taps = random(3, 3, 1, 1, seed=3).sigmoid().split(1, 1)
    expected = per_sample_conv(x, dynamic_kernels(conv, into, out, taps, vertical))
    torch.testing.assert_close(conv(x * into, taps) * out, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("spatial", [False, True])
@torch.no_grad()
def test_a_unit_is_two_of_the_papers_convolutions(lived_in, spatial: bool) -> None:
    unit = lived_in(DynamicUnit(32, spatial)).double()
    x = random(2, 32, 9, 6)
    in1, out1, in2, out2, taps1, taps2 = unit.attention(x)
    y = per_sample_conv(x, dynamic_kernels(unit.conv1, in1, out1, taps1, True))
    y = per_sample_conv(unit.bn1(y).relu(), dynamic_kernels(unit.conv2, in2, out2, taps2, False))
    expected = (x + unit.bn2(y)).relu()
    torch.testing.assert_close(unit(x), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(StaticUnit(unit)(x), expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_attentions_depend_on_the_frame_and_soften_with_temperature(lived_in) -> None:
    attention = lived_in(Attention(32, taps=3)).double()
    x = random(4, 32, 5, 5)

    def weights() -> Tensor:
        w = attention(x)
        return torch.cat((*w[:4], *w.taps1, *w.taps2), 1)

    sharp = weights()
    assert sharp.shape == (4, 4 * 32 + 2 * 3, 1, 1)
    assert sharp.std(0).max() > 0.01
    attention.temperature = 30.0
    soft = weights()
    assert ((soft - 0.5).abs() <= (sharp - 0.5).abs()).all()
    assert (soft - 0.5).abs().max() < 0.1 < (sharp - 0.5).abs().max()
    # softer by exactly that factor: it divides the logits
    torch.testing.assert_close(30 * soft.logit(), sharp.logit(), rtol=1e-6, atol=1e-9)


@torch.no_grad()
def test_temperature_reaches_every_attention() -> None:
    net = P2P()
    net.set_temperature(7.5)
    found = [m.temperature for m in net.modules() if isinstance(m, Attention)]
    assert found == [7.5] * 8


def test_every_channel_is_active_in_its_turn() -> None:
    waiting = list(torch.arange(8).view(1, 8, 1, 1).chunk(2, 1))
    active = torch.arange(8, 16).view(1, 8, 1, 1)
    seen = set()
    for _ in range(4):
        seen |= set(active.flatten().tolist())
        waiting, active = trade(waiting, active)
        assert set(torch.cat((*waiting, active), 1).flatten().tolist()) == set(range(16))
    assert seen == set(range(16))


@pytest.mark.parametrize("count", [1, 2, 4])
@torch.no_grad()
def test_a_stage_is_its_units_and_a_shuffle_of_halves(lived_in, count: int) -> None:
    """What shipped weights were trained for: the same channels in the same order."""
    stage = lived_in(DynamicStage(64, count, spatial=True)).double()
    x = random(2, 64, 5, 4)
    keep, active = x.chunk(2, 1)
    for unit in stage.units:
        kept, done = keep.chunk(2, 1), unit(active).chunk(2, 1)
        keep, active = torch.cat((kept[1], done[1]), 1), torch.cat((kept[0], done[0]), 1)
    assert torch.equal(stage(x), torch.cat((keep, active), 1))


@torch.no_grad()
def test_attentions_lie_in_this_order(lived_in) -> None:
    attention = lived_in(Attention(8, taps=3)).double()
    x = random(2, 8, 5, 4)
    z = attention.reduce(x.mean((2, 3), keepdim=True)).relu()
    every = attention.expand(z).sigmoid()
    weights = attention(x)
    for index, channels in enumerate(weights[:4]):
        assert torch.equal(channels, every[:, 8 * index : 8 * index + 8])
    assert torch.equal(torch.cat(weights.taps1, 1), every[:, 32:35])
    assert torch.equal(torch.cat(weights.taps2, 1), every[:, 35:38])


@torch.no_grad()
def test_a_stage_of_two_units_changes_every_channel(lived_in) -> None:
    stage = lived_in(DynamicStage(32, 2, spatial=False)).double()
    x = random(1, 32, 4, 4)
    y = stage(x)
    untouched = [c for c in range(32) if any(torch.equal(x[0, c], y[0, k]) for k in range(32))]
    active_first = set(range(16, 32))
    assert active_first.isdisjoint(untouched)
    assert len(untouched) == 8, "half of the kept half waits for the next unit"


@pytest.mark.parametrize("target", [0, 1])
@torch.no_grad()
def test_gates_of_a_fusion_sum_to_one(lived_in, target: int) -> None:
    """Levels that agree come out as they are: what mixes them are weights that sum to one."""
    fusion = lived_in(CrossFusion((4, 4, 4), target)).double()
    fusion.align = nn.ModuleList(
        nn.AvgPool2d(2) if index < target else nn.Identity() for index in range(3)
    )
    colour = random(2, 4, 1, 1).abs()
    levels = [colour.expand(2, 4, 16 // 2**i, 24 // 2**i) for i in range(3)]
    expected = colour.expand(2, 4, 16 // 2**target, 24 // 2**target)
    torch.testing.assert_close(fusion(levels), expected)


@torch.no_grad()
def test_a_fusion_is_the_gated_sum_on_the_target_grid(lived_in) -> None:
    """Literally: every level brought to the grid first, then weighed, then added."""
    fusion = lived_in(CrossFusion((4, 6, 8), 0)).double()
    fusion.align[1] = nn.Conv2d(6, 4, 1).double()
    fusion.align[2] = nn.Conv2d(8, 4, 1).double()
    levels = [random(2, 4, 16, 8), random(2, 6, 8, 4, seed=1), random(2, 8, 4, 2, seed=2)]
    aligned = [
        F.interpolate(align(x), scale_factor=2.0**i, mode="nearest")
        for i, (align, x) in enumerate(zip(fusion.align, levels, strict=True))
    ]
    mean = sum(x.mean((2, 3), keepdim=True) for x in aligned)
    gates = fusion.expand(fusion.reduce(mean).relu()).view(2, 3, 4, 1, 1).softmax(1)
    expected = sum(gates[:, i] * x for i, x in enumerate(aligned)).relu()
    torch.testing.assert_close(fusion(levels), expected)


@torch.no_grad()
def test_log_sigma_is_clamped_and_offsets_are_not() -> None:
    head = PointHead(4, 4).eval()
    low, high = LOG_SIGMA_RANGE
    nn.init.zeros_(head.geometry.weight)
    for bias, expected in ((50.0, high), (-50.0, low), (0.3, 0.3)):
        nn.init.constant_(head.geometry.bias, bias)
        _, geometry = head(torch.zeros(1, 4, 2, 2))
        assert geometry[:, 2].flatten().tolist() == pytest.approx([expected] * 4)
        assert geometry[:, :2].flatten().tolist() == pytest.approx([bias] * 8)


@torch.no_grad()
def test_training_starts_with_one_target_in_a_hundred_cells() -> None:
    heatmap, _ = P2P().eval()(torch.rand(1, 1, 64, 64))
    assert heatmap.sigmoid().mean().item() == pytest.approx(0.01, abs=0.005)
    assert math.isclose(P2P().head.heatmap.bias.item(), -4.6, rel_tol=1e-6)


@pytest.mark.parametrize("shape", [(8, 8), (24, 40), (64, 32), (104, 8)])
@torch.no_grad()
def test_deploy_equals_forward_in_float64(lived_in, shape: tuple[int, int]) -> None:
    net = lived_in(P2P()).double()
    frames = random(2, 1, *shape).sigmoid()
    heatmap, geometry = net(frames)
    cells = (shape[0] // 2, shape[1] // 2)
    assert heatmap.shape == (2, 1, *cells)
    assert geometry.shape == (2, 3, *cells)
    deployed = net.deploy()
    for found, expected in zip(deployed(frames), (heatmap, geometry), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


class ConvolutionWeights(TorchDispatchMode):
    """Where in memory the kernels lie that convolutions are run with."""

    def __init__(self) -> None:
        super().__init__()
        self.places: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution.default:
            self.places.add(args[1].data_ptr())
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def test_deploy_holds_static_convolutions_alone(lived_in) -> None:
    net = lived_in(P2P())
    before = {key: value.clone() for key, value in net.state_dict().items()}
    deployed = net.deploy()
    kinds = {type(module) for module in deployed.modules()}
    assert not kinds & {nn.BatchNorm2d, DynamicUnit}
    assert StaticUnit in kinds
    assert not any(module.training for module in deployed.modules())
    with ConvolutionWeights() as used:
        deployed(torch.rand(1, 1, 16, 16))
    convolutions = [m for m in deployed.modules() if isinstance(m, nn.Conv2d)]
    assert used.places == {conv.weight.data_ptr() for conv in convolutions}
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
