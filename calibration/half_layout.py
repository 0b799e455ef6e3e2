"""A graph typed float16 where that is safe: TensorRT's fast form, of FP32 and of INT8 graphs alike.

TensorRT computes each tensor in the type that the graph says. Three places stay in float32: the
frame up to the first convolution that sees more than a pixel (near 1, a float16 has steps of 8
counts of a 14-bit sensor), means over the frame (their sums can leave float16), and the outputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from irstd_edge.calibration.layouts import Graph

OPSET = 19
"""The first in which QuantizeLinear and DequantizeLinear take float16."""
SMALLEST, LARGEST = 2.0**-24, 65504.0
"""Of float16, above 0."""
FLOAT32_INPUTS = {"Resize": (1, 2)}
"""Operator -> inputs that ONNX itself types so: region and scales."""
HALF, SINGLE = "half", "single"


def half_form(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrite a float32 or Q/DQ graph of opset 19 in place; `frame` and outputs stay float32.

    Raises ValueError where a constant does not fit float16.
    """
    graph = Graph(model)
    floats = _float_tensors(graph)
    single = _sees_frame(graph) | {n.name for n in graph.nodes if _averages_frame(graph, n)}
    kind = dict.fromkeys([*graph.inputs, *graph.constants], SINGLE)
    outputs, casts, nodes = set(graph.outputs), set[str](), list[Any]()
    for node in graph.nodes:
        own = SINGLE if node.name in single else HALF
        for index, name in enumerate(node.input):
            wanted = SINGLE if index in FLOAT32_INPUTS.get(node.op_type, ()) else own
            if name in floats and kind[name] != wanted:
                node.input[index] = f"{name}.{wanted}"
                nodes += _converted(graph, name, wanted, casts)
        nodes.append(node)
        kind.update(dict.fromkeys(node.output, own))
        for index, name in enumerate(node.output):
            if name in outputs and own == HALF:
                node.output[index] = f"{name}.{HALF}"
                nodes.append(_cast(f"{name}.{HALF}", name, SINGLE))
                casts.add(f"{name}.{HALF}")
                kind[name] = SINGLE
    return graph.finish(nodes)


def _float_tensors(graph: Graph) -> set[str]:
    inferred = onnx.shape_inference.infer_shapes(graph.model).graph
    items = [*inferred.input, *inferred.value_info, *inferred.output]
    tensors = {i.name for i in items if i.type.tensor_type.elem_type == TensorProto.FLOAT}
    return tensors | {name for name, value in graph.constants.items() if value.dtype == np.float32}


def _sees_frame(graph: Graph) -> set[str]:
    """The nodes between the frame and the first convolutions larger than a pixel, with these."""
    seen: set[str] = set()
    waiting = list(graph.inputs)
    while waiting:
        for node in graph.readers.get(waiting.pop(), []):
            point = node.op_type == "Conv" and graph.constants[node.input[1]].shape[2:] == (1, 1)
            if node.op_type == "Conv":
                seen.add(node.name)
            if point:
                waiting += node.output
    return seen


def _averages_frame(graph: Graph, node: Any) -> bool:
    if node.op_type != "ReduceMean":
        return False
    axes = graph.constants[node.input[1]] if len(node.input) > 1 else ()
    return any(axis in (2, 3, -1, -2) for axis in axes)


def _converted(graph: Graph, name: str, wanted: str, done: set[str]) -> list[Any]:
    """What makes `NAME.wanted`; nothing where that exists."""
    target = f"{name}.{wanted}"
    if target in done:
        return []
    done.add(target)
    if name in graph.constants:
        graph.add_constant(target, _half(name, graph.constants[name]))
        return []
    return [_cast(name, target, wanted)]


def _cast(source: str, target: str, kind: str) -> Any:
    to = TensorProto.FLOAT16 if kind == HALF else TensorProto.FLOAT
    return helper.make_node("Cast", [source], [target], f"{target}/Cast", to=to)


def _half(name: str, value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if np.abs(value).max(initial=0.0) > LARGEST:
        raise ValueError(f"{name}: holds {np.abs(value).max():g}, more than float16 can")
    # A scale must stay above 0.
    tiny = (value > 0) & (value < SMALLEST)
    return np.where(tiny, np.float32(SMALLEST), value).astype(np.float16)
