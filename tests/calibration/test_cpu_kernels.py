"""What ONNX Runtime's kernels run faster gives the numbers of the graph as it was."""

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from irstd_edge.calibration.cpu_kernels import for_kernels
from irstd_edge.edge.runtimes import ort_session

RANDOM = np.random.default_rng(0)
STRIDE = 8


def weights(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def model_of(nodes, constants, outputs, channels=2):
    """A graph of nodes that read x: a frame in so many channels of unlike gain."""
    constants = {"gains": weights(1, channels, 1, 1), **constants}
    graph = helper.make_graph(
        [helper.make_node("Mul", ["frame", "gains"], ["x"], "gain"), *nodes],
        "net",
        [helper.make_tensor_value_info("frame", TensorProto.FLOAT, ["N", 1, "H", "W"])],
        [helper.make_tensor_value_info(y, TensorProto.FLOAT, list("NCHW")) for y in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def conv(kernel, *, bias=True, output="y", source="x", **how):
    """A convolution that keeps the size, and its constants."""
    pads = [side // 2 for side in kernel.shape[2:]] * 2
    names = [source, f"{output}.w", *([f"{output}.b"] if bias else [])]
    constants = {f"{output}.w": kernel}
    if bias:
        constants[f"{output}.b"] = weights(len(kernel))
    return helper.make_node("Conv", names, [output], output, **{"pads": pads, **how}), constants


def both(model, shape):
    """Outputs before and after, and the operators after the gain."""
    frame = RANDOM.random(shape, np.float32)
    plain = ort_session(model.SerializeToString()).run(None, {"frame": frame})
    fast = for_kernels(onnx.load_from_string(model.SerializeToString()), STRIDE)
    found = Counter(node.op_type for node in fast.graph.node if node.name != "gain")
    return plain, ort_session(fast.SerializeToString()).run(None, {"frame": frame}), found


@pytest.mark.parametrize(("size", "channels"), [((7, 7), 2), ((3, 3), 4), ((1, 3), 5), ((9, 1), 1)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 24, 32), (3, 8, 8)])
def test_a_convolution_to_one_channel_goes_by_blocks(size, channels, bias, shape) -> None:
    node, constants = conv(weights(1, channels, *size), bias=bias)
    count, *sides = shape
    (plain,), (fast,), found = both(
        model_of([node], constants, ["y"], channels), (count, 1, *sides)
    )
    assert found == {"Conv": 1, "DepthToSpace": 1}
    assert plain.shape == fast.shape == (count, 1, *sides)
    np.testing.assert_allclose(fast, plain, atol=1e-5)


@pytest.mark.parametrize("also_read", [False, True])
def test_its_gate_goes_with_it_where_nothing_else_reads_it(also_read) -> None:
    node, constants = conv(weights(1, 2, 7, 7), output="score")
    gate = helper.make_node("Sigmoid", ["score"], ["gate"], "gate")
    outputs = ["gate", "score"] if also_read else ["gate"]
    plain, fast, found = both(model_of([node, gate], constants, outputs), (1, 1, 16, 24))
    assert found == {"Conv": 1, "Sigmoid": 1, "DepthToSpace": 1}
    for a, b in zip(plain, fast, strict=True):
        np.testing.assert_allclose(b, a, atol=1e-5)
    fused = for_kernels(model_of([node, gate], constants, outputs), STRIDE).graph.node
    order = [each.op_type for each in fused]
    assert order.index("Sigmoid") == (3 if also_read else 2)


@pytest.mark.parametrize("after", ["Relu", "Sigmoid and Mul"])
def test_what_else_reads_it_reads_pixels(after) -> None:
    node, constants = conv(weights(1, 2, 3, 3), output="score")
    names = after.split(" and ")
    inputs = {"Relu": ["score"], "Sigmoid": ["score"], "Mul": ["score", "score"]}
    readers = [helper.make_node(name, inputs[name], [name.lower()], name) for name in names]
    outputs = [name.lower() for name in names]
    plain, fast, found = both(model_of([node, *readers], constants, outputs), (1, 1, 16, 24))
    assert found["DepthToSpace"] == 1
    for a, b in zip(plain, fast, strict=True):
        np.testing.assert_allclose(b, a, atol=1e-5)


def test_one_without_padding_that_fits_goes_by_blocks() -> None:
    big = helper.make_node("Pad", ["x", "pads"], ["p"], "pad")
    node, constants = conv(weights(1, 2, 3, 3), source="p")
    del node.attribute[:]
    constants["pads"] = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    (plain,), (fast,), found = both(model_of([big, node], constants, ["y"]), (1, 1, 16, 24))
    assert found["DepthToSpace"] == 1
    np.testing.assert_allclose(fast, plain, atol=1e-5)


def test_two_with_one_kernel_go_by_blocks() -> None:
    first, constants = conv(weights(1, 2, 3, 3), output="a")
    second, _ = conv(weights(1, 2, 3, 3), output="b", source="other")
    second.input[1:] = first.input[1:]
    relu = helper.make_node("Relu", ["x"], ["other"], "relu")
    plain, fast, found = both(model_of([relu, first, second], constants, "ab"), (1, 1, 8, 8))
    assert found["DepthToSpace"] == 2
    for a, b in zip(plain, fast, strict=True):
        np.testing.assert_allclose(b, a, atol=1e-5)


def test_two_that_read_one_map_go_by_blocks() -> None:
    first, held = conv(weights(1, 2, 3, 3), output="a")
    second, more = conv(weights(1, 2, 3, 3), output="b")
    plain, fast, found = both(model_of([first, second], {**held, **more}, "ab"), (1, 1, 8, 8))
    assert found == {"Conv": 2, "DepthToSpace": 2}
    for a, b in zip(plain, fast, strict=True):
        np.testing.assert_allclose(b, a, atol=1e-5)


def test_a_bias_that_is_computed_is_left() -> None:
    node, constants = conv(weights(1, 2, 3, 3))
    same = helper.make_node("Identity", ["y.b"], ["bias"], "same")
    node.input[2] = "bias"
    other, more = conv(weights(1, 2, 3, 3), output="z")
    other.input[2] = "bias"
    model = model_of([same, node, other], {**constants, **more}, "yz")
    plain, fast, found = both(model, (1, 1, 8, 8))
    assert found["Conv"] == 2 and found["DepthToSpace"] == found["Split"] == 0
    assert all(np.array_equal(a, b) for a, b in zip(plain, fast, strict=True))


@pytest.mark.parametrize("pads", [[1, 1, 1, 2], [2, 1, 1, 1]])
def test_one_side_that_does_not_fit_is_enough_to_leave_it(pads) -> None:
    node, constants = conv(weights(1, 2, 3, 3), pads=pads)
    (plain,), (fast,), found = both(model_of([node], constants, ["y"]), (1, 1, 16, 24))
    assert found == {"Conv": 1} and np.array_equal(plain, fast)


def test_a_map_that_fits_only_in_the_smallest_frame_is_left() -> None:
    """A quarter of the frame and 2 pixels: 4 for a frame of 8, 6 for one of 16."""
    small = helper.make_node("MaxPool", ["x"], ["s"], "pool", kernel_shape=[4, 4], strides=[4, 4])
    node, constants = conv(weights(1, 2, 3, 3), source="s", pads=[2] * 4)
    (plain,), (fast,), found = both(model_of([small, node], constants, ["y"]), (1, 1, 16, 24))
    assert found["DepthToSpace"] == 0 and np.array_equal(plain, fast)


@pytest.mark.parametrize(
    ("kernel", "how"),
    [
        ((2, 2, 3, 3), {}),
        ((1, 2, 1, 1), {}),
        ((1, 2, 11, 11), {}),
        ((1, 2, 3, 3), {"strides": [2, 2]}),
        ((1, 2, 3, 3), {"dilations": [2, 2], "pads": [2] * 4}),
        ((1, 2, 3, 3), {"pads": [0] * 4}),  # the sides it gives are no multiples of the block
        ((1, 2, 3, 3), {"auto_pad": "SAME_UPPER", "pads": None}),
    ],
)
def test_other_convolutions_are_left(kernel, how) -> None:
    node, constants = conv(weights(*kernel), **{k: v for k, v in how.items() if v is not None})
    if how.get("pads", 0) is None:
        node.attribute.remove(next(each for each in node.attribute if each.name == "pads"))
    (plain,), (fast,), found = both(model_of([node], constants, ["y"]), (1, 1, 16, 24))
    assert found == {"Conv": 1} and np.array_equal(plain, fast)


def test_a_map_that_can_be_smaller_than_a_block_is_left() -> None:
    """Frames are multiples of 8, so a map of a quarter of their sides may have 2 pixels a side."""
    small = helper.make_node("MaxPool", ["x"], ["s"], "pool", kernel_shape=[4, 4], strides=[4, 4])
    node, constants = conv(weights(1, 2, 3, 3), source="s")
    model = model_of([small, node], constants, ["y"])
    for sides in ((8, 24), (64, 64)):
        (plain,), (fast,), found = both(model, (1, 1, *sides))
        assert found["DepthToSpace"] == 0 and np.array_equal(plain, fast)


def test_a_kernel_that_is_computed_is_left() -> None:
    node, constants = conv(weights(1, 2, 3, 3))
    double = helper.make_node("Add", ["y.w", "y.w"], ["twice"], "twice")
    node.input[1] = "twice"
    (plain,), (fast,), found = both(model_of([double, node], constants, ["y"]), (1, 1, 16, 16))
    assert found["DepthToSpace"] == 0 and np.array_equal(plain, fast)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("side", "how"), [(1, {}), (3, {}), (3, {"strides": [2, 2]})])
def test_convolutions_of_one_map_run_as_one(bias, side, how) -> None:
    parts = {"a": 4, "b": 3, "c": 2}
    made = [conv(weights(n, 2, side, side), output=y, bias=bias, **how) for y, n in parts.items()]
    model = model_of(
        [node for node, _ in made], {k: v for _, held in made for k, v in held.items()}, parts
    )
    plain, fast, found = both(model, (2, 1, 8, 16))
    assert found == {"Conv": 1, "Split": 1}
    for a, b in zip(plain, fast, strict=True):
        np.testing.assert_allclose(b, a, atol=1e-5)


def test_two_groups_without_names_run_as_two() -> None:
    made = [conv(weights(2, 2, 1, 1), output=y) for y in "ab"]
    made += [conv(weights(2, 2, 1, 1), output=y, source="other") for y in "cd"]
    relu = helper.make_node("Relu", ["x"], ["other"], "relu")
    constants = {k: v for _, held in made for k, v in held.items()}
    for node, _ in made:
        node.name = ""
    model = model_of([relu, *(node for node, _ in made)], constants, "abcd")
    plain, fast, found = both(model, (1, 1, 8, 8))
    assert found["Conv"] == found["Split"] == 2
    for a, b in zip(plain, fast, strict=True):
        np.testing.assert_allclose(b, a, atol=1e-6)


@pytest.mark.parametrize(
    ("kernel", "how"),
    [
        ((2, 2, 3, 3), {"pads": [0] * 4}),  # another window
        ((2, 2, 1, 1), {"bias": False}),
        ((2, 2, 1, 1), {"strides": [2, 2]}),
        ((2, 1, 1, 1), {"group": 2}),
        ((2, 2, 1, 1), {"source": "other"}),
    ],
)
def test_convolutions_of_another_kind_run_alone(kernel, how) -> None:
    first, held = conv(weights(3, 2, 1, 1), output="a")
    second, more = conv(weights(*kernel), output="b", **how)
    relu = helper.make_node("Relu", ["x"], ["other"], "relu")
    model = model_of([relu, first, second], {**held, **more}, ["a", "b"])
    plain, fast, found = both(model, (1, 1, 8, 8))
    assert found["Conv"] == 2 and found["Split"] == 0
    assert all(np.array_equal(a, b) for a, b in zip(plain, fast, strict=True))


def test_depthwise_convolutions_of_one_map_run_alone() -> None:
    made = [conv(weights(2, 1, 3, 3), output=y, group=2) for y in "ab"]
    model = model_of(
        [node for node, _ in made], {k: v for _, held in made for k, v in held.items()}, "ab"
    )
    _, _, found = both(model, (1, 1, 8, 8))
    assert found == {"Conv": 2}
