"""What NNCF makes of a network, with its quantizers replaced."""

import pytest
import torch

from irstd_edge.calibration.fake_quantize import FakeQuantize
from irstd_edge.calibration.quantize import quantize
from irstd_edge.edge.types import IrstdError


def quantizers_of(module):
    return [m for m in module.modules() if isinstance(m, FakeQuantize)]


def outputs_of(module, batch):
    with torch.inference_mode():
        return module(torch.from_numpy(batch))


def test_every_quantizer_is_signed_and_ours(case):
    names = {type(m).__module__ for m in case.quantized.module.modules()}
    assert not any(name.startswith("nncf.torch.quantization") for name in names)
    quantizers = quantizers_of(case.quantized.module)
    assert any(q.axis is None for q in quantizers) and any(q.axis == 0 for q in quantizers)
    assert all((q.zero_point == 0).all() for q in quantizers)
    assert all(q.scale.ndim == 0 for q in quantizers if q.axis is None)


def test_what_an_activation_ends_in_says_whether_it_may_be_negative(case):
    signs = {}

    def watch(rounding, given):
        signs[rounding] = min(signs.get(rounding, 0.0), float(given[0].min()))

    ranges = [q for q in quantizers_of(case.quantized.module) if q.axis is None]
    hooks = [q.register_forward_pre_hook(watch) for q in ranges]
    for batch in case.batches:
        outputs_of(case.quantized.module, batch)
    for hook in hooks:
        hook.remove()
    assert {q.never_negative for q in ranges} == {True, False}
    assert all(q.never_negative == (signs[q] == 0) for q in ranges)


def test_rounds_a_little_and_leaves_the_network_given_as_it_was(case):
    before = outputs_of(case.float_net, case.batches[0])
    after = outputs_of(case.quantized.module, case.batches[0])
    for one, other in zip(before, after, strict=True):
        error = (one - other).pow(2).mean() / one.var()
        assert 0 < error < 0.1
    assert quantizers_of(case.float_net) == []


def test_keep_float_is_honoured_and_said(case):
    batches = [torch.from_numpy(case.batches[0])]
    kept = quantize(case.float_net, "p2p", batches, ["high1.*", "low.units.2.conv1.*"])
    new = set(kept.float_layers) - set(case.quantized.float_layers)
    assert new == {
        (name, "--keep-float") for name in ("high1.conv1", "high1.conv2", "low.units.2.conv1.conv")
    }
    weights = [len([q for q in quantizers_of(m) if q.axis == 0])
               for m in (case.quantized.module, kept.module)]  # fmt: skip
    assert weights[1] == weights[0] - 3


def test_a_wrong_pattern_is_the_users_to_mend(case):
    with pytest.raises(IrstdError, match="--keep-float: 'nothing' fits no layer"):
        quantize(case.float_net, "p2p", [torch.from_numpy(case.batches[0])], ["nothing"])


def test_a_reduced_range_leaves_the_outer_steps_of_weights_unused(case, reduced):
    for net, steps in ((case.quantized.module, 127), (reduced, 63)):
        scales = [m.scale for m in quantizers_of(net) if m.axis == 0]
        weight = case.float_net.get_submodule("high1.conv1").weight
        largest = weight.flatten(1).abs().amax(1)
        assert any(
            len(scale) == len(largest)
            and torch.allclose(largest / scale, torch.tensor(1.0 * steps))
            for scale in scales
        )


def test_is_deterministic(case):
    batches = [torch.from_numpy(b) for b in case.batches]
    again = quantize(case.float_net, "p2p", batches)
    first = case.quantized.module.state_dict()
    assert all(torch.equal(value, first[key]) for key, value in again.module.state_dict().items())


def test_needs_no_compiler_and_leaves_stdout_alone(case, monkeypatch, capfd):
    def refused(*args, **kwargs):
        raise AssertionError("compiles")

    monkeypatch.setattr("torch.utils.cpp_extension.load", refused)
    monkeypatch.setattr("torch.compile", refused)
    quantize(case.float_net, "p2p", [torch.from_numpy(case.batches[0])])
    assert capfd.readouterr().out == ""
