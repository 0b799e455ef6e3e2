import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irstd_edge.benchmarks.cost import Cost, cost_of_graph
from irstd_edge.edge.types import IrstdError, MachineError

onnx = pytest.importorskip("onnx", reason="counting a graph needs the train extra")

Node = Any
FREE = ["n", 1, "h", "w"]


def constant(name: str, shape: tuple[int, ...], dtype: type = np.float32) -> Any:
    return onnx.numpy_helper.from_array(np.ones(shape, dtype), name)


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Write nodes x -> y as a file whose input is free in batch and size."""

    def graph(nodes: list[Node], constants: list[Any], shape: list[Any] = FREE) -> Path:
        x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)
        y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
        body = onnx.helper.make_graph(nodes, "g", [x], [y], constants)
        opset = onnx.helper.make_opsetid("", 17)
        path = tmp_path / "net.onnx"
        onnx.save(onnx.helper.make_model(body, opset_imports=[opset], ir_version=8), path)
        return path

    return graph


def node(op: str, inputs: list[str], output: str, **attributes: Any) -> Node:
    return onnx.helper.make_node(op, inputs, [output], name=f"{op}-{output}", **attributes)


def totals(cost: Cost) -> tuple[int, int]:
    return cost.macs, cost.params


def test_a_convolution_costs_its_window_at_every_output(save: Callable[..., Path]) -> None:
    conv = node("Conv", ["x", "w", "b"], "y", strides=[2, 2], pads=[1, 1, 1, 1])
    path = save([conv], [constant("w", (8, 1, 3, 3)), constant("b", (8,))])

    cost = cost_of_graph(path, (1, 1, 16, 12))

    assert totals(cost) == (8 * 8 * 6 * 9, 8 * 9 + 8)
    assert cost.layers[0].name == "Conv-y"
    assert cost.layers[0].output_bytes == 4 * 8 * 8 * 6
    assert cost.to_json() == {
        "params": 80,
        "macs": 3456,
        "gflops": pytest.approx(2 * 3456 / 1e9),
        "activation_bytes": 1536,
        "input": [1, 1, 16, 12],
        "layers": [
            {"name": "Conv-y", "op": "Conv", "macs": 3456, "params": 80, "output_bytes": 1536}
        ],
    }


def test_a_transposed_convolution_costs_its_window_at_every_input(
    save: Callable[..., Path],
) -> None:
    up = node("ConvTranspose", ["x", "w"], "y", strides=[2, 2])
    cost = cost_of_graph(save([up], [constant("w", (1, 4, 2, 2))]), (2, 1, 5, 6))
    assert totals(cost) == (2 * 5 * 6 * 4 * 2 * 2, 16)


@pytest.mark.parametrize("transposed", [0, 1])
def test_a_gemm_costs_rows_columns_and_depth(save: Callable[..., Path], transposed: int) -> None:
    gemm = node("Gemm", ["x", "w", "b"], "y", transA=transposed)
    path = save([gemm], [constant("w", (7, 3)), constant("b", (3,))], ["n", "k"])
    shape = (7, 5) if transposed else (5, 7)
    assert totals(cost_of_graph(path, shape)) == (5 * 7 * 3, 7 * 3 + 3)


def test_the_bias_behind_a_matmul_is_a_parameter(save: Callable[..., Path]) -> None:
    nodes = [node("MatMul", ["x", "w"], "m"), node("Add", ["b", "m"], "y")]
    path = save(nodes, [constant("w", (6, 2)), constant("b", (2,))], ["n", "t", 6])
    assert totals(cost_of_graph(path, (3, 4, 6))) == (3 * 4 * 6 * 2, 6 * 2 + 2)


def test_integer_weights_count_and_scales_do_not(save: Callable[..., Path]) -> None:
    nodes = [
        node("QuantizeLinear", ["x", "sx", "zx"], "qx"),
        node("DequantizeLinear", ["qx", "sx", "zx"], "dx"),
        node("DequantizeLinear", ["w", "sw", "zw"], "dw", axis=0),
        node("Conv", ["dx", "dw"], "y", pads=[1, 1, 1, 1]),
    ]
    constants = [
        constant("sx", ()),
        constant("zx", (), np.int8),
        constant("w", (4, 1, 3, 3), np.int8),
        constant("sw", (4,)),
        constant("zw", (4,), np.int8),
    ]
    cost = cost_of_graph(save(nodes, constants), (1, 1, 8, 8))
    assert totals(cost) == (8 * 8 * 4 * 9, 4 * 9)


def test_a_shared_weight_is_one_parameter_and_twice_the_work(save: Callable[..., Path]) -> None:
    nodes = [node("Conv", ["x", "w"], "a"), node("Conv", ["a", "w"], "y")]
    cost = cost_of_graph(save(nodes, [constant("w", (1, 1, 1, 1))]), (1, 1, 4, 4))
    assert totals(cost) == (32, 1)


def test_shapes_of_the_exporters_example_are_forgotten(save: Callable[..., Path]) -> None:
    nodes = [node("Relu", ["x"], "r"), node("Conv", ["r", "w"], "y")]
    path = save(nodes, [constant("w", (2, 1, 1, 1))])
    model = onnx.load(path)
    stale = onnx.helper.make_tensor_value_info("r", onnx.TensorProto.FLOAT, [1, 1, 99, 99])
    model.graph.value_info.append(stale)
    onnx.save(model, path)
    assert cost_of_graph(path, (1, 1, 4, 4)).macs == 32


def test_shapes_that_the_graph_computes_are_found_by_a_run(save: Callable[..., Path]) -> None:
    """torch.chunk on free sizes: the end of the slice is a division, which inference gives up."""
    nodes = [
        node("Shape", ["x"], "all"),
        node("Gather", ["all", "last"], "width"),
        node("Div", ["width", "two"], "half"),
        node("Slice", ["x", "zero", "half", "last"], "left"),
        node("Conv", ["left", "w"], "y"),
    ]
    numbers = {"last": 3, "two": 2, "zero": 0}
    constants = [onnx.numpy_helper.from_array(np.array([v]), k) for k, v in numbers.items()]
    path = save(nodes, [*constants, constant("w", (5, 1, 1, 1))])
    cost = cost_of_graph(path, (1, 1, 4, 6))
    assert totals(cost) == (5 * 4 * 3, 5)
    assert cost.layers[0].output_bytes == 4 * 5 * 4 * 3


def test_agrees_with_the_counter_of_pytorch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="the train extra is not installed")
    from torch.utils.flop_counter import FlopCounterMode

    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3, stride=2, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 8, (1, 3), padding=(0, 1), groups=4, bias=False),
        torch.nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
        torch.nn.ConvTranspose2d(8, 4, 2, stride=2),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 3),
    ).eval()
    frames = torch.zeros(2, 1, 32, 48)
    path = tmp_path / "net.onnx"
    axes = {"x": {0: "n", 2: "h", 3: "w"}}
    with pytest.warns(DeprecationWarning):
        torch.onnx.export(
            net,
            (torch.zeros(1, 1, 16, 16),),
            path,
            dynamo=False,
            opset_version=17,
            input_names=["x"],
            dynamic_axes=axes,
        )

    cost = cost_of_graph(path, frames.shape)

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(frames)
    assert 2 * cost.macs == counter.get_total_flops()
    assert cost.params == sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("model", ["mshnet", "p2p"])
def test_a_detectors_graph_costs_what_pytorch_counts(tmp_path: Path, model: str) -> None:
    torch = pytest.importorskip("torch", reason="the train extra is not installed")
    from torch.utils.flop_counter import FlopCounterMode

    from irstd_edge.models import create_model, spec_of
    from irstd_edge.models.onnx_from_torch import onnx_from_torch

    net = create_model(model).eval().deploy().eval()
    (tmp_path / "net.onnx").write_bytes(onnx_from_torch(net, spec_of(model)))
    shape = (1, 1, 64, 96)
    written: list[int] = []

    def weigh(module: Any, inputs: Any, output: Any) -> None:
        written.append(4 * output.numel())

    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(weigh)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.zeros(shape))

    cost = cost_of_graph(tmp_path / "net.onnx", shape)

    assert 2 * cost.macs == counter.get_total_flops()
    assert cost.params == sum(p.numel() for p in net.parameters())
    assert cost.activation_bytes == sum(written)


def test_what_cannot_be_counted_is_refused(save: Callable[..., Path]) -> None:
    path = save([node("Einsum", ["x", "x"], "y", equation="nchw,nchw->nchw")], [])
    with pytest.raises(IrstdError, match=r"net\.onnx: Einsum cannot be counted"):
        cost_of_graph(path, (1, 1, 4, 4))


@pytest.mark.parametrize("shape", [(1, 4, 4), (1, 3, 4, 4)], ids=["axes", "channels"])
def test_an_input_of_another_shape_is_refused(
    save: Callable[..., Path], shape: tuple[int, ...]
) -> None:
    path = save([node("Conv", ["x", "w"], "y")], [constant("w", (2, 1, 1, 1))])
    with pytest.raises(IrstdError, match=r"takes \['n', 1, 'h', 'w'\], not \[1, "):
        cost_of_graph(path, shape)


def test_an_input_that_does_not_fit_inside_is_refused(save: Callable[..., Path]) -> None:
    path = save([node("MatMul", ["x", "w"], "y")], [constant("w", (6, 2))], ["n", "k"])
    with pytest.raises(IrstdError, match=r"does not take \[1, 5\]"):
        cost_of_graph(path, (1, 5))


def test_a_broken_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"\xff not a graph")
    with pytest.raises(IrstdError, match=r"broken\.onnx: is no ONNX graph"):
        cost_of_graph(path, (1, 1, 4, 4))
    with pytest.raises(IrstdError, match=r"none\.onnx: cannot be read \(No such file"):
        cost_of_graph(tmp_path / "none.onnx", (1, 1, 4, 4))


def test_without_onnx_the_install_line_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MachineError, match="pip install onnx"):
        cost_of_graph(tmp_path / "net.onnx", (1, 1, 4, 4))
