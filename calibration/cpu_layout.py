"""ONNX Runtime's form of the INT8 graph: fewer layers, unsigned activations, rounded outputs.

Its kernel for a convolution of integers also writes integers, and reads unsigned ones fastest. So a
quantized convolution gets a quantizer behind it as well (behind its ReLU where it has one), and
stays in float where that would cost more than it saves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from irstd_edge.calibration.layouts import Graph
from irstd_edge.edge.onnx_graph import DEQUANTIZE, QUANTIZE
from irstd_edge.edge.signs import made_in_onnx, never_negative

MIN_CHANNELS = 32
"""In and out, by the rule. Alone, ONNX Runtime's convolution of 8 bit ran 3.2 to 3.6 times as fast
as FP32 from 32 to 128 channels, and 0.9 times with 16 (AVX512-VNNI)."""
MIN_PRODUCTS = 128
"""Per output value, kernel size times channels in: under it, rounding costs what it saves."""

Ranges = Mapping[str, tuple[float, float]]
"""Tensor -> lowest and highest value on the calibration frames."""


@dataclass(frozen=True)
class Scale:
    """A value is (q - zero_point) * step, q in 0..255."""

    step: float
    zero_point: int

    @classmethod
    def of_range(cls, low: float, high: float) -> Scale:
        """The finest scale that covers the range and holds 0 exactly."""
        low, high = min(low, 0.0), max(high, 0.0)
        step = max((high - low) / 255, 1e-8)
        return cls(step, round(-low / step))


def roundable(model: onnx.ModelProto) -> tuple[str, ...]:
    """Names of the convolutions that the form can round."""
    return tuple(conv.name for conv, _ in _roundable(Graph(model)))


def by_rule(model: onnx.ModelProto) -> tuple[str, ...]:
    """Names of those that are rounded unless others are asked for: what gained where measured."""
    return tuple(
        conv.name
        for conv, weight in _roundable(Graph(model))
        if min(weight.shape[:2]) >= MIN_CHANNELS and np.prod(weight.shape[1:]) >= MIN_PRODUCTS
    )


def cpu_outputs(model: onnx.ModelProto, nodes: Collection[str]) -> tuple[str, ...]:
    """The tensors of int8.onnx whose ranges `cpu_form` needs, to round these convolutions."""
    graph = Graph(model)
    return tuple(end_of(graph, conv) for conv, _ in _roundable(graph) if conv.name in nodes)


def cpu_form(model: onnx.ModelProto, ranges: Ranges, nodes: Collection[str]) -> onnx.ModelProto:
    """int8.onnx -> int8.cpu.onnx: the same weights and input ranges; the one given is rewritten.

    nodes: names of the convolutions to round; all others compute in float, with the weights that
    they have.
    """
    graph = Graph(model)
    kept = [conv for conv, _ in _roundable(graph) if conv.name in nodes and _fits(graph, conv)]
    scales = {end: Scale.of_range(*ranges[end]) for end in (end_of(graph, conv) for conv in kept)}
    ends = set(scales)
    sources = {conv.name: _source(graph, conv) for conv in kept}
    for conv in kept:
        scales[sources[conv.name]] = _input_scale(graph, conv)
    _unround(graph, keep=set(sources))
    pairs = {tensor: _pair(graph, tensor, scale) for tensor, scale in scales.items()}
    for node in graph.nodes:
        for index, name in enumerate(node.input):
            if name in ends or (index == 0 and sources.get(node.name) == name):
                node.input[index] = f"{name}.rounded"
    nodes = [pair for name in graph.inputs for pair in pairs.get(name, ())]
    for node in graph.nodes:
        if node.name in sources:
            nodes += _rounded_bias(graph, node, scales[sources[node.name]].step)
        nodes += [node, *(pair for name in node.output for pair in pairs.get(name, ()))]
    return graph.finish(nodes)


def _roundable(graph: Graph) -> Iterator[tuple[Any, Any]]:
    """Each quantized convolution, and its weight as int8."""
    for node in graph.nodes:
        weight = _stored(graph, node) if node.op_type == "Conv" else None
        if weight is not None and end_of(graph, node) not in graph.outputs:
            yield node, weight


def _stored(graph: Graph, conv: Any) -> Any | None:
    """Its weight as int8, None where it is in float."""
    dequantize = graph.made_by(conv.input[1], DEQUANTIZE)
    return None if dequantize is None else graph.constants.get(dequantize.input[0])


def end_of(graph: Graph, conv: Any) -> str:
    """Where its output is rounded: behind the ReLU, where that is all that reads it."""
    readers = graph.readers.get(conv.output[0], [])
    is_relu = len(readers) == 1 and readers[0].op_type == "Relu"
    return str(readers[0].output[0] if is_relu else conv.output[0])


def _source(graph: Graph, conv: Any) -> str:
    """The float tensor that it reads, rounded."""
    dequantize = graph.made_by(conv.input[0], DEQUANTIZE)
    assert dequantize is not None
    return str(graph.producer[dequantize.input[0]].input[0])


def _input_scale(graph: Graph, conv: Any) -> Scale:
    """Over the range of int8.onnx; of what is never negative over its positive half alone."""
    step = float(graph.constants[graph.producer[conv.input[0]].input[1]])
    made = made_in_onnx(graph.producer.get, graph.constants.get)
    positive = never_negative(_source(graph, conv), made)
    return Scale.of_range(0 if positive else -127 * step, 127 * step)


def _unround(graph: Graph, keep: set[str]) -> None:
    """Make everything float again but the weights of the convolutions named."""
    for node in graph.nodes:
        for index, name in enumerate(node.input):
            if index != 1 or node.name not in keep:
                node.input[index] = graph.unrounded(name)


def _pair(graph: Graph, tensor: str, scale: Scale) -> list[Any]:
    step = graph.add_constant(f"{tensor}.step", np.array(scale.step, np.float32))
    zero = graph.add_constant(f"{tensor}.zero", np.array(scale.zero_point, np.uint8))
    integers, rounded = f"{tensor}.integers", f"{tensor}.rounded"
    return [
        helper.make_node(QUANTIZE, [tensor, step, zero], [integers], f"{tensor}/Quantize"),
        helper.make_node(DEQUANTIZE, [integers, step, zero], [rounded], f"{tensor}/Dequantize"),
    ]


def _bias_scale(graph: Graph, conv: Any, step: float) -> Any:
    """One step of the sum of products, (channels,) or (1,)."""
    weight_scale = graph.constants[graph.producer[conv.input[1]].input[1]]
    return np.atleast_1d(weight_scale * np.float32(step)).astype(np.float32)


def _fits(graph: Graph, conv: Any) -> bool:
    """Whether its bias can be told in steps of the products, in 32 bit."""
    if len(conv.input) < 3:
        return True
    scale = _bias_scale(graph, conv, _input_scale(graph, conv).step)
    steps = graph.constants[conv.input[2]] / scale.astype(np.float64)
    return bool((np.abs(steps) < 2**31 - 1).all())


def _rounded_bias(graph: Graph, conv: Any, step: float) -> list[Any]:
    """Its bias as int32 in steps of the products, as the kernel takes it."""
    if len(conv.input) < 3:
        return []
    scale = _bias_scale(graph, conv, step)
    name = conv.input[2]
    integers = np.rint(graph.constants[name] / scale).astype(np.int32)
    names = [
        graph.add_constant(f"{name}.int32", integers),
        graph.add_constant(f"{name}.scale", scale),
        graph.add_constant(f"{name}.zero", np.zeros_like(integers)),
    ]
    conv.input[2] = f"{name}.rounded"
    return [helper.make_node(DEQUANTIZE, names, [f"{name}.rounded"], f"{name}/Dequantize", axis=0)]
