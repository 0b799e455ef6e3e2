"""Quantization-aware training: seeded, teaches, and leaves what it was given alone."""

import math
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from onnx import TensorProto, numpy_helper

from irstd_edge.calibration import qat
from irstd_edge.calibration.export import int8_graph
from irstd_edge.calibration.fake_quantize import FakeQuantize, half_steps
from irstd_edge.calibration.qat import QatRecipe, follow_loss, train_quantized
from irstd_edge.calibration.quantize import quantize
from irstd_edge.edge.dataset import open_dataset
from irstd_edge.edge.types import IrstdError
from irstd_edge.models import create_model, spec_of
from irstd_edge.models.batches import epoch_crops, labelled, point_batch
from irstd_edge.models.onnx_from_torch import onnx_from_torch
from irstd_edge.models.weights import load_model

TINY = QatRecipe(epochs=1, batch_size=2, lr=1e-3)


@pytest.fixture(scope="module")
def samples(scenes):
    return list(open_dataset(scenes, "train").samples())[:4]


@pytest.fixture(scope="module")
def train(case, samples):
    def trained(seed):
        return train_quantized(
            case.quantized.module, case.float_net, case.spec, samples, TINY, seed=seed
        )

    return trained


@pytest.fixture(scope="module")
def trained(train):
    return train(seed=0)


def weights_of(module):
    return {name: value.clone() for name, value in module.named_parameters()}


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_the_same_seed_gives_the_same_weights(train, trained):
    assert same(weights_of(train(seed=0)), weights_of(trained))
    assert not same(weights_of(train(seed=1)), weights_of(trained))


def test_weights_move_and_ranges_stay(case, trained):
    assert not same(weights_of(trained), weights_of(case.quantized.module))
    scales = [
        {n: m.scale for n, m in module.named_modules() if isinstance(m, FakeQuantize)}
        for module in (case.quantized.module, trained)
    ]
    assert scales[0] and same(*scales)


def test_a_reduced_range_holds_however_far_weights_go(case, reduced, samples):
    trained = train_quantized(reduced, case.float_net, case.spec, samples, TINY)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.mul_(1.5)
    graph = int8_graph(onnx_from_torch(trained, case.spec))
    stored = [
        numpy_helper.to_array(item)
        for item in graph.graph.initializer
        if item.data_type == TensorProto.INT8
    ]
    kernels = [each for each in stored if each.ndim == 4]
    assert len(kernels) > 20
    assert max(abs(each.astype(int)).max() for each in kernels) == 63


def test_what_it_was_given_is_left_alone(case, samples):
    before = weights_of(case.quantized.module), weights_of(case.float_net)
    train_quantized(case.quantized.module, case.float_net, case.spec, samples[:2], TINY)
    assert same(before[0], weights_of(case.quantized.module))
    assert same(before[1], weights_of(case.float_net))


def test_the_result_is_ready_to_be_exported(trained):
    assert not trained.training
    assert not any(parameter.requires_grad for parameter in trained.parameters())


def test_it_comes_closer_to_the_float_network_however_it_is_rounded(samples):
    float_net, spec = load_model("p2p")[0].deploy(), spec_of("p2p")
    frames = [labelled(sample, spec.input) for sample in samples]
    draws = (epoch_crops(frames, qat.CLOSE, batch_size=4, seed=9, epoch=k) for k in range(4))
    images, target = point_batch([crop for (crops,) in draws for crop in crops])
    quantized = quantize(float_net, "p2p", list(images[:4].split(1))).module
    how = QatRecipe(epochs=12, batch_size=2, lr=1e-5)
    trained = train_quantized(quantized, float_net, spec, samples, how)
    with torch.inference_mode():
        wanted = float_net(images)[0]
    exact = float(follow_loss(wanted, wanted, target[:, :1]))
    for rounding in (half_steps, lambda module: nullcontext()):
        losses = []
        for module in (quantized, trained):
            with rounding(module), torch.inference_mode():
                losses.append(float(follow_loss(module(images)[0], wanted, target[:, :1])))
        assert losses[1] - exact < 0.95 * (losses[0] - exact)


def test_it_counts_its_steps(case, samples):
    seen = []
    train_quantized(
        case.quantized.module, case.float_net, case.spec, samples, replace(TINY, epochs=2),
        progress=lambda *step: seen.append(step),
    )  # fmt: skip
    assert seen == [("training on", step, 4) for step in (1, 2, 3, 4)]


def test_its_steps_take_turns_at_a_falling_rate(case, samples, monkeypatch):
    turns, rates, step = [], [], torch.optim.AdamW.step

    def halved(module):
        turns.append(len(rates))
        return half_steps(module)

    def taken(optimizer):
        rates.append(optimizer.param_groups[0]["lr"])
        step(optimizer)

    monkeypatch.setattr(qat, "half_steps", halved)
    monkeypatch.setattr(torch.optim.AdamW, "step", taken)
    how = replace(TINY, epochs=2)
    train_quantized(case.quantized.module, case.float_net, case.spec, samples, how)
    assert turns == [0, 2]
    assert rates == pytest.approx([1e-3 * (1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)])


def test_masks_are_trained_too(samples):
    torch.manual_seed(0)
    float_net, spec = create_model("mshnet").deploy(), spec_of("mshnet")
    batch = torch.rand(1, 1, 32, 32)
    quantized = quantize(float_net, "mshnet", [batch])
    how = replace(TINY, batch_size=1)
    trained = train_quantized(quantized.module, float_net, spec, samples[:1], how)
    assert not same(weights_of(trained), weights_of(quantized.module))
    assert torch.isfinite(trained(batch)).all()


def test_targets_known_by_points_alone_are_near_for_masks_too(samples):
    bare = [replace(sample, mask=None) for sample in samples]
    for mine in (samples, bare):
        crops = [labelled(sample, spec_of("mshnet").input) for sample in mine]
        _, masks = qat._masks(crops)
        for mask, cut in zip(masks, crops, strict=True):
            assert len(cut.points)
            near = qat._near(mask[None])[0, 0]
            assert all(near[round(float(row)), round(float(col))] for row, col in cut.points)
    assert masks.sum() == sum(len(cut.points) for cut in crops)


def test_following_is_cheapest_where_the_float_network_is():
    wanted = torch.tensor([-3.0, 0.5, 4.0, -6.0]).reshape(1, 1, 2, 2)
    target = torch.tensor([1.0, 0.0, 0.0, 0.0]).reshape(1, 1, 2, 2)
    exact = follow_loss(wanted, wanted, target)
    assert all(follow_loss(wanted + shift, wanted, target) > exact for shift in (-1.0, 1.0))


def test_an_error_near_a_target_weighs_as_much_as_all_far_from_it():
    wanted = torch.zeros(1, 1, 64, 64)
    target = torch.zeros(1, 1, 64, 64)
    target[..., 10, 10] = 1
    exact = follow_loss(wanted, wanted, target)
    near, far = wanted.clone(), wanted.clone()
    near[..., 6:15, 6:15] = 2  # 4 cells around
    far[..., :, 32:] = 2
    rise = [float(follow_loss(moved, wanted, target) - exact) for moved in (near, far)]
    assert rise[0] > 1.5 * rise[1]  # 81 cells against 2048


def test_no_epochs_is_refused():
    with pytest.raises(IrstdError, match="--epochs: 0 is not positive"):
        QatRecipe(epochs=0)
