"""What a layer costs alone, and the choice of those that stay in float."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

from irstd_edge.calibration.layouts import (
    Graph,
    layer_of,
    release,
    round_alone,
    rounded_layers,
)
from irstd_edge.calibration.sensitivity import (
    LayerError,
    _layer_error,
    _Seen,
    fewest_layers,
    layer_error_of,
    sensitivity,
)
from irstd_edge.edge.types import Frame, IrstdError, Sample


def error(layer: str, score_error: float, macs: int = 1) -> LayerError:
    return LayerError(layer, macs, 30.0, score_error, None, 0, 0, 0.0)


@pytest.fixture(scope="module")
def samples(case):
    points = np.array([[10, 12], [40, 30]], np.float32)
    frames = (np.uint8(255 * batch[0, 0]) for batch in case.batches[:2])
    return [Sample(Frame(f"f{k}", f, 8), None, points) for k, f in enumerate(frames)]


@pytest.fixture(scope="module")
def errors(case, samples):
    return sensitivity(case.graphs["fp32.onnx"], case.graphs["int8.onnx"], case.spec, samples)


@pytest.mark.parametrize(
    "node, layer",
    [
        ("/stem/Conv", "stem"),
        ("/encoder_0/encoder_0.0/conv1/Conv", "encoder_0.0.conv1"),
        ("/decoder_1/decoder_1.1/ca/fc1/Conv", "decoder_1.1.ca.fc1"),
        ("/low/units.2/conv1/conv/Conv", "low.units.2.conv1.conv"),
    ],
)
def test_a_layer_has_the_name_that_keep_float_takes(node, layer):
    assert layer_of(node) == layer


def test_every_rounded_layer_is_measured_in_the_order_of_the_graph(case, errors):
    model = onnx.load_from_string(case.graphs["int8.onnx"])
    assert [e.layer for e in errors] == list(rounded_layers(model))
    kept = {layer for layer, _ in case.quantized.float_layers}
    assert len(errors) > 10 and not kept & {e.layer for e in errors}
    convolutions = {layer_of(n.name) for n in model.graph.node if n.op_type == "Conv"}
    assert convolutions == kept | {e.layer for e in errors}


def test_each_changes_the_network_a_little(errors):
    assert all(e.macs > 0 and 5 < e.sqnr_db < 150 for e in errors)
    assert all(0 <= e.score_error < 0.1 for e in errors) and max(e.score_error for e in errors) > 0


def seen(targets, alarms):
    return _Seen((), np.array(targets), np.array(alarms))


def test_pd_is_held_at_as_many_false_alarms_each_by_its_own_threshold():
    """One alarm is over 0.5; the next one, 0.3, is where either threshold may go."""
    before = seen([0.9, 0.4, 0.2], [0.7, 0.3])
    assert _layer_error("a", 1, before, before, 0.5).pd_at_fa == 0
    fainter = seen([0.9, 0.25, 0.2], [0.7, 0.3])
    found = _layer_error("a", 1, before, fainter, 0.5)
    assert (found.targets_lost, found.targets_gained) == (0, 0)
    assert found.pd_at_fa == pytest.approx(-1 / 3)
    louder = seen([0.9, 0.4, 0.2], [0.7, 0.6])  # 0.4 costs a second alarm now
    assert _layer_error("a", 1, before, louder, 0.5).pd_at_fa == pytest.approx(-1 / 3)
    assert _layer_error("a", 1, seen([], []), seen([], []), 0.5).pd_at_fa is None
    saturated = seen([1.0, 1.0], [1.0]), seen([1.0, 1.0], [1.0, 1.0])
    assert _layer_error("a", 1, *saturated, 0.5).pd_at_fa is None, "no threshold tells them apart"
    assert _layer_error("a", 1, *saturated[::-1], 0.5).pd_at_fa == 0


def test_layers_of_masks_are_ranked_by_how_far_they_move_masks():
    """The scores of both targets are the same, the second mask's rim is not."""
    map_of = [np.zeros((4, 4), np.float32) for _ in range(3)]
    map_of[0][1:3, 1:3] = map_of[1][1:3, 1:3] = map_of[2][1:3, 1:3] = 1.0
    map_of[1][1, 3] = 0.5
    map_of[2][2, 2] = 0.75
    before, wider, narrower = (replace(seen([1.0], []), masks=(each,)) for each in map_of)
    errors = [_layer_error(n, 1, before, s, 0.5) for n, s in (("a", narrower), ("b", wider))]
    assert [e.score_error for e in errors] == [0.0, 0.0]
    assert [e.mask_error for e in errors] == pytest.approx([1 - 3.75 / 4, 1 - 4 / 4.5])
    assert fewest_layers([*errors, error("c", 0.0)], lambda layers: len(layers) > 0) == ("b",)
    assert _layer_error("a", 1, before, before, 0.5).mask_error == 0.0
    assert _layer_error("a", 1, seen([1.0], []), seen([0.9], []), 0.5).mask_error is None


def test_all_released_rounds_nothing(case, samples):
    model = onnx.load_from_string(case.graphs["int8.onnx"])
    released = release(model, rounded_layers(model))
    assert not rounded_layers(released)
    assert not any("Linear" in node.op_type for node in released.graph.node)


def test_one_layer_alone_is_rounded_and_has_its_weights_and_bias(case):
    fp32, int8 = (onnx.load_from_string(case.graphs[f"{name}.onnx"]) for name in ("fp32", "int8"))
    layer = list(rounded_layers(int8))[1]
    alone = round_alone(onnx.load_from_string(case.graphs["fp32.onnx"]), int8, layer)
    assert [n.op_type for n in alone.graph.node if "Linear" in n.op_type] == [
        "QuantizeLinear", "DequantizeLinear"
    ]  # fmt: skip
    before, after, rounded = (parameters_of(model) for model in (fp32, alone, int8))
    changed = {name for name in before if not np.array_equal(before[name][0], after[name][0])}
    assert changed == {layer}
    for mine, theirs in zip(after[layer], rounded[layer], strict=True):
        np.testing.assert_array_equal(mine, theirs)
    with pytest.raises(ValueError, match="stem is not rounded"):
        round_alone(onnx.load_from_string(case.graphs["fp32.onnx"]), int8, "stem")


def parameters_of(model):
    """Layer -> weights and bias of its convolution, in float."""
    graph = Graph(model)
    return {
        layer_of(node.name): [graph.constants[graph.unrounded(name)] for name in node.input[1:]]
        for node in graph.nodes
        if node.op_type == "Conv"
    }


def test_a_stopped_run_goes_on(case, samples, errors):
    known = {e.layer: e for e in errors[:-2]}
    new = []
    graphs = case.graphs["fp32.onnx"], case.graphs["int8.onnx"]
    again = sensitivity(*graphs, case.spec, samples, known=known, keep=new.append)
    assert again == errors and tuple(new) == errors[-2:]


@pytest.mark.parametrize(
    ("fp32", "int8", "words"),
    [
        ("fp32.onnx", "fp32.onnx", "int8.onnx: rounds no layer: quantize again"),
        ("fp32.onnx", "int8.cpu.onnx", "int8.onnx: .* is not as quantize writes it"),
        ("other", "int8.onnx", "int8.onnx: .* is not as quantize writes it, or not in fp32.onnx"),
        (
            "int8.onnx without heatmap",
            "int8.onnx",
            r"fp32.onnx: has inputs \['frame'\] and outputs",
        ),
    ],
)
def test_graphs_that_are_not_of_one_quantize_are_refused(case, samples, fp32, int8, words):
    graphs = dict(case.graphs)
    renamed = onnx.load_from_string(graphs["fp32.onnx"])
    for node in renamed.graph.node:
        node.name = f"/other{node.name}"
    graphs["other"] = renamed.SerializeToString()
    short = onnx.load_from_string(graphs["int8.onnx"])
    del short.graph.output[0]
    graphs["int8.onnx without heatmap"] = short.SerializeToString()
    with pytest.raises(IrstdError, match=words):
        sensitivity(graphs[fp32], graphs[int8], case.spec, samples)


def test_without_frames_there_is_nothing_to_judge_by(case):
    with pytest.raises(IrstdError, match="--data: no frame is held out"):
        sensitivity(b"", b"", case.spec, [])


def test_a_record_is_read_back(errors):
    assert layer_error_of(errors[0].record()) == errors[0]
    for wrong in (None, [], {}, {**errors[0].record(), "more": 1}):
        with pytest.raises(IrstdError):
            layer_error_of(wrong)


RANKED = [error("c", 0.3), error("a", 0.1), error("b", 0.2), error("d", 0.05)]


@pytest.mark.parametrize(
    "needed, chosen",
    [
        ({"c"}, ("c",)),
        ({"c", "b"}, ("c", "b")),
        ({"b"}, ("b",)),  # c is tried in INT8 again
        ({"a", "b"}, ("b", "a")),
        (set(), ()),
    ],
)
def test_the_fewest_that_hold_are_chosen(needed, chosen):
    assert fewest_layers(RANKED, lambda layers: needed <= set(layers)) == chosen


def test_not_even_all_but_one_may_be_enough():
    tried = []
    assert fewest_layers(RANKED, lambda layers: tried.append(layers)) is None
    assert tried == [("c", "b", "a")]
    assert fewest_layers(RANKED[:1], lambda layers: True) is None


def test_of_equals_the_cheap_one_comes_first():
    equals = [error("dear", 0.1, macs=9), error("cheap", 0.1, macs=1), error("none", 0.0)]
    assert fewest_layers(equals, lambda layers: len(layers) > 0) == ("cheap",)
