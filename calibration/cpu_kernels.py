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
from irstd_edge.edge.onnx_graph import attributes_of, name_of
from irstd_edge.edge.types import IrstdError

_PLAIN = {"group": 1, "strides": [1, 1], "dilations": [1, 1], "auto_pad": b"NOTSET"}


def for_kernels(model: onnx.ModelProto, stride: int) -> onnx.ModelProto:
    """Rewrite int8.cpu.onnx in place; it takes frames whose sides are multiples of the stride.

    It took MSHNet 0.93 of the time, and p2p 0.95; fp32.onnx, rewritten alike, 0.95 and 0.98.
    """
    return _by_blocks(_side_by_side(model), stride)


def _by_blocks(model: onnx.ModelProto, stride: int) -> onnx.ModelProto:
    """Convolutions to one channel in steps of a block, its pixels as channels."""
    graph = Graph(model)
    fitting = _fitting(model, [n.output[0] for n in graph.nodes if _is_thin(graph, n)], stride)
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
    if not _is_stored(graph, node):
        return False
    weights, how = graph.constants[node.input[1]], attributes_of(node)
    if weights.ndim != 4 or weights.shape[0] > 1:
        return False
    plain = all(how.get(name, value) == value for name, value in _PLAIN.items())
    return plain and 1 < max(weights.shape[2:]) <= MOST_KERNEL_PX


def _is_stored(graph: Graph, node: Any) -> bool:
    """Whether a node is a convolution whose kernel, and bias if it has one, are constants."""
    return node.op_type == "Conv" and all(name in graph.constants for name in node.input[1:])


def _fitting(model: onnx.ModelProto, tensors: list[str], stride: int) -> set[str]:
    """Those whose sides are multiples of the block for every frame, as far as can be told.

    Where they are so for frames of one and of two strides a side, they are for all: sides grow by
    the same number of pixels with each stride.
    """
    fitting = set(tensors)
    if not fitting:
        return fitting
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "graph.onnx")
        onnx.save(model, path)
        for side in (stride, 2 * stride):
            try:
                found = tensors_of(load_at(path, (1, 1, side, side)), tensors, path)
            except IrstdError:
                return set()
            fitting -= {name for name in tensors if any(x % BLOCK for x in found[name].shape[2:])}
    return fitting


def _gate_of(graph: Graph, conv: Any) -> Any | None:
    """The Sigmoid that is all that reads a convolution: it runs as a part of it."""
    readers = graph.readers.get(conv.output[0], [])
    alone = len(readers) == 1 and conv.output[0] not in graph.outputs
    return readers[0] if alone and readers[0].op_type == "Sigmoid" else None


def _blocked(graph: Graph, conv: Any, gate: Any | None) -> list[Any]:
    """What takes the place of a convolution and its gate."""
    source, kernel, *bias = conv.input
    blocks = f"{conv.output[0]}.blocks"
    names = [source, graph.add_constant(f"{blocks}.kernel", by_place(graph.constants[kernel]))]
    if bias:
        repeated = np.repeat(graph.constants[bias[0]], BLOCK**2)
        names.append(graph.add_constant(f"{blocks}.bias", repeated))
    pads = attributes_of(conv).get("pads", [0] * 4)
    made = [helper.make_node("Conv", names, [blocks], conv.name, strides=[BLOCK] * 2, pads=pads)]
    end = conv
    if gate is not None:
        made.append(helper.make_node("Sigmoid", [blocks], [f"{blocks}.gate"], gate.name))
        blocks, end = f"{blocks}.gate", gate
    name = f"{name_of(conv)}/pixels"
    made.append(helper.make_node("DepthToSpace", [blocks], end.output, name, blocksize=BLOCK))
    return made


def _side_by_side(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convolutions in float of one kind that read the same as one, split behind."""
    graph = Graph(model)
    alike = defaultdict(list)
    for node in graph.nodes:
        if _is_stored(graph, node) and not _is_thin(graph, node):
            has = attributes_of(node)
            if has.get("group", 1) > 1:
                continue
            how = sorted((name, str(value)) for name, value in has.items())
            window = graph.constants[node.input[1]].shape[1:]
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
    outputs = [conv.output[0] for conv in convs]
    made = "+".join(outputs)
    parameters = [
        graph.add_constant(
            f"{made}.{index}",
            np.concatenate([graph.constants[conv.input[index]] for conv in convs]),
        )
        for index in range(1, len(convs[0].input))
    ]
    name = "+".join(map(name_of, convs))
    joined = helper.make_node("Conv", [convs[0].input[0], *parameters], [made], name)
    joined.attribute.extend(convs[0].attribute)
    channels = [len(graph.constants[conv.input[1]]) for conv in convs]
    sizes = graph.add_constant(f"{made}.channels", np.array(channels))
    return [joined, helper.make_node("Split", [made, sizes], outputs, f"{name}/Split", axis=1)]
