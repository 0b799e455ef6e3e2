"""The graphs of one network: what each runtime takes, and that all of them see the same."""

import copy

import numpy as np
import onnx
import pytest
import torch

from irstd_edge.calibration.export import exports_of, graphs_of, int8_graph
from irstd_edge.calibration.judge import opened
from irstd_edge.calibration.layouts import Graph, layer_of, rounded_layers
from irstd_edge.edge.bundle import VARIANTS, graph_name
from irstd_edge.edge.qdq import MAX_IR_VERSION, MAX_OPSET, lint_int8, lint_int8_cpu
from irstd_edge.edge.runners import installed_runtimes, open_graph, torch_runner
from irstd_edge.models.onnx_from_torch import onnx_from_torch

SIZES = [(64, 64), (48, 72)]


def run_graph(case, name, batch, folder, runtime="onnxruntime"):
    if runtime == "as written":
        with opened({name: case.graphs[name]}, case.spec) as runners:
            return runners[name].infer(batch)
    path = folder / name
    path.write_bytes(case.graphs[name])
    with open_graph(path, case.spec, name, runtime, threads=1) as runner:
        return runner.infer(batch)


def relative_error(outputs, reference):
    """Root of the mean squared error, over the reference's deviation; the worse output's."""
    return max(
        float(np.sqrt(np.mean((a - b) ** 2)) / b.std())
        for a, b in zip(outputs, reference, strict=True)
    )


def test_there_is_a_graph_for_every_variant_and_runtime(case):
    wanted = {graph_name(v, r) for v in VARIANTS for r in ("onnxruntime", "openvino")}
    assert set(case.graphs) == wanted


@pytest.mark.parametrize("name", sorted({*VARIANTS.values(), "int8.cpu.onnx"}))
def test_every_graph_is_one_that_old_runtimes_read(case, name):
    model = onnx.load_from_string(case.graphs[name])
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version <= MAX_IR_VERSION
    assert [(o.domain, o.version <= MAX_OPSET) for o in model.opset_import] == [("", True)]


def test_int8_is_pure_and_signed(case):
    assert lint_int8(onnx.load_from_string(case.graphs["int8.onnx"])) == []


def test_the_form_of_onnx_runtime_runs_in_integers(case):
    assert lint_int8_cpu(onnx.load_from_string(case.graphs["int8.cpu.onnx"])) == []


def test_what_onnx_runtime_computes_in_float_has_weights_that_were_never_rounded(case):
    whole, form = (onnx.load_from_string(case.graphs[n]) for n in ("int8.onnx", "int8.cpu.onnx"))
    in_float = rounded_layers(whole).keys() - rounded_layers(form).keys()
    assert in_float
    known = dict(case.quantized.module.state_dict())
    graph = Graph(form)
    # Those that run as one bear the names of all.
    weights = {
        tuple(map(layer_of, node.name.split("+"))): node.input[1]
        for node in graph.nodes
        if node.op_type == "Conv"
    }
    assert in_float <= {layer for layers in weights for layer in layers}
    for layers, weight in weights.items():
        if in_float.intersection(layers):
            own = [known[f"{layer}.weight"].numpy() for layer in layers]
            np.testing.assert_array_equal(graph.constants[weight], np.concatenate(own))


def test_int8_fp16_is_pure_and_signed(case):
    assert lint_int8(onnx.load_from_string(case.graphs["int8-fp16.onnx"])) == []


def test_int8_is_small(case):
    size = {name: len(graph) for name, graph in case.graphs.items()}
    assert size["int8.onnx"] <= 0.65 * size["fp32.onnx"]
    assert size["int8.cpu.onnx"] <= 0.65 * size["fp32.onnx"]
    assert size["fp16.onnx"] <= 0.6 * size["fp32.onnx"]
    assert size["int8-fp16.onnx"] <= 0.5 * size["fp32.onnx"]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "runtime, limit",
    # The file itself does what torch does but where a value lies halfway between two steps. The
    # runtimes round more finely, and ONNX Runtime rounds biases as well.
    [("as written", 0.06), ("openvino", 0.1), ("onnxruntime", 0.1)],
)
def test_int8_computes_what_torch_rounds(exact_case, runtime, limit, size, tmp_path):
    if runtime == "openvino" and runtime not in installed_runtimes():
        pytest.skip("openvino is not installed")
    batch = np.random.default_rng(5).random((2, 1, *size), np.float32)
    expected = torch_runner(exact_case.quantized.module, exact_case.spec).infer(batch)
    found = run_graph(exact_case, "int8.onnx", batch, tmp_path, runtime)
    assert relative_error(found, expected) < limit


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name, limit", [("fp32.onnx", 1e-4), ("int8.cpu.onnx", 0.2)])
def test_its_own_forms_on_onnx_runtime_stay_close_to_the_network(case, name, limit, size, tmp_path):
    batch = np.random.default_rng(5).random((2, 1, *size), np.float32)
    expected = torch_runner(case.float_net, case.spec).infer(batch)
    assert relative_error(run_graph(case, name, batch, tmp_path), expected) < limit


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "name, other", [("fp16.onnx", "fp32.onnx"), ("int8-fp16.onnx", "int8.onnx")]
)
@pytest.mark.parametrize("runtime", ["as written", "openvino"])
def test_float16_stays_close_to_float32(exact_case, name, other, runtime, size, tmp_path):
    if runtime == "openvino" and runtime not in installed_runtimes():
        pytest.skip("openvino is not installed")
    batch = np.random.default_rng(5).random((2, 1, *size), np.float32)
    expected = run_graph(exact_case, other, batch, tmp_path, "as written")
    assert relative_error(run_graph(exact_case, name, batch, tmp_path, runtime), expected) < 0.1


def test_equal_networks_give_equal_bytes(case):
    exports = exports_of(case.float_net, case.quantized.module, case.spec)
    again = graphs_of(exports, case.spec, case.shown())
    assert again == case.graphs


@pytest.mark.parametrize("trained", [False, True])
def test_released_layers_have_the_biases_that_calibration_did_not_move(case, trained):
    module = copy.deepcopy(case.quantized.module)
    with torch.no_grad():
        for name, value in module.named_parameters():
            if name.endswith("bias"):
                value += 1
    exports = exports_of(case.float_net, module, case.spec, trained=trained)
    layers = list(rounded_layers(onnx.load_from_string(exports.rounded)))[:3]
    graphs = graphs_of(exports, case.spec, case.shown(), layers)
    floats = biases_of(graphs["fp32.onnx"])
    for name in ("int8.onnx", "int8.cpu.onnx", "int8-fp16.onnx"):
        found = biases_of(graphs[name])
        for layer in layers:
            moved = found[layer].astype(np.float32) - floats[layer]
            assert moved.min() > 0.5 if trained else np.abs(moved).max() < 0.01, (name, layer)


def biases_of(graph):
    """Layer -> bias, of convolutions that have it as it is."""
    found = Graph(onnx.load_from_string(graph))
    convs = (node for node in found.nodes if node.op_type == "Conv" and len(node.input) > 2)
    return {
        layer_of(node.name): found.constants[node.input[2]]
        for node in convs
        if node.input[2] in found.constants
    }


def test_a_graph_that_the_linter_refuses_is_not_written(case):
    broken = torch.nn.Conv2d(1, 1, 3)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = broken

        def forward(self, x):
            return self.conv(x), self.conv(x)

    with pytest.raises(ValueError, match=r"int8\.onnx: graph: has no QuantizeLinear"):
        int8_graph(onnx_from_torch(Net().eval(), case.spec))
