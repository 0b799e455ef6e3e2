from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irstd_edge.benchmarks.kernels import Kernel, kernels_of_graph
from irstd_edge.edge.types import IrstdError

onnx = pytest.importorskip("onnx", reason="counting a graph needs the train extra")

SHAPE = (1, 8, 4, 4)
VALUES = 8 * 16
"""Of a tensor of that shape."""
WEIGHTS = 8 * 8 + 8
"""Of a 1x1 convolution of 8 channels with its bias."""


def node(op: str, inputs: str, output: str, **attributes: Any) -> Any:
    return onnx.helper.make_node(op, inputs.split(), output.split(), name=output, **attributes)


def conv(source: str, output: str) -> Any:
    return node("Conv", f"{source} w b", output)


def quantized(tensor: str) -> list[Any]:
    """tensor -> tensor_q -> tensor_d."""
    return [
        node("QuantizeLinear", f"{tensor} scale zero", f"{tensor}_q"),
        node("DequantizeLinear", f"{tensor}_q scale zero", f"{tensor}_d"),
    ]


@pytest.fixture
def kernels(tmp_path: Path) -> Callable[..., tuple[Kernel, ...]]:
    """The kernels of nodes that lead from x to y."""

    def count(*nodes: Any, channels: int = 8) -> tuple[Kernel, ...]:
        shape = (1, channels, 4, 4)
        square = (channels, channels, 1, 1)
        weights = {
            "w": np.ones(square, np.float32),
            "w_i": np.ones(square, np.int8),
            "b": np.ones(channels, np.float32),
            "scale": np.float32(0.1),
            "zero": np.int8(0),
        }
        constants = [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items()]
        x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)
        y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
        graph = onnx.helper.make_graph(list(nodes), "g", [x], [y], constants)
        opset = onnx.helper.make_opsetid("", 17)
        path = tmp_path / "net.onnx"
        onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
        return kernels_of_graph(path, shape)

    return count


def test_a_convolution_takes_its_activation_and_its_shortcut_along(kernels: Any) -> None:
    found = kernels(conv("x", "a"), conv("a", "c"), node("Relu", "c", "r"), node("Add", "r a", "y"))
    assert [kernel.name for kernel in found] == ["a", "c"]
    assert found[0] == Kernel("a", macs=8 * VALUES, values=2 * VALUES + WEIGHTS)
    assert found[1].values == 2 * VALUES + WEIGHTS  # a is read once, y is written, c and r are not


def test_a_tensor_that_others_read_is_written_as_well(kernels: Any) -> None:
    first, second = kernels(
        conv("x", "a"), node("Relu", "a", "r"), conv("a", "c"), node("Add", "r c", "y")
    )
    assert first.values == 3 * VALUES + WEIGHTS  # x in, a and r out
    assert second.values == 3 * VALUES + WEIGHTS  # a and r in, y out


def test_a_gate_of_another_size_is_a_launch_of_its_own(kernels: Any) -> None:
    found = kernels(
        conv("x", "a"),
        node("ReduceMean", "a", "mean", axes=[2, 3]),
        node("Sigmoid", "mean", "gate"),
        node("Mul", "a gate", "y"),
    )
    assert [kernel.name for kernel in found] == ["a", "mean", "y"]


def test_views_cost_nothing(kernels: Any) -> None:
    found = kernels(
        node("Split", "x", "top bottom", axis=1),
        node("Concat", "bottom top", "swapped", axis=1),
        conv("swapped", "y"),
    )
    assert found == (Kernel("y", macs=8 * VALUES, values=2 * VALUES + WEIGHTS),)


def test_what_depends_on_the_size_alone_is_not_run(kernels: Any) -> None:
    found = kernels(
        node("Shape", "x", "size"),
        node("ConstantOfShape", "size", "zeros"),
        node("Relu", "zeros", "still"),
        node("Add", "x still", "y"),
    )
    assert [kernel.name for kernel in found] == ["y"]


def test_q_and_dq_join_their_neighbours(kernels: Any) -> None:
    weight = node("DequantizeLinear", "w_i scale zero", "w_d")
    first, second = kernels(
        conv("x", "a"),
        *quantized("a"),
        weight,
        node("Conv", "a_d w_d b", "y"),
    )
    rounded = 32 * 16  # eight channels count as 32
    assert first == Kernel("a", 8 * VALUES, 0, VALUES + WEIGHTS, rounded)
    on_cuda_cores = 4 * 8 * VALUES  # 32 by 32 channels would take sixteen times the work
    assert second == Kernel("y", 0, on_cuda_cores, VALUES + 8, rounded + 64)


def test_a_q_moves_in_front_of_a_concatenation(kernels: Any) -> None:
    first, _ = kernels(
        conv("x", "a"),
        node("Concat", "a a", "twice", axis=1),
        node("MaxPool", "twice", "pooled", kernel_shape=[1, 1]),
        *quantized("pooled"),
        node("Identity", "pooled_d", "y"),
    )
    assert (first.values, first.bytes_int8) == (VALUES + WEIGHTS, 32 * 16)


def test_a_q_beside_a_float_reader_is_a_launch(kernels: Any) -> None:
    found = kernels(
        conv("x", "a"),
        *quantized("a"),
        node("MaxPool", "a_d", "p", kernel_shape=[1, 1]),
        node("Sin", "a", "s"),
        node("Add", "p s", "y"),
    )
    assert [kernel.name for kernel in found] == ["a", "a_q", "p", "s"]
    assert found[1] == Kernel("a_q", values=VALUES, bytes_int8=32 * 16)


def test_a_depthwise_convolution_has_no_groups_of_channels(kernels: Any) -> None:
    def deep(groups: int) -> int:
        shape = (32, 32 // groups, 1, 1)
        weight = onnx.numpy_helper.from_array(np.ones(shape, np.float32))
        nodes = [node("Constant", "", "v", value=weight), node("Conv", "x v", "y", group=groups)]
        return int(kernels(*nodes, channels=32)[0].macs)

    assert (deep(1), deep(32)) == (32 * 32 * 16, 32 * 16)


def test_very_few_channels_run_on_cuda_cores(kernels: Any) -> None:
    weight = node("DequantizeLinear", "w_i scale zero", "w_d")
    found = kernels(*quantized("x"), weight, node("Conv", "x_d w_d b", "y"), channels=2)
    assert found[-1].macs_int8 == 4 * (4 * 4 * 16)  # not 32 * 32 * 16, of tensor cores
    assert kernels(conv("x", "y"), channels=1)[0].macs == 4 * (2 * 2 * 16)


def test_an_operator_that_is_not_counted_is_refused(kernels: Any) -> None:
    with pytest.raises(IrstdError, match="Einsum cannot be counted"):
        kernels(node("Einsum", "x x", "y", equation="nchw,nchw->nchw"))
