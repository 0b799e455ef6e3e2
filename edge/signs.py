"""Which activations of a graph are never negative: half of a signed 8-bit range is lost on them.

One rule for ONNX and OpenVINO: most of their operators have one name.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

Value = TypeVar("Value")

MOST_STEPS_BACK = 64
"""How far back the sign of an activation is looked for."""

_POSITIVE = frozenset({"Relu", "Sigmoid", "Softmax"})
_LIKE_FIRST = frozenset(
    {"MaxPool", "AvgPool", "AveragePool", "GlobalAveragePool", "ReduceMax", "ReduceMean"}
    | {"Reshape", "Squeeze", "Unsqueeze", "Split", "VariadicSplit", "Slice", "StridedSlice"}
    | {"Convert", "Identity", "DepthToSpace", "FakeQuantize", "QuantizeLinear", "DequantizeLinear"}
)
_LIKE_ALL = frozenset({"Add", "Mul", "Multiply", "Concat", "Min", "Minimum"})
_LIKE_ANY = frozenset({"Max", "Maximum"})


@dataclass(frozen=True)
class Made(Generic[Value]):
    """How a value of a graph comes about."""

    key: Hashable
    """Equal for equal values."""
    operator: str
    sources: Sequence[Value] = ()
    constant: npt.NDArray[Any] | None = None
    """Its numbers, where they are known."""


def never_negative(value: Value, made: Callable[[Value], Made[Value]]) -> bool:
    """Whether a value is at least 0, as far as the operators tell; `made` looks into the graph.

    A resize counts with its kind as the operator: `Resize linear`, `Interpolate nearest`.
    """
    known: dict[Hashable, bool] = {}

    def judge(value: Value, steps: int) -> bool:
        how = made(value)
        if how.key not in known:
            known[how.key] = steps > 0 and judged(how, steps - 1)
        return known[how.key]

    def judged(how: Made[Value], steps: int) -> bool:
        if how.constant is not None:
            return bool((how.constant >= 0).all())
        name, _, kind = how.operator.partition(" ")
        if name in _LIKE_FIRST or kind in ("nearest", "linear", "linear_onnx"):
            return judge(how.sources[0], steps)
        if name == "Pad":  # how much is added is no part of the values
            values = [source for source in how.sources if not _is_whole(made(source))]
            return all(judge(source, steps) for source in values)
        if name in _LIKE_ALL:
            return all(judge(source, steps) for source in how.sources)
        if name in _LIKE_ANY:
            return any(judge(source, steps) for source in how.sources)
        return name in _POSITIVE

    return judge(value, MOST_STEPS_BACK)


def _is_whole(how: Made[Any]) -> bool:
    return how.constant is not None and how.constant.dtype.kind in "iu"


def made_in_onnx(
    producer: Callable[[str], Any | None], constant: Callable[[str], npt.NDArray[Any] | None]
) -> Callable[[str], Made[str]]:
    """`made` of an ONNX graph: the node that makes a tensor, and the numbers of a stored one."""

    def made(tensor: str) -> Made[str]:
        node, stored = producer(tensor), constant(tensor)
        if stored is not None or node is None:
            return Made(tensor, "", constant=None if stored is None else np.asarray(stored))
        kind = node.op_type
        if kind == "Resize":
            modes = [a.s.decode() for a in node.attribute if a.name == "mode"]
            kind = f"Resize {modes[0] if modes else 'nearest'}"
        return Made(tensor, kind, [name for name in node.input if name])

    return made


def made_in_openvino(output: Any) -> Made[Any]:
    """`made` of an OpenVINO graph, of the outputs of its nodes."""
    node = output.get_node()
    kind = node.get_type_name()
    key = (node.get_name(), output.get_index())  # unique, unlike the friendly name
    if kind == "Constant":
        return Made(key, kind, constant=node.data)
    if kind == "Interpolate":
        kind = f"Interpolate {node.get_attributes()['mode']}"
    return Made(key, kind, node.input_values())
