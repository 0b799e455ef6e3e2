"""The rounding, worked out by hand."""

import pytest
import torch

from irstd_edge.calibration.fake_quantize import FakeQuantize, half_steps


def test_rounds_a_tensor_to_127_steps_of_its_range():
    rounding = FakeQuantize(torch.tensor(127.0))
    x = torch.tensor([0.0, 0.4, 0.6, 1.5, 2.5, -3.4, 127.4, 1000.0, -1000.0])
    expected = [0.0, 0.0, 1.0, 2.0, 2.0, -3.0, 127.0, 127.0, -128.0]
    assert rounding(x).tolist() == expected


def test_rounds_weights_per_channel_within_a_symmetric_range():
    rounding = FakeQuantize(torch.tensor([127.0, 12.7]), axis=0)
    x = torch.tensor([[1.4, -500.0], [0.04, -500.0]])
    assert rounding(x).flatten().tolist() == pytest.approx([1.0, -127.0, 0.0, -12.7])


def test_a_range_of_zero_gives_zeros():
    rounding = FakeQuantize(torch.zeros(2), axis=0)
    assert rounding(torch.zeros(2, 3)).tolist() == [[0.0] * 3] * 2
    assert (rounding.scale > 0).all()


@pytest.mark.parametrize("limit, axis", [(torch.tensor(1.0), None), (torch.ones(1), 0)])
def test_gradients_pass_within_the_range_only(limit, axis):
    x = torch.tensor([[0.3, 2.0]], requires_grad=True)
    FakeQuantize(limit, axis)(x).sum().backward()
    assert x.grad.tolist() == [[1.0, 0.0]]


def test_has_nothing_to_train():
    assert list(FakeQuantize(torch.tensor(1.0)).parameters()) == []


def test_what_is_never_negative_is_rounded_to_half_steps_where_asked():
    pair = torch.nn.ModuleList(
        FakeQuantize(torch.tensor(127.0), never_negative=kept) for kept in (True, False)
    )
    x = torch.tensor([-3.0, 0.2, 0.3, 1.4, 127.4, 1000.0])
    whole = [-3.0, 0.0, 0.0, 1.0, 127.0, 127.0]
    assert [rounding(x).tolist() for rounding in pair] == [whole, whole]
    with half_steps(pair):
        half = [0.0, 0.0, 0.5, 1.5, 127.5, 127.5]
        assert [rounding(x).tolist() for rounding in pair] == [half, whole]
    assert [rounding(x).tolist() for rounding in pair] == [whole, whole]
