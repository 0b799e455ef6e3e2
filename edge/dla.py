"""Which nodes of a graph a Jetson's DLA would hand back to the GPU, and why, told without a board.

The rules are those of NVIDIA's "DLA Supported Layers and Restrictions" for Orin, as far as a graph
can meet them. On a board TensorRT has the last word, see `engine_from_onnx`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from irstd_edge.edge.onnx_graph import (
    DEQUANTIZE,
    QUANTIZE,
    attributes_of,
    constants_of,
    name_of,
)
from irstd_edge.edge.types import IrstdError, MachineError

MAX_BATCH, MAX_EXTENT = 4096, 8192
MAX_CONV_KERNEL, MAX_CONV_STRIDE = 32, 8
MAX_POOL_WINDOW, MAX_POOL_STRIDE = 8, 16
MAX_SOFTMAX = 1024
MAX_CLIP = 127
NEAREST_SCALES, LINEAR_SCALES = 32, 4
RUNS = frozenset(
    "Relu Sigmoid Tanh LeakyRelu PRelu Add Sub Mul Max Min Div Pow BatchNormalization".split()
)
"""Activations, elementwise operators and scales: without a limit of their own."""
NO_LAYER = frozenset(("Constant", "Identity", "Dropout"))
"""Gone before TensorRT places anything."""

Shapes = Mapping[str, tuple[int, ...]]
Constants = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Fallback:
    """A node that the GPU has to run."""

    node: str
    operator: str
    reason: str

    def record(self) -> dict[str, str]:
        """For `compile --json`."""
        return asdict(self)


@dataclass(frozen=True)
class Placement:
    """What a DLA takes of a graph at one shape of its input."""

    nodes: int
    fallbacks: tuple[Fallback, ...]

    @property
    def on_dla(self) -> int:
        """Nodes that it takes."""
        return self.nodes - len(self.fallbacks)

    def record(self) -> dict[str, Any]:
        """For `compile --json`."""
        return {
            "nodes": self.nodes,
            "on_dla": self.on_dla,
            "fallbacks": [fallback.record() for fallback in self.fallbacks],
        }


def placement_of(path: Path, shape: tuple[int, ...]) -> Placement:
    """Judge every node of an ONNX file. Raises MachineError without onnx, IrstdError without file.

    shape: (N, 1, H, W), the only one that the engine will take.
    """
    try:
        import onnx
    except ImportError as error:
        raise MachineError(
            "--dla: looking at the graph needs onnx: pip install onnx, or let "
            "TensorRT on the board tell"
        ) from error
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:
        raise IrstdError(f"{path}: is no ONNX file: make the bundle again") from error
    (shapes, single), constants = _tensors(model, shape), constants_of(model.graph)
    nodes = [n for n in model.graph.node if n.op_type not in NO_LAYER]
    reasons = ((node, _reason(node, shapes, constants, single)) for node in nodes)
    found = (Fallback(name_of(n), n.op_type, reason) for n, reason in reasons if reason)
    return Placement(len(nodes), tuple(found))


def _tensors(model: Any, shape: tuple[int, ...]) -> tuple[Shapes, frozenset[str]]:
    """The shapes that inference can tell, and the tensors that are float32."""
    import onnx

    del model.graph.value_info[:]
    for axis, extent in zip(model.graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        axis.dim_value = extent
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    items = [*inferred.input, *inferred.value_info, *inferred.output]
    kinds = {item.name: item.type.tensor_type for item in items}
    shapes = {n: tuple(axis.dim_value for axis in k.shape.dim) for n, k in kinds.items()}
    single = (n for n, k in kinds.items() if k.elem_type == onnx.TensorProto.FLOAT)
    return shapes, frozenset(single)


def _reason(node: Any, shapes: Shapes, constants: Constants, single: frozenset[str]) -> str | None:
    """Why the DLA does not take a node; None where it does."""
    if node.op_type in (QUANTIZE, DEQUANTIZE):
        return "DLA takes no quantizers: compile the variant fp16"
    if node.op_type == "Cast":
        return "DLA does not change types"
    if single.intersection(node.output):
        return "it is float32 in the graph, and DLA computes in FP16"
    limits = _too_large(node, shapes)
    if limits is not None:
        return limits
    if node.op_type in RUNS:
        return None
    rule = RULES.get(node.op_type)
    return "DLA has no such layer" if rule is None else rule(node, shapes, constants)


def _too_large(node: Any, shapes: Shapes) -> str | None:
    for name in (*node.input, *node.output):
        shape = shapes.get(name, ())
        if len(shape) == 4 and shape[0] > MAX_BATCH:
            return f"{'x'.join(map(str, shape))} is a batch of more than {MAX_BATCH}"
        if len(shape) == 4 and max(shape[1:]) > MAX_EXTENT:
            return f"{'x'.join(map(str, shape))} is more than {MAX_EXTENT} on a side"
    return None


def _conv(node: Any, shapes: Shapes, constants: Constants) -> str | None:
    has = attributes_of(node)
    weight = constants.get(node.input[1])
    if weight is None:
        return "its weights are computed"
    if weight.ndim != 4:
        return "DLA convolves in two dimensions alone"
    if max(weight.shape[2:]) > MAX_CONV_KERNEL:
        return f"its kernel is larger than {MAX_CONV_KERNEL}"
    if max(has.get("strides", [1])) > MAX_CONV_STRIDE:
        return f"its stride is over {MAX_CONV_STRIDE}"
    return None


def _clip(node: Any, shapes: Shapes, constants: Constants) -> str | None:
    ends = [constants.get(name) for name in node.input[1:]]
    if len(ends) == 2 and all(end is not None for end in ends):
        low, high = (float(end) for end in ends if end is not None)
        if low == 0 and 0 < high <= MAX_CLIP:
            return None
    return f"DLA clips from 0 to at most {MAX_CLIP} alone"


def _pool(node: Any, shapes: Shapes, constants: Constants) -> str | None:
    has = attributes_of(node)
    if max(has["kernel_shape"]) > MAX_POOL_WINDOW:
        return f"its window is larger than {MAX_POOL_WINDOW}"
    if max(has.get("strides", [1])) > MAX_POOL_STRIDE:
        return f"its stride is over {MAX_POOL_STRIDE}"
    return "DLA has no dilated pooling" if max(has.get("dilations", [1])) > 1 else None


def _resize(node: Any, shapes: Shapes, constants: Constants) -> str | None:
    has = {
        "mode": b"nearest",
        "coordinate_transformation_mode": b"half_pixel",
        **attributes_of(node),
    }
    mode, places = has["mode"].decode(), has["coordinate_transformation_mode"].decode()
    if mode == "linear" and places != "half_pixel":
        return f"its bilinear resize counts {places}, DLA only half_pixel"
    if mode not in ("linear", "nearest"):
        return f"DLA does not resize by {mode}"
    limit = LINEAR_SCALES if mode == "linear" else NEAREST_SCALES
    before, after = shapes.get(node.input[0], ()), shapes.get(node.output[0], ())
    if len(before) != 4 or not all((*before, *after)):
        return "its size is not known when the engine is built"
    scales = [new / old for old, new in zip(before, after, strict=True)]
    if scales[:2] != [1, 1] or any(s % 1 or not 1 <= s <= limit for s in scales[2:]):
        return f"DLA enlarges by whole factors of 1 to {limit}"
    return None


def _concat(node: Any, shapes: Shapes, constants: Constants) -> str | None:
    axis = attributes_of(node)["axis"] % max(len(shapes.get(node.output[0], ())), 1)
    return None if axis == 1 else "DLA puts channels together alone"


def _slice(node: Any, shapes: Shapes, constants: Constants) -> str | None:
    bounds = [name for name in node.input[1:] if name]
    if node.op_type == "Slice" and any(name not in constants for name in bounds):
        return "its bounds are computed"
    return None if len(shapes.get(node.input[0], ())) == 4 else "DLA cuts (N, C, H, W) alone"


def _softmax(node: Any, shapes: Shapes, constants: Constants) -> str | None:
    shape = shapes.get(node.input[0], ())
    if len(shape) != 4:
        return "DLA takes (N, C, H, W) alone"
    extent = shape[attributes_of(node).get("axis", -1)]
    return f"its axis is longer than {MAX_SOFTMAX}" if extent > MAX_SOFTMAX else None


def _reduce(node: Any, shapes: Shapes, constants: Constants) -> str | None:
    return "of reductions, DLA has the maximum alone"


RULES: Mapping[str, Callable[[Any, Shapes, Constants], str | None]] = {
    "Conv": _conv,
    "Clip": _clip,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "Resize": _resize,
    "Concat": _concat,
    "Slice": _slice,
    "Split": _slice,
    "Softmax": _softmax,
    "ReduceMean": _reduce,
    "ReduceSum": _reduce,
    "ReduceMax": lambda node, shapes, constants: None,
    "GlobalMaxPool": lambda node, shapes, constants: None,
}
"""Operator -> why a node of it falls back, or None."""


def reasons(placement: Placement) -> Iterator[tuple[str, str, int]]:
    """(operator, reason, nodes) of what falls back, the most frequent first."""
    counts: dict[tuple[str, str], int] = {}
    for fallback in placement.fallbacks:
        key = fallback.operator, fallback.reason
        counts[key] = counts.get(key, 0) + 1
    for (operator, reason), count in sorted(counts.items(), key=lambda item: -item[1]):
        yield operator, reason, count
