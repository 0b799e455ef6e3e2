"""What is rewritten gives the numbers of the graph as written, and only what pays is rewritten."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

openvino = pytest.importorskip("openvino")

from openvino import opset8 as ops  # noqa: E402
from openvino.opset11 import interpolate as resized  # noqa: E402

from irstd_edge.edge import openvino_graph  # noqa: E402
from irstd_edge.edge.openvino_graph import model_for  # noqa: E402

RANDOM = np.random.default_rng(0)


def kinds(model: Any) -> Counter[str]:
    return Counter(node.get_type_name() for node in model.get_ordered_ops())


def both(model: Any, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, Counter[str]]:
    """Outputs of the model as written and as rewritten, and the operators of the second."""
    x = RANDOM.random(shape, dtype=np.float32)
    plain, fast = model.clone(), model_for(model, "x", shape)
    plain.reshape({"x": list(shape)})
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    outputs = [
        openvino.Core().compile_model(each, "CPU", config)({"x": x})[0] for each in (plain, fast)
    ]
    return outputs[0], outputs[1], kinds(fast)


def conv(kernel: np.ndarray, pads: tuple[int, int], strides: int = 1, dilations: int = 1) -> Any:
    x = ops.parameter([-1, kernel.shape[1], -1, -1], np.float32, name="x")
    steps = [strides] * 2, list(pads), list(pads), [dilations] * 2
    return openvino.Model(
        [ops.convolution(x, ops.constant(kernel.astype(np.float32)), *steps)], [x]
    )


def resize(mode: str = "linear_onnx", corners: str = "align_corners", scale: float = 2.0) -> Any:
    x = ops.parameter([-1, -1, -1, -1], np.float32, name="x")
    scales, axes = ops.constant(np.float32([scale, scale])), ops.constant(np.array([2, 3]))
    how = {"coordinate_transformation_mode": corners}
    return openvino.Model([resized(x, scales, mode, "scales", axes=axes, **how)], [x])


def named(model: Any) -> Any:
    model.inputs[0].get_tensor().set_names({"x"})
    return model


@pytest.mark.parametrize(("size", "channels"), [((7, 7), 2), ((3, 3), 4), ((1, 3), 5), ((5, 1), 1)])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_convolution_to_one_channel_goes_by_blocks(
    size: tuple[int, int], channels: int, batch: int
) -> None:
    kernel = RANDOM.standard_normal((1, channels, *size))
    model = named(conv(kernel, (size[0] // 2, size[1] // 2)))
    plain, fast, found = both(model, (batch, channels, 24, 32))
    assert found["DepthToSpace"] == 1
    assert plain.shape == fast.shape == (batch, 1, 24, 32)
    np.testing.assert_allclose(fast, plain, atol=1e-5)


def attention(
    kernel: np.ndarray,
    axis: int = 1,
    dtype: Any = np.float32,
    before: list[int] | None = None,
    after: list[int] | None = None,
) -> Any:
    """A convolution of what is joined: means of a map, its maxima, and the map itself."""
    channels = kernel.shape[1] - 2 if axis == 1 else 3
    x = ops.parameter([-1, channels, -1, -1], dtype, name="x")
    means = ops.reduce_mean(x, ops.constant(np.array([axis])), True)
    joined = ops.concat([means, ops.reduce_max(x, ops.constant(np.array([1])), True), x], 1)
    pads = [side // 2 for side in kernel.shape[2:]]
    before, after = pads if before is None else before, pads if after is None else after
    y = ops.convolution(joined, ops.constant(kernel.astype(dtype)), [1, 1], before, after, [1, 1])
    return named(openvino.Model([y], [x]))


@pytest.mark.parametrize("size", [(7, 7), (9, 9), (1, 3), (3, 1)])
@pytest.mark.parametrize("shape", [(1, 3, 128, 128), (2, 3, 100, 192), (1, 3, 64, 64)])
def test_what_is_joined_for_a_convolution_to_one_channel_is_added_where_maps_are_large(
    size: tuple[int, int], shape: tuple[int, ...]
) -> None:
    plain, fast, found = both(attention(RANDOM.standard_normal((1, 5, *size))), shape)
    large = shape[2] * shape[3] >= 128 * 128
    assert found["DepthToSpace"] == 1 and found["Concat"] == (not large)
    assert found["ReduceMean"] == (not large), "means are taken by blocks"
    np.testing.assert_allclose(fast, plain, atol=1e-4)


@pytest.mark.parametrize(
    ("side", "before", "after", "by_blocks"),
    [
        (3, [2, 0], [0, 2], True),
        (5, [4, 0], [0, 4], True),
        (7, [6, 0], [0, 6], False),  # beyond the neighbouring block
        (3, [3, 1], [3, 1], False),  # makes the map higher
        (5, [0, 0], [0, 0], False),
    ],
)
@pytest.mark.parametrize("channels", [2, 16])
def test_paddings_of_every_kind(
    side: int, before: list[int], after: list[int], by_blocks: bool, channels: int
) -> None:
    kernel = RANDOM.standard_normal((1, channels + 2, side, side))
    model = attention(kernel, before=before, after=after)
    plain, fast, found = both(model, (1, channels, 132, 160))
    assert plain.shape == fast.shape and found["DepthToSpace"] == 1
    assert found["ReduceMean"] == (not by_blocks)
    np.testing.assert_allclose(fast, plain, atol=1e-4)


def test_means_of_volumes_are_read_as_they_are() -> None:
    x = ops.parameter([1, 6, 128, 128], np.float32, name="x")
    volume = ops.reshape(x, ops.constant(np.array([1, 2, 3, 128, 128])), False)
    means = ops.reduce_mean(volume, ops.constant(np.array([1])), False)
    kernel = ops.constant(RANDOM.standard_normal((1, 9, 3, 3)).astype(np.float32))
    joined = ops.concat([means, x], 1)
    y = ops.convolution(joined, kernel, [1, 1], [1, 1], [1, 1], [1, 1])
    plain, fast, found = both(named(openvino.Model([y], [x])), (1, 6, 128, 128))
    assert found["ReduceMean"] == found["DepthToSpace"] == 1
    np.testing.assert_allclose(fast, plain, atol=1e-4)


def test_means_over_another_axis_are_read_as_they_are() -> None:
    kernel = RANDOM.standard_normal((1, 7, 3, 3))
    plain, fast, found = both(attention(kernel, axis=0), (1, 3, 128, 128))
    assert found["ReduceMean"] == found["DepthToSpace"] == 1
    np.testing.assert_allclose(fast, plain, atol=1e-4)


def test_float16_stays_float16() -> None:
    kernel = RANDOM.standard_normal((1, 5, 3, 3))
    plain, fast, found = both(attention(kernel, dtype=np.float16), (1, 3, 128, 128))
    assert found["ReduceMean"] == 0 and fast.dtype == np.float16
    np.testing.assert_allclose(fast, plain, atol=0.05)


def test_maps_joined_along_another_axis_are_read_joined() -> None:
    x = ops.parameter([-1, 2, -1, -1], np.float32, name="x")
    kernel = ops.constant(RANDOM.standard_normal((1, 2, 3, 3)).astype(np.float32))
    y = ops.convolution(ops.concat([x, x], 2), kernel, [1, 1], [1, 1], [1, 1], [1, 1])
    plain, fast, found = both(named(openvino.Model([y], [x])), (1, 2, 64, 128))
    assert found["Concat"] == found["DepthToSpace"] == 1
    np.testing.assert_allclose(fast, plain, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (conv(RANDOM.standard_normal((2, 2, 3, 3)), (1, 1)), (1, 2, 24, 32)),
        (conv(RANDOM.standard_normal((1, 2, 1, 1)), (0, 0)), (1, 2, 24, 32)),
        (conv(RANDOM.standard_normal((1, 2, 3, 3)), (1, 1)), (1, 2, 24, 30)),
        (conv(RANDOM.standard_normal((1, 2, 3, 3)), (1, 1), strides=2), (1, 2, 48, 64)),
        (conv(RANDOM.standard_normal((1, 2, 3, 3)), (2, 2), dilations=2), (1, 2, 24, 32)),
        (conv(RANDOM.standard_normal((1, 2, 11, 11)), (5, 5)), (1, 2, 24, 32)),
    ],
)
def test_other_convolutions_are_left(model: Any, shape: tuple[int, ...]) -> None:
    plain, fast, found = both(named(model), shape)
    assert found["DepthToSpace"] == 0 and np.array_equal(plain, fast)


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (2, 1, 6, 11), (1, 1, 2, 2)])
def test_a_map_of_one_channel_is_stretched_by_products(
    shape: tuple[int, ...], scale: float
) -> None:
    plain, fast, found = both(named(resize(scale=scale)), shape)
    assert found["MatMul"] == 2 and found["Interpolate"] == 0
    np.testing.assert_allclose(fast, plain, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (resize(), (1, 2, 8, 8)),  # more than one channel
        (resize(corners="half_pixel"), (1, 1, 8, 8)),
        (resize(mode="nearest"), (1, 1, 8, 8)),
        (resize(scale=0.5), (1, 1, 8, 8)),
        (resize(), (1, 1, 1, 8)),
        (resize(), (1, 1, 256, 320)),  # large: products would take longer
    ],
)
def test_other_resizes_are_left(model: Any, shape: tuple[int, ...]) -> None:
    plain, fast, found = both(named(model), shape)
    assert found["MatMul"] == 0 and found["Interpolate"] == 1 and np.array_equal(plain, fast)


def test_a_model_is_fitted_to_several_sizes_and_stays_as_it_was() -> None:
    model = named(conv(RANDOM.standard_normal((1, 2, 3, 3)), (1, 1)))
    for side in (8, 16, 8):
        assert model_for(model, "x", (1, 2, side, side)).outputs[0].shape == [1, 1, side, side]
    assert kinds(model)["DepthToSpace"] == 0 and model.inputs[0].get_partial_shape()[2].is_dynamic


def rounded(nonnegative: bool, scale: float, per_channel: bool = False) -> Any:
    """What OpenVINO reads of QuantizeLinear and DequantizeLinear to int8, after a ReLU or not."""
    pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    scales = [scale, 2 * scale] if per_channel else [scale]
    shape = [len(scales)] if per_channel else []
    names = ["a", "scale", "zero"]
    axis = {"axis": 1} if per_channel else {}
    graph = helper.make_graph(
        [
            helper.make_node("Relu" if nonnegative else "Identity", ["x"], ["a"]),
            helper.make_node("QuantizeLinear", names, ["q"], **axis),
            helper.make_node("DequantizeLinear", ["q", *names[1:]], ["y"], **axis),
        ],
        "rounded",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, "h", "w"])],
        [
            helper.make_tensor("scale", TensorProto.FLOAT, shape, scales),
            helper.make_tensor("zero", TensorProto.INT8, shape, [0] * len(scales)),
        ],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    return openvino.Core().read_model(model.SerializeToString())


def run(model: Any, x: np.ndarray) -> np.ndarray:
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    return np.array(openvino.Core().compile_model(model, "CPU", config)({"x": x})[0])


def test_what_is_never_negative_is_rounded_to_half_the_steps() -> None:
    scale = 0.02
    x = RANDOM.uniform(-4, 4, (1, 2, 16, 16)).astype(np.float32)
    plain = rounded(True, scale)
    plain.reshape([1, 2, 16, 16])
    before, after = run(plain, x), run(model_for(rounded(True, scale), "x", x.shape), x)
    inside = x < 127 * scale
    for found, step in ((before, scale), (after, scale / 2)):
        assert abs(found - np.maximum(x, 0))[inside].max() == pytest.approx(step / 2, rel=0.05)
    np.testing.assert_allclose(after, np.rint(after / (scale / 2)) * (scale / 2), atol=1e-6)
    assert after.max() == pytest.approx(127.5 * scale)


@pytest.mark.parametrize(("nonnegative", "per_channel"), [(False, False), (True, True)])
def test_other_roundings_are_left(nonnegative: bool, per_channel: bool) -> None:
    x = RANDOM.uniform(-4, 4, (1, 2, 16, 16)).astype(np.float32)
    plain = rounded(nonnegative, 0.02, per_channel)
    plain.reshape([1, 2, 16, 16])
    fitted = model_for(rounded(nonnegative, 0.02, per_channel), "x", x.shape)
    assert np.array_equal(run(plain, x), run(fitted, x))


def joined(first: str, guard: float | None, scale: float = 0.02) -> Any:
    """What OpenVINO reads of two maps that are joined, guarded by a Max, rounded and convolved."""
    pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    weights = RANDOM.integers(-127, 128, (32, 32, 3, 3)).astype(np.int8)
    constants = {"scale": np.float32(scale), "zero": np.int8(0), "w": weights}
    constants["guard"] = np.float32(guard or 0)
    guarded = "j" if guard is None else "g"
    nodes = [
        helper.make_node(first, ["x"], ["a"]),
        helper.make_node("Neg", ["x"], ["minus"]),
        helper.make_node("Relu", ["minus"], ["b"]),
        helper.make_node("Concat", ["a", "b"], ["j"], axis=1),
        *([] if guard is None else [helper.make_node("Max", ["j", "guard"], ["g"])]),
        helper.make_node("QuantizeLinear", [guarded, "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["r"]),
        helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["v"]),
        helper.make_node("Conv", ["r", "v"], ["y"], pads=[1, 1, 1, 1]),
    ]
    ends = [
        helper.make_tensor_value_info(n, 1, [1, c, "h", "w"]) for n, c in (("x", 16), ("y", 32))
    ]
    stored = [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()]
    graph = helper.make_graph(nodes, "joined", ends[:1], ends[1:], stored)
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    return openvino.Core().read_model(model.SerializeToString())


@pytest.mark.parametrize("guard", [None, -2.56, 0.0])
def test_maps_are_rounded_before_they_are_joined(
    guard: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = joined("Relu", guard), RANDOM.uniform(-4, 4, (1, 16, 16, 16)).astype(np.float32)
    fast = model_for(model, "x", x.shape)
    monkeypatch.setattr(openvino_graph, "_joined", lambda node: None)
    plain = model_for(model, "x", x.shape)
    assert roundings_joined(plain) == 0 and roundings_joined(fast) == 2
    np.testing.assert_allclose(run(fast, x), run(plain, x), rtol=1e-5)


@pytest.mark.parametrize(("first", "guard"), [("Identity", -2.56), ("Relu", 0.1)])
def test_maps_that_may_be_negative_or_are_cut_are_joined_first(first: str, guard: float) -> None:
    model, x = joined(first, guard), RANDOM.uniform(-4, 4, (1, 16, 16, 16)).astype(np.float32)
    assert roundings_joined(model_for(model, "x", x.shape)) == 0


def roundings_joined(model: Any) -> int:
    """Roundings that a Concat reads."""
    joins = [node for node in model.get_ordered_ops() if node.get_type_name() == "Concat"]
    parts = [part.get_node().get_type_name() for node in joins for part in node.input_values()]
    return parts.count("FakeQuantize")


def test_a_rounding_between_float16_is_left() -> None:
    """As in int8-fp16.onnx, TensorRT's form: OpenVINO could not join float32 with its weights."""
    x = ops.parameter([1, 2, 8, 8], np.float16, name="x")
    ends = [ops.constant(np.float16(value)) for value in (-2.56, 2.54, -128, 127)]
    rounding = ops.fake_quantize(ops.relu(x), *ends, 256)
    stored = ops.convert(ops.convert(rounding, "i8"), "f16")
    model = named(openvino.Model([ops.multiply(stored, ops.constant(np.float16(0.02)))], [x]))
    assert kinds(model_for(model, "x", (1, 2, 8, 8)))["Convert"] == 2


def test_parts_of_a_rewritten_layer_bear_its_name() -> None:
    model = named(conv(RANDOM.standard_normal((1, 2, 3, 3)), (1, 1)))
    (old,) = (n for n in model.get_ordered_ops() if n.get_type_name() == "Convolution")
    old.set_friendly_name("/sa/conv1/Conv")
    fast = model_for(model, "x", (1, 2, 8, 8))
    names = {n.get_type_name(): n.get_friendly_name() for n in fast.get_ordered_ops()}
    assert names["Convolution"].startswith("/sa/conv1/Conv")
    assert names["DepthToSpace"] == "/sa/conv1/Conv"


def test_parts_of_a_layer_that_is_added_up_bear_its_name() -> None:
    model = attention(RANDOM.standard_normal((1, 5, 3, 3)))
    (old,) = (n for n in model.get_ordered_ops() if n.get_type_name() == "Convolution")
    old.set_friendly_name("/sa/conv1/Conv")
    fast = model_for(model, "x", (1, 3, 128, 128)).get_ordered_ops()
    made = [n for n in fast if n.get_type_name() in ("Convolution", "Add", "DepthToSpace")]
    assert len(made) == 4 + 2 + 1
    assert all(n.get_friendly_name().startswith("/sa/conv1/Conv") for n in made)


def test_a_convolution_of_a_line_is_left() -> None:
    x = ops.parameter([1, 2, 16], np.float32, name="x")
    kernel = ops.constant(RANDOM.standard_normal((1, 2, 3)).astype(np.float32))
    model = named(openvino.Model([ops.convolution(x, kernel, [1], [1], [1], [1])], [x]))
    assert kinds(model_for(model, "x", (1, 2, 16)))["DepthToSpace"] == 0
