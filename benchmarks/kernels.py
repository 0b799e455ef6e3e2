"""The kernels that a GPU runtime launches for an ONNX graph, with their work and their traffic.

TensorRT's fusions as its guide describes them, in short: what is pointwise joins the kernel that
made its input, Q and DQ join their neighbours, and views (reshape, split, concatenation) cost
nothing. A device sees channels in groups of 32 in INT8 and of 8 in float, however few there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from irstd_edge.benchmarks.cost import WEIGHTED, macs_of, refuse_uncounted
from irstd_edge.benchmarks.shapes import Tensor, constant_shapes, load_at, tensors_of
from irstd_edge.edge.onnx_graph import DEQUANTIZE, QUANTIZE, makers_of

CHANNELS, CHANNELS_INT8 = 8, 32
"""Rounded up to: TensorRT's formats HWC8 of half precision and CHW32 of INT8."""

LANES, LANES_INT8 = 2, 4
"""The same of CUDA cores, which multiply pairs of FP16 and fours of INT8 (HFMA2, DP4A)."""
SLOWER = 4
"""Times that CUDA cores take for what tensor cores do, on Ampere, in either precision."""

POINTWISE = frozenset(
    {"Abs", "Add", "Clip", "Div", "Elu", "Erf", "Exp", "HardSigmoid", "HardSwish", "LeakyRelu"}
    | {"Log", "Max", "Min", "Mul", "Neg", "PRelu", "Pow", "Reciprocal", "Relu", "Sigmoid"}
    | {"Softplus", "Sqrt", "Sub", "Tanh", "Where"}
)
VIEWS = frozenset(
    {"Cast", "Concat", "Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Unsqueeze"}
)
MOVES = VIEWS | {"MaxPool", "Transpose"}
"""Integers pass through these unchanged: a Q behind one acts as if it stood before."""


@dataclass(frozen=True)
class Kernel:
    """One launch, in what the device computes and moves: channels are rounded up."""

    name: str
    """Of the first node in it."""
    macs: int = 0
    """Of float operands."""
    macs_int8: int = 0
    values: int = 0
    """Float values read and written, weights among them."""
    bytes_int8: int = 0
    """Integer values read and written."""


@dataclass
class _Group:
    """The nodes of one launch, and the tensors that they make."""

    nodes: list[Any] = field(default_factory=list)
    made: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class _Made:
    """When and by which launch a tensor was made; views and the frame belong to none."""

    when: int
    group: _Group | None
    shape: tuple[int, ...]


_FRAME = _Made(-1, None, ())


@dataclass(frozen=True)
class _Graph:
    """What runs on the device, without the nodes that compute shapes and weights."""

    nodes: tuple[Any, ...]
    known: frozenset[str]
    """Tensors that do not depend on the frame's values."""
    outputs: frozenset[str]
    tensors: Mapping[str, Tensor]
    producer: Mapping[str, Any]
    readers: Mapping[str, Sequence[Any]]
    integers: frozenset[str]
    """Tensors that are written as INT8: every reader wants them so."""

    def source(self, name: str) -> str:
        """The tensor behind Q and DQ."""
        while name in self.producer and self.producer[name].op_type in (QUANTIZE, DEQUANTIZE):
            name = self.producer[name].input[0]
        return name

    def is_integer(self, name: str) -> bool:
        """Whether it is read as INT8."""
        maker = self.producer.get(name)
        if name in self.integers or maker is None:
            return name in self.integers
        if maker.op_type in VIEWS and name not in self.known:
            return all(self.is_integer(each) for each in self.data(maker))
        return bool(maker.op_type == DEQUANTIZE)

    def data(self, node: Any) -> list[str]:
        """Those of its inputs that depend on the frame's values."""
        return [name for name in node.input if name and name not in self.known]

    def is_free(self, node: Any) -> bool:
        """Whether it costs no launch."""
        if node.op_type == QUANTIZE:
            return node.input[0] in self.integers
        return node.op_type in VIEWS or node.op_type == DEQUANTIZE


def kernels_of_graph(path: Path, input_shape: Sequence[int]) -> tuple[Kernel, ...]:
    """The launches of one call, in order, of a float graph or one with Q/DQ.

    Raises MachineError without onnx, IrstdError where `cost_of_graph` does.
    """
    model = load_at(path, tuple(int(extent) for extent in input_shape))
    refuse_uncounted(model, path)
    graph = _graph(model, path)
    return tuple(_kernel(group, graph) for group in _groups(graph))


def _graph(model: Any, path: Path) -> _Graph:
    known = set(constant_shapes(model.graph))
    nodes = []
    for node in model.graph.node:
        if node.op_type == "Shape" or all(name in known for name in node.input if name):
            known.update(node.output)
        else:
            nodes.append(node)
    readers: dict[str, list[Any]] = {}
    for node in nodes:
        for name in set(node.input):
            readers.setdefault(name, []).append(node)
    outputs = frozenset(value.name for value in model.graph.output)
    needed = {name for node in nodes for name in (*node.input, *node.output) if name}
    return _Graph(
        nodes=tuple(nodes),
        known=frozenset(known),
        outputs=outputs,
        tensors=tensors_of(model, needed, path),
        producer=makers_of(model.graph.node),
        readers=readers,
        integers=frozenset(_integers(nodes, readers) - outputs),
    )


def _integers(nodes: Sequence[Any], readers: Mapping[str, Sequence[Any]]) -> set[str]:
    found: set[str] = set()

    def wants_integers(node: Any) -> bool:
        moves = node.op_type in MOVES and found.issuperset(node.output)
        return node.op_type == QUANTIZE or moves

    for node in reversed(nodes):
        for name in node.output:
            if readers.get(name) and all(wants_integers(reader) for reader in readers[name]):
                found.add(name)
    return found


def _groups(graph: _Graph) -> list[_Group]:
    """The launches, in the order of their first nodes."""
    groups: list[_Group] = []
    made: dict[str, _Made] = {}
    for index, node in enumerate(graph.nodes):
        inputs = [made.get(graph.source(name), _FRAME) for name in graph.data(node)]
        latest = max(inputs, key=lambda each: each.when, default=_FRAME)
        if graph.is_free(node):
            made.update(dict.fromkeys(node.output, _Made(latest.when, None, ())))
            continue
        shape = graph.tensors[node.output[0]].shape
        group = latest.group if node.op_type in POINTWISE and latest.shape == shape else None
        if group is None:
            group = _Group()
            groups.append(group)
        group.nodes.append(node)
        group.made.update(node.output)
        made.update(dict.fromkeys(node.output, _Made(index, group, shape)))
    return groups


def _kernel(group: _Group, graph: _Graph) -> Kernel:
    work = {False: 0, True: 0}
    for node in group.nodes:
        if node.op_type in WEIGHTED:
            is_int8 = all(graph.is_integer(name) for name in node.input[:2])
            work[is_int8] += _macs(node, graph, is_int8)
    read = {name for node in group.nodes for name in _read_by(node, graph)}
    moved = [name for name in read if graph.source(name) not in group.made]
    moved += [name for name in group.made if _leaves(name, group, graph)]
    integers = [name for name in moved if _is_moved_as_integer(name, graph)]
    return Kernel(
        name=group.nodes[0].name or group.nodes[0].output[0],
        macs=work[False],
        macs_int8=work[True],
        values=_values(set(moved) - set(integers), graph, CHANNELS),
        bytes_int8=_values(integers, graph, CHANNELS_INT8),
    )


def _read_by(node: Any, graph: _Graph) -> list[str]:
    """What depends on the frame, and weights; scales and sizes are too small to count."""
    weights = [name for name in node.input[1:] if name] if node.op_type in WEIGHTED else []
    return graph.data(node) + weights


def _leaves(name: str, group: _Group, graph: _Graph) -> bool:
    readers = graph.readers.get(name, ())
    return name in graph.outputs or any(reader not in group.nodes for reader in readers)


def _is_moved_as_integer(name: str, graph: _Graph) -> bool:
    maker = graph.producer.get(name)
    return graph.is_integer(name) or (maker is not None and maker.op_type == QUANTIZE)


def _values(names: Iterable[str], graph: _Graph, channels: int) -> int:
    total = 0
    for name in names:
        shape = graph.tensors[name].shape
        if len(shape) == 4 and name not in graph.known:
            shape = (shape[0], _round_up(shape[1], channels), *shape[2:])
        total += math.prod(shape)
    return total


def _macs(node: Any, graph: _Graph, is_int8: bool) -> int:
    """On tensor cores or, where very few channels would leave those empty, on CUDA cores."""
    macs = macs_of(node, graph.tensors)
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    if node.op_type != "Conv" or groups > 1:  # depthwise: no matrix, no groups of channels
        return macs
    weight = graph.tensors[node.input[1]].shape[:2]

    def grouped(channels: int) -> int:
        return macs // math.prod(weight) * math.prod(_round_up(each, channels) for each in weight)

    on_tensor_cores = grouped(CHANNELS_INT8 if is_int8 else CHANNELS)
    return min(on_tensor_cores, SLOWER * grouped(LANES_INT8 if is_int8 else LANES))


def _round_up(extent: int, step: int) -> int:
    return -(-extent // step) * step
