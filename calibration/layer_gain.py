"""Which convolutions ONNX Runtime's form should round, by the clock of the machine at hand.

Each kind of convolution is timed alone, in float and in 8 bit with both of its roundings; then
whole graphs take turns that round the most rewarding layers, more of them each time. A layer that
gains alone may lose in its place, and the other way round, so the whole graph has the last word.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from irstd_edge.benchmarks.latency import REST_S, Timing, measure
from irstd_edge.benchmarks.shapes import load_at, tensors_of
from irstd_edge.calibration.cpu_kernels import for_kernels
from irstd_edge.calibration.cpu_layout import (
    Ranges,
    by_rule,
    cpu_form,
    cpu_outputs,
    end_of,
    roundable,
)
from irstd_edge.calibration.layouts import Graph, layer_of
from irstd_edge.calibration.ranges import ranges_of
from irstd_edge.calibration.subset import CalibrationFrame
from irstd_edge.edge.devices import this_machine, usable_threads
from irstd_edge.edge.runners import open_graph
from irstd_edge.edge.runtimes import ort_session
from irstd_edge.edge.types import FloatArray, Frame, ModelSpec, Progress

ROUNDS, IN_A_ROW = 9, 5
"""Turns of a convolution alone, and its runs in each."""
SAMPLES, WARM_UP_S = 100, 2.0
"""Of whole graphs."""
MARGIN = 0.03
"""A graph other than the rule's is taken where it is faster by this share: smaller differences are
noise on a shared machine, and a choice by chance would change which targets are found."""
RULE_FORM = "rule"
SHARES = (0.5, 0.75, 1.0)
"""Of the layers that gain alone, the most rewarding first, that a graph rounds."""

_EXIT = "alone"
_ANY_RANGE = (0.0, 1.0)


@dataclass(frozen=True)
class LayerGain:
    """A convolution alone, its ReLU with it, at the size of the calibration frames."""

    layer: str
    fp32_ms: float
    int8_ms: float
    """With both roundings, which its neighbours may share."""

    @property
    def gain_ms(self) -> float:
        """What rounding saves."""
        return self.fp32_ms - self.int8_ms


@dataclass(frozen=True)
class Choice:
    """The layers to round, and what says so."""

    nodes: frozenset[str]
    """Names of the convolutions."""
    record: dict[str, Any]
    """For the manifest."""


def fastest_layers(
    rounded: bytes,
    frames: Sequence[CalibrationFrame],
    rule: str,
    spec: ModelSpec,
    frame: Frame,
    progress: Progress = lambda *_: None,
) -> Choice:
    """Choose the layers that ONNX Runtime's form rounds, by timing on this machine.

    Another call may choose others. rounded: the graph with every quantizer, as `cpu_form` takes it.
    frames: to calibrate on, by a rule of ranges. frame: what whole graphs are timed on.
    """
    model = onnx.load_from_string(rounded)
    nodes = roundable(model)
    gains = _alone(model, nodes, frames[0].batch.shape, progress)
    rewarding = sorted((n for n in nodes if gains[n].gain_ms > 0), key=lambda n: -gains[n].gain_ms)
    forms = {RULE_FORM: frozenset(by_rule(model))} | {
        f"first {count}": frozenset(rewarding[:count])
        for count in sorted({max(1, round(share * len(rewarding))) for share in SHARES})
        if rewarding
    }
    ranges = ranges_of(model, cpu_outputs(model, nodes), frames, rule)
    times = _together(rounded, ranges, forms, spec, frame, progress)
    best = min(times, key=lambda name: times[name].p50_ms)
    if times[best].p50_ms > (1 - MARGIN) * times[RULE_FORM].p50_ms:
        best = RULE_FORM
    record = {
        "cpu": this_machine().cpu,
        "threads": usable_threads(),
        "chosen": best,
        "p50_ms": {name: round(timing.p50_ms, 3) for name, timing in times.items()},
        "weak": {name: list(timing.weak) for name, timing in times.items() if timing.weak},
        "rounded": sorted(gains[node].layer for node in forms[best]),
        "alone": [
            {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(gain).items()}
            for gain in gains.values()
        ],
    }
    return Choice(forms[best], record)


def _alone(
    model: onnx.ModelProto, nodes: Sequence[str], size: Sequence[int], progress: Progress
) -> dict[str, LayerGain]:
    """Node -> its times. Convolutions of one kind and size are timed once."""
    graph = Graph(model)
    shapes = _input_shapes(graph, nodes, size)
    known: dict[str, tuple[float, float]] = {}
    gains = {}
    for done, name in enumerate(nodes):
        progress("timing layers", done, len(nodes))
        alone = _cut_out(graph, name, shapes[name])
        kind = _kind(alone, shapes[name])
        if kind not in known:
            known[kind] = _times(alone, shapes[name])
        gains[name] = LayerGain(layer_of(name), *known[kind])
    progress("timing layers", len(nodes), len(nodes))
    return gains


def _input_shapes(
    graph: Graph, nodes: Sequence[str], size: Sequence[int]
) -> dict[str, tuple[int, ...]]:
    convs = {node.name: node for node in graph.nodes}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rounded.onnx")
        onnx.save(graph.model, path)
        fixed = load_at(path, tuple(size))
        found = tensors_of(fixed, [convs[name].input[0] for name in nodes], path)
    return {name: found[convs[name].input[0]].shape for name in nodes}


def _cut_out(graph: Graph, name: str, shape: tuple[int, ...]) -> onnx.ModelProto:
    """One convolution with its quantizers, and its ReLU, at one size of what it reads."""
    conv = next(node for node in graph.nodes if node.name == name)
    dequantize = graph.producer[conv.input[0]]
    quantize = graph.producer[dequantize.input[0]]
    weight = graph.producer[conv.input[1]]
    end = end_of(graph, conv)
    relu = [graph.producer[end]] if end != conv.output[0] else []
    nodes = [quantize, dequantize, weight, conv, *relu]
    used = {each for node in nodes for each in node.input}
    entry = helper.make_tensor_value_info(quantize.input[0], TensorProto.FLOAT, shape)
    cut = helper.make_graph(
        [*nodes, helper.make_node("Identity", [end], [_EXIT], "exit")],
        "alone",
        [entry],
        [helper.make_tensor_value_info(_EXIT, TensorProto.FLOAT, list("NCHW"))],
        [item for item in graph.model.graph.initializer if item.name in used],
    )
    versions = {"opset_imports": graph.model.opset_import, "ir_version": graph.model.ir_version}
    return helper.make_model(cut, **versions)


def _kind(alone: onnx.ModelProto, shape: tuple[int, ...]) -> str:
    """What decides the time: operators, their attributes, and sizes."""
    nodes = [[node.op_type, *map(str, node.attribute)] for node in alone.graph.node]
    sizes = sorted(list(item.dims) for item in alone.graph.initializer)
    return str((nodes, sizes, shape))


def _times(alone: onnx.ModelProto, shape: tuple[int, ...]) -> tuple[float, float]:
    """Median milliseconds in float and in 8 bit, in turns."""
    entry = alone.graph.input[0].name
    rounded = copy.deepcopy(alone)
    ends = cpu_outputs(rounded, roundable(rounded))
    forms = (
        cpu_form(alone, {}, ()),
        cpu_form(rounded, dict.fromkeys(ends, _ANY_RANGE), roundable(rounded)),
    )
    sessions = [ort_session(form.SerializeToString(), usable_threads()) for form in forms]
    values = np.random.default_rng(0).random(shape, np.float32)
    times_ms = [[_run_ms(each, entry, values) for each in sessions] for _ in range(ROUNDS)]
    fp32, int8 = np.median(times_ms[ROUNDS // 3 :], axis=0)
    return float(fp32), float(int8)


def _run_ms(session: Any, entry: str, values: FloatArray) -> float:
    """The shortest of a few runs, after one that wakes the threads and fills the caches."""
    time.sleep(REST_S)  # the other session's threads spin for a while when their work is done
    session.run(None, {entry: values})
    times_ms = []
    for _ in range(IN_A_ROW):
        start = time.perf_counter()
        session.run(None, {entry: values})
        times_ms.append(1000 * (time.perf_counter() - start))
    return min(times_ms)


def _together(
    rounded: bytes,
    ranges: Ranges,
    forms: Mapping[str, Collection[str]],
    spec: ModelSpec,
    frame: Frame,
    progress: Progress,
) -> dict[str, Timing]:
    """Name of a form -> times of its whole graph; all take turns."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        runners = {}
        for name, nodes in forms.items():
            path = Path(folder, f"{name}.onnx")
            form = cpu_form(onnx.load_from_string(rounded), ranges, nodes)
            onnx.save(for_kernels(form, spec.input.stride), path)
            runners[name] = stack.enter_context(open_graph(path, spec, "int8"))
        return measure(
            runners,
            [frame],
            warm_up_s=WARM_UP_S,
            samples=SAMPLES,
            progress=lambda done, total: progress("timing graphs", done, total),
        )
