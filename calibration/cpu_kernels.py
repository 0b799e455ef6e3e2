"""ONNX Runtime's form as its kernels run it best: the same numbers up to rounding, in less time.

MSHNet has many maps of one channel, its spatial attentions and the mask itself, and kernels pay for
eight or sixteen (`irstd_edge.edge.blocks`). What two convolutions read is brought into their layout
twice, which is most of what the two heads of p2p cost.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from irstd_edge.benchmarks.shapes import load_at, tensors_of
from irstd_edge.calibration.layouts import Graph
from irstd_edge.edge.blocks import BLOCK, MOST_KERNEL_PX, by_place

_PLAIN = {"group": 1, "strides": [1, 1], "dilations": [1, 1], "auto_pad": b"NOTSET"}


def for_kernels(model: onnx.ModelProto, stride: int) -> onnx.ModelProto:
    """Rewrite int8.cpu.onnx in place; it takes frames whose sides are multiples of the stride.

    It took MSHNet 0.92 of the time, and p2p 0.95; fp32.onnx, rewritten alike, 0.95 and 0.98.
    """
    return _by_blocks(_side_by_side(model), stride)


def _by_blocks(model: onnx.ModelProto, stride: int) -> onnx.ModelProto:
    """Convolutions to one channel in steps of a block, its pixels as channels."""
    graph = Graph(model)
    thin = [node.output[0] for node in graph.nodes if _is_thin(graph, node)]
    sizes = _smallest(model, thin, stride)
    fitting = {name for name in thin if not any(side % BLOCK for side in sizes[name][2:])}
    nodes: list[Any] = []
    gates: set[str] = set()
    for node in graph.nodes:
        if node.output[0] in fitting:
            gate = _gate_of(graph, node)
            nodes += _blocked(graph, node, gate)
            gates.update([] if gate is None else gate.output)
        elif node.output[0] not in gates:
            nodes.append(node)
    return graph.finish(nodes)


def _is_thin(graph: Graph, node: Any) -> bool:
    """Whether a node is a convolution in float to one channel that gains by it."""
    weights = graph.constants.get(node.input[1]) if node.op_type == "Conv" else None
    if weights is None or weights.ndim != 4 or weights.shape[0] > 1:
        return False
    how = _attributes(node)
    plain = all(how.get(name, value) == value for name, value in _PLAIN.items())
    return plain and 1 < max(weights.shape[2:]) <= MOST_KERNEL_PX


def _attributes(node: Any) -> dict[str, Any]:
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def _smallest(
    model: onnx.ModelProto, tensors: list[str], stride: int
) -> dict[str, tuple[int, ...]]:
    """Tensor -> its shape for the smallest frame; for others its sides are multiples of these."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "graph.onnx")
        onnx.save(model, path)
        found = tensors_of(load_at(path, (1, 1, stride, stride)), tensors, path)
    return {name: found[name].shape for name in tensors}


def _gate_of(graph: Graph, conv: Any) -> Any | None:
    """The Sigmoid that is all that reads a convolution: it runs as a part of it."""
    readers = graph.readers.get(conv.output[0], [])
    alone = len(readers) == 1 and conv.output[0] not in graph.outputs
    return readers[0] if alone and readers[0].op_type == "Sigmoid" else None


def _blocked(graph: Graph, conv: Any, gate: Any | None) -> list[Any]:
    """What takes the place of a convolution and its gate."""
    source, kernel, *bias = conv.input
    weights = by_place(graph.constants[kernel])
    names = [source, graph.add_constant(f"{kernel}.blocks", weights)]
    if bias:
        repeated = np.repeat(graph.constants[bias[0]], BLOCK**2)
        names.append(graph.add_constant(f"{bias[0]}.blocks", repeated))
    pads = _attributes(conv).get("pads", [0] * 4)
    blocks = f"{conv.output[0]}.blocks"
    made = [helper.make_node("Conv", names, [blocks], conv.name, strides=[BLOCK] * 2, pads=pads)]
    end = conv
    if gate is not None:
        made.append(helper.make_node("Sigmoid", [blocks], [f"{blocks}.gate"], gate.name))
        blocks, end = f"{blocks}.gate", gate
    name = f"{conv.name}/pixels"
    made.append(helper.make_node("DepthToSpace", [blocks], end.output, name, blocksize=BLOCK))
    return made


def _side_by_side(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convolutions in float of one kind that read the same as one, split behind."""
    graph = Graph(model)
    alike = defaultdict(list)
    for node in graph.nodes:
        if node.op_type == "Conv" and all(name in graph.constants for name in node.input[1:]):
            how = sorted((name, str(value)) for name, value in _attributes(node).items())
            window = graph.constants[node.input[1]].shape[1:]
            if _attributes(node).get("group", 1) > 1:
                continue
            alike[node.input[0], str(how), window, len(node.input)].append(node)
    first = {convs[0].output[0]: convs for convs in alike.values() if len(convs) > 1}
    others = {conv.output[0] for convs in first.values() for conv in convs[1:]}
    nodes: list[Any] = []
    for node in graph.nodes:
        if node.output[0] in first:
            nodes += _joined(graph, first[node.output[0]])
        elif node.output[0] not in others:
            nodes.append(node)
    return graph.finish(nodes)


def _joined(graph: Graph, convs: list[Any]) -> list[Any]:
    name = "+".join(conv.name for conv in convs)
    parameters = [
        graph.add_constant(
            f"{name}.{index}",
            np.concatenate([graph.constants[conv.input[index]] for conv in convs]),
        )
        for index in range(1, len(convs[0].input))
    ]
    joined = helper.make_node("Conv", [convs[0].input[0], *parameters], [name], name)
    joined.attribute.extend(convs[0].attribute)
    channels = [len(graph.constants[conv.input[1]]) for conv in convs]
    sizes = graph.add_constant(f"{name}.channels", np.array(channels))
    outputs = [conv.output[0] for conv in convs]
    return [joined, helper.make_node("Split", [name, sizes], outputs, f"{name}/Split", axis=1)]
