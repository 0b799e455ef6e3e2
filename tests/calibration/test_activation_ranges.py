"""Ranges of activations: the rules cut what is rare, and never the peak of a target."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from irstd_edge.calibration.activation_ranges import estimate_ranges
from irstd_edge.calibration.fake_quantize import FakeQuantize
from irstd_edge.calibration.range_rules import (
    BINS,
    RULES,
    RangeObserver,
    rule_for,
)
from irstd_edge.calibration.subset import CalibrationFrame
from irstd_edge.edge.types import Frame, IrstdError, Sample


class Net(nn.Module):
    """Rounds the frame, a map of half its size, and a weight."""

    def __init__(self):
        super().__init__()
        self.frame = FakeQuantize(torch.tensor(1.0))
        self.small = FakeQuantize(torch.tensor(1.0))
        self.weight = FakeQuantize(torch.ones(2), 0)
        self.register_buffer("kernel", torch.ones(2, 1, 1, 1))

    def forward(self, x):
        self.weight(self.kernel)
        return self.small(nn.functional.avg_pool2d(self.frame(x), 2))


def limits(net):
    return [float(each.scale) * 127 for each in (net.frame, net.small)]


def estimated(frames, rule):
    net = Net()
    estimate_ranges(net, frames, rule)
    estimate_ranges(net, frames, rule)  # the first one's clipping is gone
    assert torch.equal(net.weight.scale, Net().weight.scale)
    return net


def shown_of(image, points=()):
    """(H, W) as a calibration frame."""
    batch = np.asarray(image, np.float32)[None, None]
    frame = Frame("a", np.zeros(np.shape(image), np.uint8), 8)
    return CalibrationFrame.of(
        batch, Sample(frame, None, np.reshape(points, (-1, 2)).astype(float))
    )


def noisy(*bright, points=(), size=64):
    """A frame of 0..0.5 with values at places."""
    image = np.random.default_rng(0).random((size, size), np.float32) / 2
    for row, col, value in bright:
        image[row, col] = value
    return shown_of(image, points)


def test_min_max_takes_the_highest_of_all_frames():
    frames = [noisy((3, 4, 0.9)), noisy((20, 20, -0.97))]
    assert limits(estimated(frames, "min-max"))[0] == pytest.approx(0.97)


@pytest.mark.parametrize("rule", ["percentile", "mse"])
def test_the_others_cut_off_what_is_rare(rule):
    # one pixel in a quarter of a million
    frames = [noisy((30, 30, 0.99)), *[noisy(size=256)] * 4]
    assert limits(estimated(frames, rule))[0] < 0.6
    assert limits(estimated(frames, "min-max"))[0] == pytest.approx(0.99)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("place", [(30, 30), (0, 0), (63, 63), (28, 32)])
def test_no_rule_cuts_the_peak_of_a_target(rule, place):
    near = [(min(max(place[0] + 2, 0), 63), min(max(place[1] - 2, 0), 63), 0.99)]
    frames = [noisy(*near, points=[place]), *[noisy(size=256)] * 4]
    net = estimated(frames, rule)
    frame, half = limits(net)
    assert frame == pytest.approx(0.99, abs=1e-6)
    row, col, _ = near[0]
    block = frames[0].batch[0, 0, row // 2 * 2 :, col // 2 * 2 :][:2, :2]
    assert half >= float(block.mean()) - 0.99 / 127


@settings(max_examples=30)
@given(
    st.lists(st.floats(0, 1, width=32), min_size=64, max_size=64),
    st.integers(0, 7),
    st.integers(0, 7),
)
def test_what_is_at_a_target_is_within_every_range(values, row, col):
    image = np.reshape(values, (8, 8))
    shown = shown_of(image, [(row, col)])
    for rule in RULES:
        net = Net()
        estimate_ranges(net, [shown], rule)
        assert limits(net)[0] >= image[row, col] * (1 - 1e-6)


def test_what_lies_in_the_padding_is_no_target():
    batch, frame = np.zeros((1, 1, 8, 8), np.float32), Frame("a", np.zeros((5, 6), np.uint8), 8)
    shown = CalibrationFrame.of(batch, Sample(frame, None, np.array([[4.4, 5.4]])))
    rows, cols = np.nonzero(shown.near.numpy())
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (2, 6, 3, 7)
    assert not CalibrationFrame.of(batch, Sample(frame, None, np.empty((0, 2)))).near.any()


@pytest.mark.parametrize("rule", ["percentile", "mse"])
def test_a_map_that_is_hardly_ever_alive_keeps_its_range(rule):
    image = np.zeros((256, 256))
    image[100, 100], image[50, 60] = 8, 6
    assert limits(estimated([shown_of(image)], rule))[0] == pytest.approx(8, rel=0.03)


def test_percentile_is_numpys():
    frame = noisy(size=256)
    (found, _) = limits(estimated([frame], "percentile"))
    assert found == pytest.approx(np.percentile(frame.batch.numpy(), 99.99), abs=2 * 0.5 / 4096)


def test_mse_is_the_least_error_of_all_ranges():
    frame = noisy((30, 30, 0.99), size=512)
    net, image = estimated([frame], "mse"), frame.batch

    def error(limit):
        rounding = FakeQuantize(torch.tensor(limit))
        return float((rounding(image) - image).square().sum())

    highest = float(image.abs().max())
    best = min(error(highest * share / 100) for share in range(1, 101))
    assert error(limits(net)[0]) == pytest.approx(best, rel=0.01)
    assert limits(net)[0] < 0.9 * highest


@settings(max_examples=30)
@given(st.lists(st.floats(2**-9, 2**9, width=32), min_size=1, max_size=8), st.randoms())
def test_frames_in_any_order_are_counted_alike(heights, random):
    """The parts grow with what is seen, and nothing is lost in between."""
    orders = [heights, random.sample(heights, len(heights))]
    seen, frame = [RangeObserver() for _ in orders], shown_of(np.zeros((1, 1)))
    for order, values in zip(orders, seen, strict=True):
        for height in order:
            values.add(torch.tensor([0.0, -height, height / 2]), frame)
    assert seen[0].end == seen[1].end >= max(heights)
    assert seen[0].counts.sum() == seen[1].counts.sum() == 2 * len(heights)  # without 0
    # a value at the border of two parts may fall to either
    assert (seen[0].counts - seen[1].counts).cumsum(0).abs().max() <= len(heights)
    assert len(seen[0].counts) == BINS
    assert seen[0].limit("min-max") == pytest.approx(max(heights), rel=1e-6)


def test_what_is_given_nothing_stays():
    net = Net()
    for rule in RULES:
        estimate_ranges(net, [shown_of(np.zeros((8, 8)))], rule)
        assert limits(net) == limits(Net())


def test_a_shared_quantizer_covers_all_its_places(case):
    net = copy.deepcopy(case.quantized.module)
    frames = case.shown()
    seen = {}

    def look(quantizer, inputs):
        seen.setdefault(quantizer, []).append(float(inputs[0].abs().max()))

    estimate_ranges(net, frames, "min-max")
    roundings = [m for m in net.modules() if isinstance(m, FakeQuantize) and m.axis is None]
    hooks = [each.register_forward_pre_hook(look) for each in roundings]
    with torch.no_grad():
        for frame in frames:
            net(frame.batch)
    for hook in hooks:
        hook.remove()
    # within what rounding by the new ranges moves
    for each in roundings:
        assert float(each.scale) * 127 == pytest.approx(max(seen[each]), rel=0.1)


@pytest.mark.parametrize("rule", RULES)
def test_next_to_nothing_counts_as_nothing(rule):
    """Parts of 1e-38 are beyond float32."""
    seen = RangeObserver()
    seen.add(torch.full((1, 1, 4, 4), 1e-38), shown_of(torch.zeros(4, 4)))
    assert seen.limit(rule) <= 1e-37
    seen.add(torch.full((1, 1, 4, 4), 0.5), shown_of(torch.zeros(4, 4)))
    assert seen.limit(rule) == 0.5


@pytest.mark.parametrize("rule", RULES)
def test_too_few_targets_cut_nothing(rule):
    assert rule_for(rule, 7) == rule_for(rule, 0) == "min-max"
    assert rule_for(rule, 8) == rule


def test_another_rule_is_refused():
    with pytest.raises(IrstdError, match="--ranges: 'entropy' is not one of min-max, percentile"):
        estimate_ranges(Net(), [noisy()], "entropy")


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_told(broken):
    values = torch.ones(1, 2, 4, 4)
    values[0, 1, 2, 3] = broken
    with pytest.raises(IrstdError, match="not finite on a calibration frame"):
        RangeObserver().add(values, shown_of(np.zeros((4, 4))))


@pytest.mark.parametrize("sign", [1, -1], ids=["never negative", "of both signs"])
def test_what_is_seen_is_what_numpy_counts(sign):
    """Zeros are in no part, what is at the end of the parts is in the last, and targets are met."""
    random = np.random.default_rng(1)
    observer, tensors, near = RangeObserver(), [], []
    for size in ((16, 24), (32, 16)):
        frame = shown_of(np.zeros(size), [(size[0] // 2, 3)])
        cells = frame.near.numpy().reshape(size[0] // 2, 2, size[1] // 2, 2).any((1, 3))
        for highest in (0.7, 4.0):  # a power of two is the end of the parts itself
            values = random.random((1, 3, size[0] // 2, size[1] // 2), np.float32) * highest
            values[values < 0.2] = 0
            values[0, 1, 0, 0] = highest
            values[0, 2] *= sign
            observer.add(torch.from_numpy(values), frame)
            tensors.append(values.ravel())
            near.append(abs(values[..., cells]).max())
    everything = np.concatenate(tensors)
    counts, _ = np.histogram(abs(everything[everything != 0]), BINS, (0, 4))
    assert observer.end == 4 and observer.counts.tolist() == counts.tolist()
    assert (observer.low, observer.high) == (min(0, everything.min()), everything.max())
    assert observer.at_targets == max(near)
    limits = {rule: observer.limit(rule) for rule in RULES}
    enough = np.flatnonzero(counts.cumsum() >= counts.sum() * 0.9999)[0]
    assert limits["percentile"] == min(4, max((enough + 1) * 4 / BINS, max(near)))
    middles, levels = (np.arange(BINS) + 0.5) * 4 / BINS, 4 * np.arange(1, 101) / 100
    rounded = [np.minimum(np.rint(middles / (end / 127)), 127) * (end / 127) for end in levels]
    errors = [float((counts * np.square(middles - each)).sum()) for each in rounded]
    assert limits["mse"] == min(4, max(levels[np.argmin(errors)], max(near)))
    assert limits["min-max"] == 4
