"""What a network costs, counted on the ONNX graph that runs.

A multiply-accumulate (MAC) is one operation of a Conv, ConvTranspose, Gemm or MatMul; biases,
activations and pooling are not counted, as in thop, fvcore and PyTorch's FlopCounterMode. One MAC
is two floating-point operations: gflops = 2 * macs / 1e9. Much of the infrared literature prints
MACs under the name GFLOPs, half of ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from irstd_edge.benchmarks.shapes import Shape, Tensor, constant_shapes, load_at, tensors_of
from irstd_edge.edge.types import IrstdError

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")

# These also multiply, and a graph that holds one would be undercounted without a word.
REFUSED = frozenset(
    {"ConvInteger", "Einsum", "GRU", "If", "LSTM", "Loop", "MatMulInteger", "QLinearConv"}
    | {"QLinearMatMul", "RNN", "Scan"}
)

# A weight reaches its convolution through these without changing its number of elements.
_CARRIERS = frozenset(
    {"Cast", "Clip", "DequantizeLinear", "Identity", "QuantizeLinear"}
    | {"Reshape", "Squeeze", "Transpose", "Unsqueeze"}
)


@dataclass(frozen=True)
class Layer:
    """One node that multiplies by weights, or one activation by another."""

    name: str
    op: str
    macs: int
    params: int
    """Elements of its weight and bias; what layers share counts at its first use."""
    output_bytes: int
    """What it writes: an activation, in the graph's own precision."""


@dataclass(frozen=True)
class Cost:
    """The graph at one input shape; totals derive from the layers."""

    input: Shape
    """(N, C, H, W)."""
    layers: tuple[Layer, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one call."""
        return sum(layer.macs for layer in self.layers)

    @property
    def params(self) -> int:
        """Learned numbers of the deployed graph: batch norms are folded, scales do not count."""
        return sum(layer.params for layer in self.layers)

    @property
    def activation_bytes(self) -> int:
        """Written by all layers in one call; what is between them is fused by every runtime."""
        return sum(layer.output_bytes for layer in self.layers)

    @property
    def gflops(self) -> float:
        """Two operations per MAC."""
        return 2 * self.macs / 1e9

    def to_json(self) -> dict[str, Any]:
        """The `cost` object of bench.json."""
        return {
            "params": self.params,
            "macs": self.macs,
            "gflops": self.gflops,
            "activation_bytes": self.activation_bytes,
            "input": list(self.input),
            "layers": [asdict(layer) for layer in self.layers],
        }


def cost_of_graph(path: Path, input_shape: Sequence[int]) -> Cost:
    """Count a graph's MACs and parameters at one input shape.

    Args:
        path: an ONNX file, float or with Q/DQ; dynamic batch and size are welcome.
        input_shape: (N, C, H, W) of its first input.

    Raises:
        MachineError: onnx is not installed.
        IrstdError: no ONNX file, an operator that is not counted, or an input that does not fit.
    """
    shape = tuple(int(extent) for extent in input_shape)
    model = load_at(path, shape)
    refuse_uncounted(model, path)
    nodes = _counted_nodes(model.graph)
    needed = {name for node in nodes for name in (*node.input, *node.output) if name}
    return Cost(shape, tuple(_layers(model.graph, nodes, tensors_of(model, needed, path))))


def refuse_uncounted(model: Any, path: Path) -> None:
    """Raise IrstdError where a graph holds an operator of `REFUSED`."""
    refused = sorted({node.op_type for node in model.graph.node} & REFUSED)
    if refused:
        raise IrstdError(f"{path}: {', '.join(refused)} cannot be counted, give the Q/DQ graph")


def _counted_nodes(graph: Any) -> list[Any]:
    """The nodes that weigh, and the Adds that are their biases.

    Exporters write the bias of a linear layer on more than two axes as MatMul, then Add.
    """
    products = {node.output[0] for node in graph.node if node.op_type == "MatMul"}
    return [
        node
        for node in graph.node
        if node.op_type in WEIGHTED or (node.op_type == "Add" and products & set(node.input))
    ]


def _layers(graph: Any, nodes: list[Any], tensors: Mapping[str, Tensor]) -> list[Layer]:
    producers = {name: node for node in graph.node for name in node.output}
    constants = constant_shapes(graph)
    counted: set[str] = set()

    def learned(name: str) -> int:
        source = _source(name, producers)
        if source not in constants or source in counted:
            return 0
        counted.add(source)
        return math.prod(constants[source])

    return [
        Layer(
            name=node.name or node.output[0],
            op=node.op_type,
            macs=macs_of(node, tensors),
            params=sum(learned(name) for name in node.input if name),
            output_bytes=tensors[node.output[0]].size_bytes,
        )
        for node in nodes
    ]


def _source(name: str, producers: Mapping[str, Any]) -> str:
    """The tensor behind casts, reshapes and Q/DQ."""
    while name in producers and producers[name].op_type in _CARRIERS:
        name = producers[name].input[0]
    return name


def macs_of(node: Any, tensors: Mapping[str, Tensor]) -> int:
    """Multiply-accumulates of one node; 0 for one that is not `WEIGHTED`."""
    first, output = tensors[node.input[0]].shape, tensors[node.output[0]].shape
    weight = tensors[node.input[1]].shape
    if node.op_type == "Conv":  # weight (Cout, Cin / groups, *kernel)
        return math.prod(output) * math.prod(weight[1:])
    if node.op_type == "ConvTranspose":  # weight (Cin, Cout / groups, *kernel)
        return math.prod(first) * math.prod(weight[1:])
    if node.op_type == "MatMul":
        return math.prod(output) * first[-1]
    if node.op_type == "Gemm":
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        return math.prod(output) * first[0 if transposed else -1]
    return 0
