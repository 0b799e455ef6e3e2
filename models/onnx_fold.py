"""Whatever a graph computes from constants alone, computed once, at export.

torch's exporter leaves the bookkeeping of `chunk`, `pad` and shared parameters in the graph: for
p2p half of all nodes. A device would walk through them for every frame.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from irstd_edge.edge.onnx_graph import DEQUANTIZE, QUANTIZE

KEPT = (QUANTIZE, DEQUANTIZE)
"""They say what precision a constant has; folding them would lose that."""

Array = npt.NDArray[Any]
Sizes = dict[str, list[int | None]]
"""Tensor -> its sizes, None for each that a caller chooses."""


def fold_constants(model: onnx.ModelProto) -> None:
    """Replace every node whose inputs are constants by its value, in place.

    The number of a tensor's channels counts as a constant, its height and width do not.
    """
    while _fold_once(model):  # a value that was folded may tell more sizes
        drop_unused(model.graph)


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove the nodes and constants that no output depends on, in place."""
    used = {item.name for item in graph.output}
    kept = []
    for node in reversed(graph.node):
        if not used.isdisjoint(node.output):
            kept.append(node)
            used.update(node.input)
    constants = [item for item in graph.initializer if item.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(constants)


def _fold_once(model: onnx.ModelProto) -> bool:
    graph = model.graph
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    sizes, shapes = _sizes(model), Sizes()
    kept = []
    for node in graph.node:
        values = _values(node, constants, sizes, shapes)
        if values is None:
            kept.append(node)
            continue
        for name, value in zip(node.output, values, strict=True):
            constants[name] = value
            graph.initializer.append(numpy_helper.from_array(value, name))
    changed = len(kept) < len(graph.node)
    del graph.node[:]
    graph.node.extend(kept)
    return changed


def _sizes(model: onnx.ModelProto) -> Sizes:
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    return {
        item.name: [
            dim.dim_value if dim.HasField("dim_value") else None
            for dim in item.type.tensor_type.shape.dim
        ]
        for item in [*inferred.input, *inferred.value_info, *inferred.output]
        if item.type.tensor_type.HasField("shape")
    }


def _values(
    node: onnx.NodeProto, constants: dict[str, Array], sizes: Sizes, shapes: Sizes
) -> list[Array] | None:
    """The node's outputs where they are constant; `shapes` remembers those of Shape nodes."""
    if node.op_type == "Shape" and node.input[0] in sizes:
        shapes[node.output[0]] = sizes[node.input[0]]
        return None
    if node.op_type == "Gather" and node.input[0] in shapes and node.input[1] in constants:
        picked = np.array(shapes[node.input[0]], object)[constants[node.input[1]]]
        unknown = any(size is None for size in np.atleast_1d(picked))
        return None if unknown else [np.asarray(picked, np.int64)]
    names = [name for name in node.input if name]
    if node.op_type in KEPT or not all(name in constants for name in names):
        return None
    inputs = {name: constants[name] for name in names}
    return [np.asarray(value) for value in ReferenceEvaluator(node).run(None, inputs)]
