"""What every reader of an ONNX graph asks: its constants, who reads a tensor, a node's name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy.typing as npt

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"


def constants_of(graph: Any) -> dict[str, npt.NDArray[Any]]:
    """Tensor -> its numbers, of initializers and Constant nodes."""
    from onnx import numpy_helper

    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return constants


def attributes_of(node: Any) -> dict[str, Any]:
    """Name -> value of a node's attributes; strings as bytes."""
    from onnx import helper

    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def makers_of(nodes: Iterable[Any]) -> dict[str, Any]:
    """Tensor -> the node that makes it."""
    return {name: node for node in nodes for name in node.output}


def readers_of(nodes: Iterable[Any]) -> dict[str, list[Any]]:
    """Tensor -> the nodes that read it, one that does so twice is there twice."""
    readers: dict[str, list[Any]] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers


def name_of(node: Any) -> str:
    """Its own, or `Conv of TENSOR` where it has none."""
    return node.name or f"{node.op_type} of {node.output[0]}"
