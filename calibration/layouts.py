"""One set of scales, a graph per runtime: pure rewriting of ONNX, no numbers of its own."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from irstd_edge.edge.onnx_graph import (
    DEQUANTIZE,
    QUANTIZE,
    constants_of,
    makers_of,
    readers_of,
)
from irstd_edge.models.onnx_fold import drop_unused

Array = npt.NDArray[Any]


class Graph:
    """A graph to rewrite, indexed by tensor name. `finish` drops what is no longer used."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes: list[Any] = list(model.graph.node)
        self.constants = constants_of(model.graph)
        self.inputs = tuple(item.name for item in model.graph.input)
        self.outputs = tuple(item.name for item in model.graph.output)
        self.producer, self.readers = makers_of(self.nodes), readers_of(self.nodes)

    def made_by(self, tensor: str, operator: str) -> Any | None:
        """The node that makes a tensor where it is this operator, else None."""
        node = self.producer.get(tensor)
        return node if node is not None and node.op_type == operator else None

    def add_constant(self, name: str, value: Array) -> str:
        """Store a constant under that name and return it."""
        self.constants[name] = value
        self.model.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def unrounded(self, tensor: str) -> str:
        """The float tensor that a DequantizeLinear makes this one of; a stored one is restored."""
        dequantize = self.made_by(tensor, DEQUANTIZE)
        if dequantize is None:
            return tensor
        quantize = self.made_by(dequantize.input[0], QUANTIZE)
        if quantize is not None:
            return str(quantize.input[0])
        stored, scale = (self.constants[name] for name in dequantize.input[:2])
        value = stored * along(scale, stored.ndim, axis_of(dequantize))
        return self.add_constant(f"{tensor}.float", value.astype(np.float32))

    def finish(self, nodes: Iterable[Any] | None = None) -> onnx.ModelProto:
        """The model with these nodes, or its own, checked."""
        graph = self.model.graph
        nodes = list(self.nodes if nodes is None else nodes)
        del graph.node[:]
        graph.node.extend(nodes)
        drop_unused(graph)
        onnx.checker.check_model(self.model, full_check=True)
        return self.model


def store_int8_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights as int8 behind their DequantizeLinear, a quarter of the bytes, in place.

    Rounded as `torch.fake_quantize_per_channel_affine` does, by a product with the inverse scale: a
    quotient falls to the other side of a half now and then.
    """
    graph = Graph(model)
    for node in graph.nodes:
        quantize = graph.made_by(node.input[0], QUANTIZE) if node.op_type == DEQUANTIZE else None
        if quantize is None or quantize.input[0] not in graph.constants:
            continue
        weight, scale = (graph.constants[name] for name in quantize.input[:2])
        steps = np.rint(weight * along(np.float32(1) / scale, weight.ndim, axis_of(quantize)))
        node.input[0] = graph.add_constant(
            f"{quantize.input[0]}.int8", np.clip(steps, -127, 127).astype(np.int8)
        )
    return graph.finish()


def share_pairs(model: onnx.ModelProto) -> onnx.ModelProto:
    """Round a tensor once for all that read it rounded alike, in place."""
    graph = Graph(model)
    first: dict[tuple[str, str, bytes], str] = {}
    same: dict[str, str] = {}
    for node in graph.nodes:
        for index, name in enumerate(node.input):
            node.input[index] = same.get(name, name)
        if node.op_type in (QUANTIZE, DEQUANTIZE) and node.input[1] in graph.constants:
            key = (node.op_type, node.input[0], graph.constants[node.input[1]].tobytes())
            same[node.output[0]] = first.setdefault(key, node.output[0])
    return graph.finish()


def guard_concats(model: onnx.ModelProto) -> onnx.ModelProto:
    """Keep every quantizer behind its Concat, in place and without a change of any number.

    OpenVINO (2025.4 to 2026.4, CPU) pulls a quantizer up through Concat, and then convolves a
    Concat of signed 8 bit wrongly: p2p's outputs were off by a third of their deviation. It does
    not pull one through Max, and a Max with the lowest value that can be stored changes nothing.
    """
    graph = Graph(model)
    nodes: list[Any] = []
    for node in graph.nodes:
        if node.op_type == QUANTIZE and graph.made_by(node.input[0], "Concat"):
            lowest = np.asarray(-128 * graph.constants[node.input[1]], np.float32)
            limit = graph.add_constant(f"{node.name}.lowest", lowest)
            guarded = f"{node.name}.guarded"
            nodes.append(helper.make_node("Max", [node.input[0], limit], [guarded], guarded))
            node.input[0] = guarded
        nodes.append(node)
    return graph.finish(nodes)


def layer_of(node_name: str) -> str:
    """The torch module that a node came from: `encoder_0.0.conv1`."""
    parts = node_name.strip("/").split("/")[:-1]
    # A Sequential stands in the path of its members as well: encoder_0/encoder_0.0/conv1.
    kept = [a for a, b in pairwise([*parts, ""]) if not b.startswith(f"{a}.")]
    return ".".join(kept)


def rounded_layers(model: onnx.ModelProto) -> dict[str, str]:
    """Layer -> its node's name, of every convolution that reads rounded weights."""
    graph = Graph(model)
    return {
        layer_of(node.name): node.name
        for node in graph.nodes
        if node.op_type == "Conv" and graph.made_by(node.input[1], DEQUANTIZE) is not None
    }


def release(model: onnx.ModelProto, layers: Collection[str]) -> onnx.ModelProto:
    """The convolutions of these layers in float again, in place; the others round as before.

    Their weights are float as well, unless they are stored as int8 by now.
    """
    graph = Graph(model)
    for node in graph.nodes:
        if node.op_type == "Conv" and layer_of(node.name) in layers:
            for index in (0, 1):
                node.input[index] = graph.unrounded(node.input[index])
    return graph.finish()


def take_biases(
    model: onnx.ModelProto, own: onnx.ModelProto, layers: Collection[str]
) -> onnx.ModelProto:
    """Give the convolutions of these layers their biases of another graph, in place."""
    graph, source = Graph(model), Graph(own)
    found = {layer_of(node.name): node for node in source.nodes if node.op_type == "Conv"}
    for node in graph.nodes:
        layer = layer_of(node.name)
        if node.op_type == "Conv" and layer in layers and len(node.input) > 2:
            bias = source.constants[found[layer].input[2]]
            node.input[2] = graph.add_constant(f"{layer}.own_bias", bias)
    return graph.finish()


def round_alone(fp32: onnx.ModelProto, int8: onnx.ModelProto, layer: str) -> onnx.ModelProto:
    """Make one layer of fp32 what it is in int8, in place: its input rounded, weights and bias.

    Raises ValueError where it is not in both, or not rounded.
    """
    graph, source = Graph(fp32), Graph(int8)
    to, of = (_convolution(each, layer) for each in (graph, source))
    dequantize = source.made_by(of.input[0], DEQUANTIZE)
    if dequantize is None:
        raise ValueError(f"{layer} is not rounded")
    scales = [
        graph.add_constant(f"{layer}.{name}", source.constants[tensor])
        for name, tensor in zip(("scale", "zero"), dequantize.input[1:], strict=True)
    ]
    steps, rounded = f"{layer}.steps", f"{layer}.rounded"
    pair = [
        helper.make_node(QUANTIZE, [to.input[0], *scales], [steps], f"{layer}/{QUANTIZE}"),
        helper.make_node(DEQUANTIZE, [steps, *scales], [rounded], f"{layer}/{DEQUANTIZE}"),
    ]
    parameters = [source.unrounded(of.input[1]), *of.input[2:]]
    stored = [
        graph.add_constant(f"{layer}.{index}", source.constants[name])
        for index, name in enumerate(parameters)
    ]
    del to.input[:]
    to.input.extend([rounded, *stored])
    at = next(index for index, node in enumerate(graph.nodes) if node is to)
    return graph.finish([*graph.nodes[:at], *pair, *graph.nodes[at:]])


def _convolution(graph: Graph, layer: str) -> Any:
    for node in graph.nodes:
        if node.op_type == "Conv" and layer_of(node.name) == layer:
            return node
    raise ValueError(f"{layer} is not there")


def axis_of(node: Any) -> int:
    """Along which a QuantizeLinear or DequantizeLinear has its scales."""
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)


def along(scale: Array, ndim: int, axis: int) -> Array:
    """A scale, or (C,) scales ready to multiply a tensor."""
    return scale.reshape([-1 if i == axis else 1 for i in range(ndim)]) if scale.ndim else scale
