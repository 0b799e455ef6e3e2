"""The linter on a graph that is right, and on the same graph with one thing broken at a time."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is in the train extra")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from irstd_edge.edge.qdq import Finding, lint_int8, lint_int8_cpu  # noqa: E402

CHANNELS = 4


def right_model():
    """frame -> Conv -> Relu -> Q/DQ -> Conv of int8 weights, a scale per channel -> logits."""
    rng = np.random.default_rng(0)
    constants = {
        "stem.weight": rng.normal(size=(CHANNELS, 1, 3, 3)).astype(np.float32),
        "scale": np.float32(0.05),
        "zero": np.int8(0),
        "head.weight": rng.integers(-127, 127, (2, CHANNELS, 1, 1), np.int8),
        "head.scale": np.float32([0.01, 0.02]),
        "head.zero": np.int8([0, 0]),
        "head.bias": np.float32([0.1, 0.2]),
    }
    nodes = [
        helper.make_node("Conv", ["frame", "stem.weight"], ["a"], "stem", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("QuantizeLinear", ["b", "scale", "zero"], ["c"], "q"),
        helper.make_node("DequantizeLinear", ["c", "scale", "zero"], ["d"], "dq"),
        helper.make_node(
            "DequantizeLinear", ["head.weight", "head.scale", "head.zero"], ["w"], "dqw", axis=0
        ),
        helper.make_node("Conv", ["d", "w", "head.bias"], ["logits"], "head"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("frame", TensorProto.FLOAT, ["N", 1, "H", "W"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2, "H", "W"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def node(model, name):
    return next(node for node in model.graph.node if node.name == name)


def put(model, name, value):
    """Replace a constant."""
    item = next(item for item in model.graph.initializer if item.name == name)
    item.CopyFrom(numpy_helper.from_array(np.asarray(value), name))


def drop_zero_point(model):
    del node(model, "q").input[2]


def custom_domain(model):
    relu = node(model, "relu")
    relu.op_type, relu.domain = "FakeQuantize", "org.openvinotoolkit"


def integer_operator(model):
    node(model, "head").op_type = "QLinearConv"


def scale_at_run_time(model):
    node(model, "q").input[1] = "a"


def zero_at_run_time(model):
    node(model, "q").input[2] = "a"


def no_dequantize(model):
    node(model, "head").input[0] = "c"


def no_quantize(model):
    node(model, "dq").input[0] = "b"


def quantized_frame(model):
    model.graph.node.extend(
        [
            helper.make_node("QuantizeLinear", ["frame", "scale", "zero"], ["f"], "qframe"),
            helper.make_node("DequantizeLinear", ["f", "scale", "zero"], ["g"], "dqframe"),
        ]
    )
    node(model, "stem").input[0] = "g"


def quantized_first_conv(model):
    put(model, "stem.weight", np.ones((CHANNELS, 1, 3, 3), np.int8))
    model.graph.node.append(
        helper.make_node("DequantizeLinear", ["stem.weight", "scale", "zero"], ["s"], "dqs")
    )
    node(model, "stem").input[1] = "s"


def integer_bias(model):
    put(model, "head.bias", np.int32([1, 2]))
    model.graph.node.append(
        helper.make_node("DequantizeLinear", ["head.bias", "head.scale"], ["bias"], "dqb", axis=0)
    )
    node(model, "head").input[2] = "bias"


def unsigned_output(model):
    node(model, "q").attribute.append(helper.make_attribute("output_dtype", TensorProto.UINT8))


def local_function(model):
    model.functions.append(
        helper.make_function("local", "act", ["x"], ["y"], [], [helper.make_opsetid("", 17)])
    )


def control_flow(model):
    empty = helper.make_graph([], "empty", [], [])
    node(model, "relu").attribute.append(helper.make_attribute("then_branch", empty))


BREAKS = [
    (drop_zero_point, "q", "no zero point, which means uint8", "zero point of int8 0"),
    (lambda m: put(m, "zero", np.uint8(0)), "q", "uint8, TensorRT takes int8", "signed"),
    (lambda m: put(m, "zero", np.int8(3)), "q", "zero point is 3", "symmetric"),
    (lambda m: put(m, "head.zero", np.int8([0, -2])), "dqw", "zero point is -2", "symmetric"),
    (lambda m: put(m, "scale", np.float32(0)), "q", "not above 0", "calibrate"),
    (lambda m: put(m, "scale", np.float32(-1)), "q", "not above 0", "calibrate"),
    (lambda m: put(m, "scale", np.float32(np.inf)), "q", "finite", "calibrate"),
    (lambda m: put(m, "head.scale", np.float32([1, np.nan])), "dqw", "finite", "calibrate"),
    (lambda m: put(m, "scale", np.ones(4, np.float32)), "q", "4 scales", "per tensor"),
    (scale_at_run_time, "q", "scale is computed at run time", "constant"),
    (zero_at_run_time, "q", "zero point is computed", "constant"),
    (unsigned_output, "q", "output_dtype is not int8", "INT8"),
    (custom_domain, "relu", "FakeQuantize of org.openvinotoolkit", "QuantizeLinear"),
    (integer_operator, "head", "is QLinearConv", "float operator"),
    (control_flow, "relu", "graph of its own", "control flow"),
    (no_dequantize, "q", "read directly", "DequantizeLinear after it"),
    (no_quantize, "dq", "no QuantizeLinear made", "before it"),
    (quantized_frame, "qframe", "quantizes the frame", "float"),
    (quantized_first_conv, "stem", "first convolution is quantized", "float"),
    (integer_bias, "dqb", "bias as int32", "float"),
    (lambda m: put(m, "head.weight", np.ones((2, 4, 1, 1), np.uint8)), "dqw", "uint8", "signed"),
    (lambda m: setattr(m, "ir_version", 11), "graph", "IR version is 11", "10"),
    (lambda m: setattr(m.opset_import[0], "version", 22), "graph", "opset is 22", "21"),
    (local_function, "act", "local function", "inline"),
]


def test_the_right_form_has_no_findings_and_onnx_accepts_it():
    onnx.checker.check_model(right_model(), full_check=True)
    assert lint_int8(right_model()) == []


@pytest.mark.parametrize(("break_it", "name", "problem", "fix"), BREAKS)
def test_each_fault_names_its_node_and_the_fix(break_it, name, problem, fix):
    model = right_model()
    break_it(model)
    findings = lint_int8(model)
    assert any(f.node == name and problem in f.problem and fix in f.fix for f in findings), findings


def test_a_float_graph_is_not_int8():
    model = right_model()
    node(model, "stem").output[0] = "logits"
    for name in ("relu", "q", "dq", "dqw", "head"):
        model.graph.node.remove(node(model, name))
    assert lint_int8(model) == [
        Finding("graph", "has no QuantizeLinear", "export the quantized model")
    ]


def test_weights_may_be_quantized_in_the_graph():
    model = right_model()
    put(model, "head.weight", np.ones((2, CHANNELS, 1, 1), np.float32))
    model.graph.node.append(
        helper.make_node(
            "QuantizeLinear", ["head.weight", "head.scale", "head.zero"], ["qw"], "qw", axis=0
        )
    )
    node(model, "dqw").input[0] = "qw"
    assert lint_int8(model) == []


def test_constants_may_be_nodes():
    model = right_model()
    item = next(item for item in model.graph.initializer if item.name == "scale")
    model.graph.initializer.remove(item)
    model.graph.node.insert(0, helper.make_node("Constant", [], ["scale"], "k", value=item))
    assert lint_int8(model) == []


def test_a_node_without_a_name_is_told_by_its_output():
    model = right_model()
    put(model, "zero", np.int8(1))
    node(model, "q").name = ""
    assert str(lint_int8(model)[0]) == (
        "QuantizeLinear of c: its zero point is 1, not 0: make the quantizer symmetric"
    )


def cpu_model():
    """The right model as ONNX Runtime wants it: unsigned, bias in int32, rounded behind as well."""
    model = right_model()
    put(model, "zero", np.uint8(0))
    bias = {
        "bias": np.int32([200, 200]),
        "bias.scale": np.float32([0.0005, 0.001]),
        "bias.zero": np.int32([0, 0]),
    }
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in bias.items())
    node(model, "head").input[2] = "rounded bias"
    node(model, "head").output[0] = "e"
    more = [
        helper.make_node("DequantizeLinear", [*bias], ["rounded bias"], "dqb", axis=0),
        helper.make_node("Relu", ["e"], ["f"], "relu2"),
        helper.make_node("QuantizeLinear", ["f", "scale", "zero"], ["g"], "q2"),
        helper.make_node("DequantizeLinear", ["g", "scale", "zero"], ["logits"], "dq2"),
    ]
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:-1], more[0], nodes[-1], *more[1:]])
    return model


def signed(model):
    put(model, "zero", np.int8(0))


def reads_float(model):
    node(model, "head").input[0] = "b"


def float_bias(model):
    node(model, "head").input[2] = "head.bias"


def float_behind(model):
    node(model, "dq2").output[0] = "spare"
    node(model, "relu2").output[0] = "logits"
    node(model, "q2").input[0] = "logits"


def wide_weights(model):
    put(model, "head.weight", np.ones((2, CHANNELS, 1, 1), np.uint8))
    put(model, "head.zero", np.uint8([0, 0]))


def test_the_form_of_onnx_runtime_has_no_findings():
    model = cpu_model()
    onnx.checker.check_model(model, full_check=True)
    assert lint_int8_cpu(model) == []
    assert lint_int8(model), "and it is not that of TensorRT"


@pytest.mark.parametrize(
    ("break_it", "name", "problem"),
    [
        (signed, "q", "its zero point is int8"),
        (reads_float, "head", "reads float"),
        (float_bias, "head", "its bias is in float"),
        (float_behind, "head", "its output is not rounded"),
        (wide_weights, "head", "its weights are not int8 around 0"),
    ],
)
def test_what_keeps_a_convolution_from_integers_is_named(break_it, name, problem):
    model = cpu_model()
    break_it(model)
    found = [f for f in lint_int8_cpu(model) if f.node == name]
    assert [f.problem.startswith(problem) for f in found] == [True]
    assert found[0].fix
