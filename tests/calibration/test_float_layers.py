"""Policy, the user's patterns, and their reasons."""

import pytest
import torch

from irstd_edge.calibration.float_layers import FLOAT_LAYERS, float_layers_of
from irstd_edge.edge.types import IrstdError
from irstd_edge.models import MODELS, create_model


def layers_of(model):
    net = create_model(model).deploy()
    return [n for n, module in net.named_modules() if isinstance(module, torch.nn.Conv2d)]


@pytest.mark.parametrize("model", MODELS)
def test_every_pattern_fits_a_layer(model):
    for pattern, reason in FLOAT_LAYERS[model]:
        alone = float_layers_of("no model", layers_of(model), [pattern])
        assert alone, f"{pattern} fits nothing"
        assert reason


@pytest.mark.parametrize(
    "model, kept, quantized",
    [
        ("p2p", ["stem", "head.heatmap", "head.geometry"], ["high1.conv1", "head.conv"]),
        ("mshnet", ["conv_init", "output_0", "final"], ["encoder_1.0.conv1", "decoder_0.0.conv2"]),
    ],
)
def test_input_and_heads_stay_in_float(model, kept, quantized):
    names = [layer for layer, _ in float_layers_of(model, layers_of(model))]
    assert set(kept) <= set(names)
    assert set(quantized).isdisjoint(names)
    assert len(names) < len(layers_of(model))


def test_the_users_patterns_come_on_top_with_their_reason():
    layers = ["stem", "high1.conv1", "high1.conv2", "low.conv1"]
    kept = float_layers_of("p2p", layers, ["high1.*"])
    assert [layer for layer, _ in kept] == ["stem", "high1.conv1", "high1.conv2"]
    assert dict(kept)["high1.conv2"] == "--keep-float"
    assert dict(kept)["stem"] != "--keep-float"


def test_a_pattern_that_fits_nothing_is_refused():
    with pytest.raises(IrstdError, match=r"--keep-float: 'hihg1.\*' fits no layer of p2p.*stem"):
        float_layers_of("p2p", ["stem", "high1.conv1"], ["hihg1.*"])
