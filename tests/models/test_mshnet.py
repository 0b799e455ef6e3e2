import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_block import PlainBlock

from irstd_edge.edge.dataset import open_dataset
from irstd_edge.edge.frames import normalise as normalise_frame
from irstd_edge.edge.types import InputSpec
from irstd_edge.models import create_model
from irstd_edge.models.mshnet import IMAGENET_MEAN, IMAGENET_STD, MSHNet, ResBlock, normalise

CLOSE = 1e-5


@pytest.fixture(scope="module")
def expected(golden: Path) -> dict[str, Any]:
    """What the authors' code gave, with the weights of `golden_net`."""
    return json.loads((golden / "mshnet_reference.json").read_text())["net"]


@pytest.fixture(scope="module")
def golden_net() -> MSHNet:
    net = MSHNet()
    state = {k: v for k, v in net.state_dict().items() if v.dtype == torch.float32}
    for i, (key, value) in enumerate(sorted(state.items())):
        n = torch.arange(value.numel(), dtype=torch.float64)
        t = torch.sin(1.37 * n + i).view(value.shape)
        if key.endswith("running_var"):
            t = 0.9 + t.abs()
        elif value.ndim == 1:
            t = 1 + 0.05 * t if key.endswith("weight") else 0.05 * t
        else:
            t = t * math.sqrt(3 * value.shape[0] / value.numel())
        value.copy_(t)
    return net.eval()


def three_channels(frames: torch.Tensor) -> torch.Tensor:
    """(N, 1, H, W) -> (N, 3, H, W), spelled out."""
    channels = [(frames - m) / s for m, s in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]
    return torch.cat(channels, 1)


def check(logits: torch.Tensor, expected: dict[str, Any]) -> None:
    """Hold a (1, 1, H, W) map against the figures of one in the golden file."""
    assert logits.argmax().item() == expected["argmax"]
    image = logits[0, 0].double()
    for name in ("mean", "std", "max"):
        assert getattr(image, name)().item() == pytest.approx(expected[name], rel=0, abs=CLOSE)
    for place, value in expected["at"].items():
        row, col = map(int, place.split(","))
        assert image[row, col].item() == pytest.approx(value, rel=0, abs=CLOSE), place


def test_it_has_the_papers_parameters() -> None:
    assert sum(p.numel() for p in create_model("mshnet").parameters()) == 4_065_513


def test_keys_shapes_and_types_are_the_authors(golden: Path) -> None:
    lines = (golden / "mshnet_state_dict_keys.txt").read_text().splitlines()
    ours = [f"{k}\t{tuple(v.shape)}\t{v.dtype}" for k, v in MSHNet().state_dict().items()]
    assert sorted(ours) == sorted(lines)
    assert len(lines) == 340


@torch.no_grad()
def test_outputs_are_the_authors_on_the_synthetic_input(
    golden_net: MSHNet, expected: dict[str, Any]
) -> None:
    n = torch.arange(3 * 256 * 256, dtype=torch.float64)
    x = torch.cos(0.011 * n).float().view(1, 3, 256, 256)
    final, heads = golden_net.forward_all(x)
    check(final, expected["synthetic"]["final"])
    check(heads[0], expected["synthetic"]["output_0"])
    means = [head.double().mean().item() for head in heads]
    assert means == pytest.approx(expected["synthetic"]["heads"], rel=0, abs=CLOSE)
    assert torch.equal(golden_net(x), final)


@pytest.mark.real_data
@torch.no_grad()
def test_outputs_are_the_authors_on_a_frame(
    golden_net: MSHNet, expected: dict[str, Any], real_data: Path
) -> None:
    data = open_dataset(real_data / "NUDT-SIRST", "trainval")
    if expected["image"]["name"] not in data.names:
        data = open_dataset(real_data / "NUDT-SIRST", "test")
    frame = data.sample(expected["image"]["name"]).frame
    grey = torch.from_numpy(normalise_frame(frame, InputSpec(stride=16)))[None, None]
    final, heads = golden_net.forward_all(three_channels(grey))
    check(final, expected["image"]["final"])
    check(heads[0], expected["image"]["output_0"])
    check(golden_net.deploy()(grey), expected["image"]["final"])


def test_normalise_makes_three_channels_of_a_grey_frame() -> None:
    frames = torch.rand(2, 1, 4, 5)
    torch.testing.assert_close(normalise(frames), three_channels(frames))


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize(("head_size", "shape"), [(1, (48, 80)), (3, (64, 32)), (1, (16, 16))])
@torch.no_grad()
def test_deploy_equals_forward_on_grey_frames(lived_in, dtype, close, head_size, shape) -> None:
    net = lived_in(MSHNet(head_size)).to(dtype)
    frames = torch.rand(2, 1, *shape, dtype=dtype, generator=torch.Generator().manual_seed(1))
    before = net(three_channels(frames))
    deployed = net.deploy()
    after = deployed(frames)
    assert after.shape == (2, 1, *shape)
    torch.testing.assert_close(after, before, rtol=0, atol=close)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in deployed.modules())
    assert torch.equal(net(three_channels(frames)), before), "deploy() changed its network"


@torch.no_grad()
def test_deploy_of_a_training_network_leaves_it_in_training() -> None:
    net = MSHNet().train()
    deployed = net.deploy()
    assert net.training
    assert not any(module.training for module in deployed.modules())


@torch.no_grad()
def test_every_head_has_its_scale() -> None:
    final, heads = MSHNet().eval().forward_all(torch.zeros(2, 3, 32, 64))
    assert final.shape == (2, 1, 32, 64)
    assert [tuple(head.shape) for head in heads] == [
        (2, 1, 32, 64),
        (2, 1, 16, 32),
        (2, 1, 8, 16),
        (2, 1, 4, 8),
    ]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("inputs", [16, 32])
def test_the_fast_backward_pass_gives_the_gradients_of_autograd(inputs, layout) -> None:
    torch.manual_seed(3)
    block = ResBlock(inputs, 32).double().train()
    plain = PlainBlock(inputs, 32).double().train()
    plain.load_state_dict(block.state_dict())
    x = torch.randn(3, inputs, 12, 8, dtype=torch.float64).to(memory_format=layout)
    gradients = []
    for net in (block, plain):
        frames = x.clone().requires_grad_(True)
        (net(frames) ** 2).sum().backward()
        gradients.append([frames.grad, *(p.grad for p in net.parameters())])
    for fast, slow in zip(*gradients, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_a_block_computes_the_same_in_training_and_in_evaluation(lived_in) -> None:
    block = lived_in(ResBlock(16, 32))
    x = torch.randn(2, 16, 16, 16, generator=torch.Generator().manual_seed(4))
    expected = block(x)
    block.train()
    for norm in (m for m in block.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.eval()
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("seed", range(3))
def test_free_scales_leave_the_deployed_network_as_it_is(golden_net: MSHNet, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    frames = torch.rand(2, 1, 32, 48, generator=generator)
    net = golden_net.deploy()
    with torch.no_grad():
        before = net(frames)
        for scale in net.free_scales():
            scale.divide(torch.exp(2 * torch.randn(scale.channels, generator=generator)))
        after = net(frames)
    assert before.std() > 0.01
    torch.testing.assert_close(after, before, rtol=0, atol=1e-4 * before.std().item())
