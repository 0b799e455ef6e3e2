"""Maps that are rounded fill their range, and the network stays what it was."""

import copy

import numpy as np
import pytest
import torch

from irstd_edge.calibration.equalise import equalise
from irstd_edge.calibration.quantize import quantize
from irstd_edge.calibration.to_bundle import _case, _recipe
from irstd_edge.models.weights import save_weights


def raised(net, by):
    """A copy of a deployed network, equal to it, whose joined maps are so many times as high."""
    net = copy.deepcopy(net)
    for scale in net.free_scales():
        if scale.channels < scale.reader.in_channels:
            scale.divide(torch.full((scale.channels,), 1 / by))
    return net


def outputs(net, batches):
    with torch.no_grad():
        return np.concatenate([net(batch).numpy().ravel() for batch in batches])


def heights(net, batches):
    """Name -> highest value of each channel that it reads, of every quantized convolution."""
    seen = {}

    def look(name):
        def hook(module, inputs):
            peaks = inputs[0].abs().amax((0, 2, 3))
            seen[name] = torch.maximum(seen.get(name, peaks), peaks)

        return hook

    convs = {n: m for n, m in net.named_modules() if n.endswith((".conv1", ".conv2"))}
    hooks = [conv.register_forward_pre_hook(look(name)) for name, conv in convs.items()]
    outputs(net, batches)
    for hook in hooks:
        hook.remove()
    return seen


def parts(net, seen, index):
    own = getattr(net, f"decoder_{index}")[0].conv2.out_channels
    peaks = seen[f"decoder_{index}.0.conv1"]
    return peaks[:own], peaks[own:]


@pytest.fixture(scope="module")
def deployed(mshnet_net):
    return raised(mshnet_net.deploy(), by=20.0)


@pytest.fixture(scope="module")
def batches():
    generator = torch.Generator().manual_seed(5)
    return [torch.rand(1, 1, *size, generator=generator) for size in ((64, 64), (32, 48))]


def test_the_network_stays_what_it_was(deployed, batches):
    before = outputs(deployed, batches)
    state = copy.deepcopy(deployed.state_dict())

    equal = equalise(deployed, batches)

    assert all(torch.equal(value, state[name]) for name, value in deployed.state_dict().items())
    assert set(equal.state_dict()) == set(state)
    changed = [n for n, value in equal.state_dict().items() if not torch.equal(value, state[n])]
    assert len(changed) > 60
    assert before.std() > 0.01
    np.testing.assert_allclose(outputs(equal, batches), before, atol=2e-5 * before.std() + 1e-5)


def test_both_parts_of_a_joined_map_are_as_high(deployed, batches):
    equal = equalise(deployed, batches)
    seen, before = heights(equal, batches), heights(deployed, batches)
    for index in range(4):
        first, second = parts(deployed, before, index)
        assert second.max() > 3 * first.max()
        first, second = parts(equal, seen, index)
        assert second.max().item() == pytest.approx(first.max().item(), rel=1e-4)


def test_channels_are_half_way_to_the_highest(deployed, batches):
    """Between two convolutions, and what a stage gives: every part of a map that enters a stage."""
    before, after = heights(deployed, batches), heights(equalise(deployed, batches), batches)
    entries = [f"{stage}_{i}.0.conv1" for stage in ("encoder", "decoder") for i in range(1, 4)]
    inner = [name for name in before if name.endswith("conv2")]
    joined = {f"decoder_{i}.0.conv1": len(parts(deployed, before, i)[0]) for i in range(4)}
    for name in (*inner, *entries, "decoder_0.0.conv1", "middle_layer.0.conv1"):
        for part in (slice(joined.get(name, 0)), slice(joined.get(name, 0), None)):
            if len(before[name][part]):
                assert_half_way(before[name][part], after[name][part])


def assert_half_way(before, after):
    relative = before / before.max()
    alive = relative > 2e-3
    assert alive.sum() > 1
    assert relative[alive].min() < 0.9
    np.testing.assert_allclose((after / after.max())[alive], relative[alive].sqrt(), rtol=1e-3)


def test_it_is_rounded_less(deployed, batches):
    exact = outputs(deployed, batches)
    errors = [
        np.square(outputs(quantize(net, "mshnet", batches).module, batches) - exact).mean()
        for net in (deployed, equalise(deployed, batches))
    ]
    assert errors[1] < errors[0] / 2


def test_a_bundle_is_made_of_the_equalised_network(mshnet_net, scenes, tmp_path):
    path = tmp_path / "mshnet.safetensors"
    save_weights(path, "mshnet", mshnet_net, {"threshold": 0.5})
    case = _case(path, [scenes], 3, 0, None, "min-max", lambda *_: None)
    frames = [each.batch for each in case.shown]
    assert len(frames) == 3
    assert "equalised" in _recipe(case, 0, False, None)
    seen = heights(case.float_net, frames)
    for index in range(4):
        first, second = parts(case.float_net, seen, index)
        assert second.max().item() == pytest.approx(first.max().item(), rel=1e-4)


def test_dead_channels_and_dead_maps_stay_finite(mshnet_net, batches):
    net = mshnet_net.deploy()
    inner = net.decoder_1[0]
    with torch.no_grad():
        inner.conv1.weight[3].zero_()
        inner.conv1.bias[3] = 0.0
        inner.conv2.weight[:, 5].zero_()
        for block in net.decoder_2:  # all of its output, which decoder_1 joins
            for parameter in block.parameters():
                parameter.zero_()
        net.encoder_3[0].conv1.weight.zero_()
        net.encoder_3[0].conv1.bias.zero_()
    equal = equalise(net, batches)
    for name, value in equal.state_dict().items():
        assert torch.isfinite(value).all(), name
    np.testing.assert_allclose(outputs(equal, batches), outputs(net, batches), atol=1e-4)


def test_a_network_without_free_scales_is_returned(case):
    assert equalise(case.float_net, []) is case.float_net
