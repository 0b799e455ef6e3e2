"""Layers of ONNX Runtime's form chosen by the clock: what is timed, and what it decides."""

import json

import numpy as np
import onnx
import pytest

from irstd_edge.benchmarks.latency import Timing
from irstd_edge.calibration import layer_gain
from irstd_edge.calibration.cpu_layout import by_rule, cpu_form, roundable
from irstd_edge.calibration.export import bytes_of, exports_of, graphs_of, rounded_graph
from irstd_edge.calibration.layer_gain import LayerGain, fastest_layers
from irstd_edge.calibration.layouts import Graph, rounded_layers
from irstd_edge.calibration.range_rules import RULE_OF
from irstd_edge.edge.qdq import lint_int8_cpu
from irstd_edge.edge.types import Frame
from irstd_edge.models.onnx_from_torch import onnx_from_torch


@pytest.fixture(scope="module")
def rounded(case):
    return bytes_of(rounded_graph(onnx_from_torch(case.quantized.module, case.spec)))


@pytest.fixture
def choose(case, rounded):
    frame = Frame("a", np.uint8(255 * case.batches[0][0, 0]), 8)
    return lambda: fastest_layers(rounded, case.shown(), RULE_OF["heatmap"], case.spec, frame)


def as_if(monkeypatch, *, saves, takes):
    """Times: what a layer alone saves, and what a whole graph with so many rounded layers takes."""

    def alone(model, nodes, size, progress):
        return {n: LayerGain(n, 1.0, 1.0 - saves(i)) for i, n in enumerate(nodes)}

    def together(rounded, ranges, forms, spec, frame, progress):
        for nodes in forms.values():  # every form can be made
            cpu_form(onnx.load_from_string(rounded), ranges, nodes)
        times = {name: np.full(100, 100.0 + takes(len(nodes))) for name, nodes in forms.items()}
        return {name: Timing(ms, ms, ms, None, True) for name, ms in times.items()}

    monkeypatch.setattr(layer_gain, "_alone", alone)
    monkeypatch.setattr(layer_gain, "_together", together)


def test_the_fastest_graph_is_taken(choose, monkeypatch, rounded):
    nodes = roundable(onnx.load_from_string(rounded))
    # the first ten gain, the later the more
    as_if(
        monkeypatch,
        saves=lambda i: (i + 1) / 100 if i < 10 else -1,
        takes=lambda n: 10 * abs(n - 5),
    )
    choice = choose()
    assert choice.nodes == set(nodes[5:10])
    assert choice.record["chosen"] == "first 5"
    assert set(choice.record["p50_ms"]) == {"rule", "first 5", "first 8", "first 10"}
    as_if(monkeypatch, saves=lambda i: 0.01, takes=lambda n: -5 * n)
    assert choose().nodes == set(nodes)


def test_a_graph_that_is_hardly_faster_is_not_taken(choose, monkeypatch, rounded):
    rule = set(by_rule(onnx.load_from_string(rounded)))
    as_if(monkeypatch, saves=lambda i: 0.5, takes=lambda n: 0 if n == len(rule) else -2)
    assert choose().nodes == rule
    as_if(monkeypatch, saves=lambda i: 0.5, takes=lambda n: 0 if n == len(rule) else -4)
    assert choose().nodes != rule


@pytest.mark.parametrize("saves", [0.5, -0.5])
def test_the_rule_stays_where_it_is_fastest_or_nothing_gains(choose, monkeypatch, rounded, saves):
    rule = set(by_rule(onnx.load_from_string(rounded)))
    as_if(monkeypatch, saves=lambda i: saves, takes=lambda n: 10 * abs(n - len(rule)))
    choice = choose()
    assert choice.nodes == rule and choice.record["chosen"] == "rule"


def test_the_clock_of_this_machine_decides(choose, case, rounded, monkeypatch):
    for name in ("SAMPLES", "ROUNDS"):
        monkeypatch.setattr(layer_gain, name, 3)
    model = onnx.load_from_string(rounded)
    choice = choose()
    json.dumps(choice.record, allow_nan=False)
    alone = {each["layer"]: each for each in choice.record["alone"]}
    assert set(alone) == set(rounded_layers(model))
    assert all(each["fp32_ms"] > 0 and each["int8_ms"] > 0 for each in alone.values())
    times, chosen = choice.record["p50_ms"], choice.record["chosen"]
    assert times[chosen] == min(times.values()) or chosen == "rule"
    exports = exports_of(case.float_net, case.quantized.module, case.spec)
    graph = graphs_of(exports, case.spec, case.shown(), cpu_nodes=choice.nodes)["int8.cpu.onnx"]
    made = onnx.load_from_string(graph)
    assert sorted(rounded_layers(made)) == choice.record["rounded"]
    assert not lint_int8_cpu(made)


def test_what_is_timed_alone_is_that_layer(exact_case):
    """It gives what the layer gives in the graph, in float; and is of its size."""
    import onnxruntime

    case = exact_case
    rounded = bytes_of(rounded_graph(onnx_from_torch(case.quantized.module, case.spec)))
    model = onnx.load_from_string(rounded)
    graph, nodes = Graph(model), roundable(model)
    shapes = layer_gain._input_shapes(graph, nodes, case.batches[0].shape)
    float_graph = cpu_form(onnx.load_from_string(rounded), {}, ())
    for name in (nodes[0], nodes[len(nodes) // 2], nodes[-1]):
        alone = layer_gain._cut_out(graph, name, shapes[name])
        entry, end = alone.graph.input[0].name, alone.graph.node[-1].input[0]
        onnx.checker.check_model(alone, full_check=True)
        whole = onnx.ModelProto()
        whole.CopyFrom(float_graph)
        whole.graph.output.extend(onnx.helper.make_empty_tensor_value_info(n) for n in (entry, end))
        session = onnxruntime.InferenceSession(whole.SerializeToString())
        values, wanted = session.run([entry, end], {"frame": case.batches[0]})
        assert values.shape == shapes[name]
        forms = [cpu_form(onnx.load_from_string(alone.SerializeToString()), {}, ())]
        low, high = float(wanted.min()), float(wanted.max())
        forms += [cpu_form(alone, {end: (low, high)}, roundable(alone))]
        assert [sum(n.op_type == "QuantizeLinear" for n in f.graph.node) for f in forms] == [0, 2]
        for form, share in zip(forms, (1e-5, 0.03), strict=True):
            session = onnxruntime.InferenceSession(form.SerializeToString())
            (found,) = session.run(None, {entry: values})
            assert np.abs(found - wanted).mean() < share * np.abs(wanted).mean() + 1e-6
