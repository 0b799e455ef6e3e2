"""Lint of INT8 graphs: a form for TensorRT and OpenVINO, another for ONNX Runtime.

int8.onnx and int8-fp16.onnx: signed 8-bit with zero point 0 everywhere, written in QuantizeLinear
and DequantizeLinear alone; activations with one scale each; the frame, the first convolution and
all biases in float. int8.cpu.onnx: what ONNX Runtime needs to see around a convolution to run it in
integers; where a part is missing it runs in float, slower than if nothing were rounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from irstd_edge.edge.onnx_graph import (
    DEQUANTIZE,
    QUANTIZE,
    constants_of,
    makers_of,
    name_of,
    readers_of,
)

if TYPE_CHECKING:
    import onnx

MAX_IR_VERSION = 10
MAX_OPSET = 21
"""What onnxruntime 1.23, the newest for Python 3.10, and the TensorRT of JetPack 6 read."""

STANDARD_DOMAINS = ("", "ai.onnx")
INTEGER_OPS = (
    "ConvInteger",
    "DynamicQuantizeLinear",
    "MatMulInteger",
    "QLinearConv",
    "QLinearMatMul",
)


@dataclass(frozen=True)
class Finding:
    """One thing that a runtime would refuse or compute differently."""

    node: str
    """Name of the node, or `graph`."""
    problem: str
    fix: str

    def __str__(self) -> str:
        """`NODE: problem: fix`, one line."""
        return f"{self.node}: {self.problem}: {self.fix}"


@dataclass(frozen=True)
class _Graph:
    """An ONNX graph indexed by tensor name."""

    nodes: list[Any]
    inputs: tuple[str, ...]
    outputs: frozenset[str]
    constants: dict[str, npt.NDArray[Any]]
    producer: dict[str, Any]
    consumers: dict[str, list[Any]]

    def constant(self, node: Any, index: int) -> npt.NDArray[Any] | None:
        """The node's input of that index where it is a constant of the file."""
        return self.constants.get(node.input[index]) if len(node.input) > index else None

    def is_from(self, tensor: str, op_type: str) -> bool:
        return tensor in self.producer and self.producer[tensor].op_type == op_type


def lint_int8(model: onnx.ModelProto) -> list[Finding]:
    """Everything wrong with an int8.onnx, in the order of its nodes; empty when it is right."""
    graph = _indexed(model)
    findings = list(_lint_model(model))
    for node in graph.nodes:
        findings += _lint_operator(node)
        if node.op_type == QUANTIZE:
            findings += [*_lint_scale(graph, node), *_lint_quantize(graph, node)]
        elif node.op_type == DEQUANTIZE:
            findings += [*_lint_scale(graph, node), *_lint_dequantize(graph, node)]
    if not any(node.op_type == QUANTIZE for node in graph.nodes):
        findings.append(Finding("graph", "has no QuantizeLinear", "export the quantized model"))
    return [*findings, *_lint_first_layer(graph)]


def lint_int8_cpu(model: onnx.ModelProto) -> list[Finding]:
    """Everything that keeps an int8.cpu.onnx from integer kernels; empty when it is right."""
    graph = _indexed(model)
    findings = list(_lint_model(model))
    for node in graph.nodes:
        if node.op_type == QUANTIZE:
            findings += _lint_unsigned(graph, node)
        elif node.op_type == "Conv" and _has_stored_weight(graph, node):
            findings += _lint_integer_conv(graph, node)
    return findings


def _has_stored_weight(graph: _Graph, conv: Any) -> bool:
    tensor = conv.input[1]
    return graph.is_from(tensor, DEQUANTIZE) and (
        graph.constant(graph.producer[tensor], 0) is not None
    )


def _lint_unsigned(graph: _Graph, node: Any) -> Iterator[Finding]:
    zero = graph.constant(node, 2)
    if zero is None or zero.dtype != np.uint8:
        kind = "not stored" if zero is None else zero.dtype
        yield Finding(
            name_of(node),
            f"its zero point is {kind}, and the kernels read uint8 fastest",
            "round activations to 0..255",
        )


def _lint_integer_conv(graph: _Graph, conv: Any) -> Iterator[Finding]:
    """A convolution of 8 bit: rounded before, behind, and in its bias."""
    weight = graph.constant(graph.producer[conv.input[1]], 0)
    zero = graph.constant(graph.producer[conv.input[1]], 2)
    if weight is None or weight.dtype != np.int8 or (zero is not None and zero.any()):
        yield Finding(name_of(conv), "its weights are not int8 around 0", "store them as int8")
    source = graph.producer.get(conv.input[0])
    if source is None or source.op_type != DEQUANTIZE:
        yield Finding(name_of(conv), "reads float", "put a rounding pair before it")
    if len(conv.input) > 2:
        bias = graph.producer.get(conv.input[2])
        stored = None if bias is None else graph.constant(bias, 0)
        if stored is None or stored.dtype != np.int32:
            yield Finding(
                name_of(conv), "its bias is in float", "store it as int32 in its products"
            )
    end = conv.output[0]
    readers = graph.consumers.get(end, [])
    if len(readers) == 1 and readers[0].op_type == "Relu":
        end = readers[0].output[0]
        readers = graph.consumers.get(end, [])
    if end in graph.outputs or not readers or any(r.op_type != QUANTIZE for r in readers):
        yield Finding(name_of(conv), "its output is not rounded", "put a rounding pair behind it")


def _indexed(model: onnx.ModelProto) -> _Graph:
    nodes, constants = list(model.graph.node), constants_of(model.graph)
    return _Graph(
        nodes,
        tuple(item.name for item in model.graph.input if item.name not in constants),
        frozenset(item.name for item in model.graph.output),
        constants,
        makers_of(nodes),
        readers_of(nodes),
    )


def _lint_model(model: onnx.ModelProto) -> Iterator[Finding]:
    if model.ir_version > MAX_IR_VERSION:
        yield Finding("graph", f"IR version is {model.ir_version}", f"write {MAX_IR_VERSION}")
    for entry in model.opset_import:
        if entry.domain in STANDARD_DOMAINS and entry.version > MAX_OPSET:
            yield Finding("graph", f"opset is {entry.version}", f"export with {MAX_OPSET} at most")
    for function in model.functions:
        yield Finding(function.name, "is a local function", "inline it before saving")


def _lint_operator(node: Any) -> Iterator[Finding]:
    from onnx import AttributeProto

    if node.domain not in STANDARD_DOMAINS:
        yield Finding(
            name_of(node),
            f"is {node.op_type} of {node.domain}, which TensorRT does not know",
            "replace it by QuantizeLinear and DequantizeLinear before export",
        )
    elif node.op_type in INTEGER_OPS:
        yield Finding(
            name_of(node),
            f"is {node.op_type}, which TensorRT does not take",
            "write the float operator between DequantizeLinear and QuantizeLinear",
        )
    if any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in node.attribute):
        yield Finding(name_of(node), "holds a graph of its own", "export without control flow")


def _lint_scale(graph: _Graph, node: Any) -> Iterator[Finding]:
    """Scale and zero point of a Q or DQ."""
    scale = graph.constant(node, 1)
    if scale is None:
        yield Finding(name_of(node), "its scale is computed at run time", "store it as a constant")
    elif not (np.isfinite(scale).all() and (scale > 0).all()):
        yield Finding(
            name_of(node), "its scale is not above 0 and finite", "calibrate again, clip to 1e-8"
        )
    elif scale.size > 1 and not _is_weight(graph, node):
        yield Finding(
            name_of(node), f"has {scale.size} scales for an activation", "quantize it per tensor"
        )
    if len(node.input) > 2 and node.input[2]:
        yield from _lint_zero_point(graph, node)


def _lint_zero_point(graph: _Graph, node: Any) -> Iterator[Finding]:
    zero = graph.constant(node, 2)
    if zero is None:
        yield Finding(name_of(node), "its zero point is computed", "store it as a constant int8 0")
    elif zero.dtype != np.int8:
        yield Finding(
            name_of(node),
            f"its zero point is {zero.dtype}, TensorRT takes int8 alone",
            "make the quantizer signed",
        )
    elif zero.any():
        yield Finding(
            name_of(node),
            f"its zero point is {int(zero.reshape(-1)[np.argmax(zero != 0)])}, not 0",
            "make the quantizer symmetric",
        )


def _lint_quantize(graph: _Graph, node: Any) -> Iterator[Finding]:
    from onnx import TensorProto

    types = [attribute.i for attribute in node.attribute if attribute.name == "output_dtype"]
    if types and types[0] not in (TensorProto.UNDEFINED, TensorProto.INT8):
        yield Finding(
            name_of(node), "its output_dtype is not int8", "set it to INT8 or leave it out"
        )
    elif not (len(node.input) > 2 and node.input[2]) and types != [TensorProto.INT8]:
        yield Finding(
            name_of(node), "has no zero point, which means uint8", "give it a zero point of int8 0"
        )
    readers = graph.consumers.get(node.output[0], [])
    if node.output[0] in graph.outputs or any(r.op_type != DEQUANTIZE for r in readers):
        yield Finding(
            name_of(node), "its integers are read directly", "put a DequantizeLinear after it"
        )


def _lint_dequantize(graph: _Graph, node: Any) -> Iterator[Finding]:
    """Its input: a Q, or weights stored as int8."""
    stored = graph.constant(node, 0)
    if stored is None:
        if not graph.is_from(node.input[0], QUANTIZE):
            yield Finding(
                name_of(node), "dequantizes what no QuantizeLinear made", "put one before it"
            )
    elif stored.dtype == np.int32:
        yield Finding(
            name_of(node), "holds a bias as int32, which TensorRT refuses", "keep biases in float"
        )
    elif stored.dtype != np.int8:
        yield Finding(
            name_of(node), f"holds weights as {stored.dtype}", "quantize weights to signed int8"
        )


def _lint_first_layer(graph: _Graph) -> Iterator[Finding]:
    """From the frame on, up to and with the first convolution, everything is float.

    Zero point 0 leaves 127 steps to a frame in 0..1: a faint target can vanish in the first Q.
    """
    seen: set[str] = set()
    waiting = list(graph.inputs)
    while waiting:
        tensor = waiting.pop()
        for node in graph.consumers.get(tensor, []):
            if node.op_type == QUANTIZE:
                yield Finding(name_of(node), "quantizes the frame", "keep the input in float")
            elif node.op_type == "Conv":
                if graph.is_from(node.input[1], DEQUANTIZE):
                    yield Finding(
                        name_of(node), "the first convolution is quantized", "keep it in float"
                    )
            else:
                waiting += [name for name in node.output if name not in seen]
                seen.update(node.output)


def _is_weight(graph: _Graph, node: Any) -> bool:
    """Whether a Q or DQ handles a constant: directly, or a DQ through its Q."""
    tensor = node.input[0]
    if node.op_type == DEQUANTIZE and graph.is_from(tensor, QUANTIZE):
        tensor = graph.producer[tensor].input[0]
    return tensor in graph.constants
