"""The one number that gives targets back what rounding took."""

import copy

import numpy as np
import pytest
import torch

from irstd_edge.calibration.float_layers import float_layers_of
from irstd_edge.calibration.head_bias import HEADS, correct_head_bias
from irstd_edge.models import MODELS, create_model

POINTS = np.array([[10.0, 12.0], [40.0, 30.0]], np.float32)


def lowered(case, by: float) -> torch.nn.Module:
    """The float network, but for its heatmap."""
    net = copy.deepcopy(case.float_net)
    with torch.no_grad():
        net.head.heatmap.bias -= by
    return net


def heatmap(net, batch: np.ndarray) -> torch.Tensor:
    with torch.inference_mode():
        return net(torch.from_numpy(batch))[0]


def corrected(case, net, points=POINTS):
    batches = [torch.from_numpy(batch) for batch in case.batches]
    return correct_head_bias(net, case.float_net, "p2p", batches, [points] * len(batches))


def test_a_shift_of_the_whole_map_is_taken_back(case) -> None:
    net = lowered(case, 0.3)
    result, shift = corrected(case, net)
    assert shift == pytest.approx(0.3, abs=1e-5)
    for batch in case.batches:
        torch.testing.assert_close(heatmap(result, batch), heatmap(case.float_net, batch))
    assert torch.equal(net.head.heatmap.bias, lowered(case, 0.3).head.heatmap.bias), "it was given"


def test_rounding_leaves_a_shift_and_targets_get_their_median_back(case) -> None:
    result, shift = corrected(case, case.quantized.module)
    assert shift != 0
    _, rest = corrected(case, result)
    assert rest == pytest.approx(0, abs=1e-5)


def test_without_targets_nothing_changes(case) -> None:
    result, shift = corrected(case, lowered(case, 0.3), np.zeros((0, 2), np.float32))
    assert shift == 0
    assert torch.equal(result.head.heatmap.bias, lowered(case, 0.3).head.heatmap.bias)


@pytest.mark.parametrize("model", MODELS)
def test_the_head_of_every_network_is_known_and_stays_in_float(model: str) -> None:
    layer = HEADS[model]
    assert isinstance(create_model(model).get_submodule(layer), torch.nn.Conv2d)
    assert [name for name, _ in float_layers_of(model, [layer])] == [layer]
