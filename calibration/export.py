"""A float network and its quantized twin -> the graphs of a bundle."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import onnx
from torch import nn

from irstd_edge.calibration import half_layout
from irstd_edge.calibration.cpu_kernels import for_kernels
from irstd_edge.calibration.cpu_layout import by_rule, cpu_form, cpu_outputs
from irstd_edge.calibration.half_layout import half_form
from irstd_edge.calibration.layouts import (
    guard_concats,
    release,
    rounded_layers,
    share_pairs,
    store_int8_weights,
    take_biases,
)
from irstd_edge.calibration.range_rules import RULE_OF
from irstd_edge.calibration.ranges import ranges_of
from irstd_edge.calibration.subset import CalibrationFrame
from irstd_edge.edge.bundle import VARIANTS, graph_name
from irstd_edge.edge.qdq import Finding, lint_int8, lint_int8_cpu
from irstd_edge.edge.types import ModelSpec
from irstd_edge.models.onnx_from_torch import OPSET, onnx_from_torch

FP32, FP16 = VARIANTS["fp32"], VARIANTS["fp16"]
INT8, INT8_FP16 = VARIANTS["int8"], VARIANTS["int8-fp16"]
INT8_CPU = graph_name("int8", "onnxruntime")


@dataclass(frozen=True)
class Exports:
    """Both networks as torch exports them: what every graph is made of, whatever is released."""

    fp32: bytes
    rounded: bytes
    """With every quantizer."""
    fp32_for_half: bytes
    """Of the opset that graphs of float16 have, as the next one."""
    rounded_for_half: bytes
    trained: bool
    """Whether the twin's weights were trained on; else they are the float ones, but for biases that
    calibration moved to make up for rounding."""


def exports_of(
    float_net: nn.Module, quantized: nn.Module, spec: ModelSpec, *, trained: bool = False
) -> Exports:
    """Export a float network and its quantized twin."""
    fp32, rounded, fp32_for_half, rounded_for_half = (
        onnx_from_torch(net, spec, opset)
        for opset in (OPSET, half_layout.OPSET)
        for net in (float_net, quantized)
    )
    return Exports(fp32, rounded, fp32_for_half, rounded_for_half, trained)


def graphs_of(
    exports: Exports,
    spec: ModelSpec,
    frames: Sequence[CalibrationFrame],
    released: Collection[str] = (),
    *,
    rule: str | None = None,
    cpu_nodes: Collection[str] | None = None,
) -> dict[str, bytes]:
    """File name -> ONNX graph, for every runtime. `frames` are to calibrate on.

    released: layers that every graph leaves in float, quantized or not. rule: of ranges that ONNX
    Runtime's form alone has, None for that of the network's kind. cpu_nodes: names of the
    convolutions that it rounds, of those that are left; None for those that gained where they were
    measured.
    Raises ValueError where a graph is not what the runtimes take, which is a fault of ours.
    """
    exports = _with_own_biases(exports, released)
    rounded = rounded_graph(exports.rounded, released)
    nodes = by_rule(rounded) if cpu_nodes is None else cpu_nodes
    # What this form leaves in float has weights that were never rounded.
    in_float = [layer for layer, node in rounded_layers(rounded).items() if node not in nodes]
    for_cpu = rounded_graph(exports.rounded, [*released, *in_float])
    ranges = ranges_of(
        for_cpu, cpu_outputs(for_cpu, nodes), frames, rule or RULE_OF[spec.decode.kind]
    )
    for_cpu = for_kernels(cpu_form(for_cpu, ranges, nodes), spec.input.stride)
    half = half_form(int8_graph(exports.rounded_for_half, released))
    return {
        FP32: exports.fp32,
        INT8: bytes_of(_signed(rounded)),
        INT8_CPU: bytes_of(_linted(for_cpu, INT8_CPU, lint_int8_cpu)),
        FP16: bytes_of(half_form(onnx.load_from_string(exports.fp32_for_half))),
        INT8_FP16: bytes_of(_linted(half, INT8_FP16, lint_int8)),
    }


def _with_own_biases(exports: Exports, released: Collection[str]) -> Exports:
    """Released layers with the biases of the float network, as their weights are.

    Not those that ONNX Runtime's form alone leaves in float: it was no better for it.
    """
    if exports.trained or not released:
        return exports
    rounded, rounded_for_half = (
        bytes_of(take_biases(onnx.load_from_string(to), onnx.load_from_string(of), released))
        for to, of in (
            (exports.rounded, exports.fp32),
            (exports.rounded_for_half, exports.fp32_for_half),
        )
    )
    return replace(exports, rounded=rounded, rounded_for_half=rounded_for_half)


def int8_graph(exported: bytes, released: Collection[str] = ()) -> onnx.ModelProto:
    """The form of TensorRT and OpenVINO: signed, zero point 0, weights stored as int8."""
    return _signed(rounded_graph(exported, released))


def _signed(rounded: onnx.ModelProto) -> onnx.ModelProto:
    return _linted(guard_concats(rounded), INT8, lint_int8)


def _linted(
    model: onnx.ModelProto, name: str, lint: Callable[[onnx.ModelProto], list[Finding]]
) -> onnx.ModelProto:
    findings = lint(model)
    if findings:
        raise ValueError(f"{name}: {findings[0]}")
    return model


def rounded_graph(exported: bytes, released: Collection[str] = ()) -> onnx.ModelProto:
    """The graph with every quantizer but those of released layers, which all forms are made of."""
    model = onnx.load_from_string(exported)
    return share_pairs(store_int8_weights(release(model, released)))


def bytes_of(model: onnx.ModelProto) -> bytes:
    """The file's bytes; equal graphs give equal bytes."""
    return bytes(model.SerializeToString(deterministic=True))
