"""The shape of every tensor of an ONNX graph at one size of its input."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from irstd_edge.edge.graph_file import refuse_graph
from irstd_edge.edge.runtimes import ort_session
from irstd_edge.edge.types import IrstdError, MachineError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Tensor:
    """What flows between two nodes."""

    shape: Shape
    item_bytes: int

    @property
    def size_bytes(self) -> int:
        """Of all elements."""
        return math.prod(self.shape) * self.item_bytes


def load_at(path: Path, shape: Shape) -> Any:
    """The ONNX model with its input fixed at a shape, and inferred from there.

    Raises:
        MachineError: onnx is not installed.
        IrstdError: no ONNX file, or an input that does not fit.
    """
    return _inferred(_load(path), shape, path)


def tensors_of(model: Any, needed: Collection[str], path: Path) -> dict[str, Tensor]:
    """At least the needed tensors of a model of `load_at`; a run tells what inference cannot."""
    tensors = _inferred_tensors(model.graph)
    missing = sorted(set(needed) - tensors.keys())
    return tensors | _tensors_of_a_run(model, missing, path) if missing else tensors


def constant_shapes(graph: Any) -> dict[str, Shape]:
    """Initializers and Constant nodes, name -> shape."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            values = {attribute.name: attribute.t for attribute in node.attribute}
            shapes[node.output[0]] = tuple(values["value"].dims) if "value" in values else ()
    return shapes


def _load(path: Path) -> Any:
    try:
        import onnx
    except ImportError as error:
        raise MachineError("cost: counting a graph needs onnx: pip install onnx") from error
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    refuse_graph(path)
    try:
        return onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise IrstdError(f"{path}: not an ONNX file, make the bundle again") from error


def _inferred(model: Any, shape: Shape, path: Path) -> Any:
    """The model with every tensor's shape at that input."""
    import onnx

    _set_input(model.graph, shape, path)
    # Shapes that the exporter left belong to its own example input and would win over ours.
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        reason = " ".join(str(error).split())[:200]
        message = f"{path}: does not take {list(shape)}, give a --size that fits ({reason})"
        raise IrstdError(message) from error


def _set_input(graph: Any, shape: Shape, path: Path) -> None:
    axes = _input(graph, path).type.tensor_type.shape.dim
    wants = [axis.dim_value or axis.dim_param for axis in axes]
    fits = len(wants) == len(shape) and all(
        isinstance(want, str) or want == extent for want, extent in zip(wants, shape, strict=True)
    )
    if not fits:
        raise IrstdError(f"{path}: takes {wants}, not {list(shape)}, give a --size that fits")
    for axis, extent in zip(axes, shape, strict=True):
        axis.dim_value = extent


def _input(graph: Any, path: Path) -> Any:
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if not inputs:
        raise IrstdError(f"{path}: the graph has no input, make the bundle again")
    return inputs[0]


def _inferred_tensors(graph: Any) -> dict[str, Tensor]:
    """Every tensor whose shape is known in full."""
    import onnx

    tensors = {name: Tensor(shape, 4) for name, shape in constant_shapes(graph).items()}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        axes = kind.shape.dim
        if kind.HasField("shape") and all(axis.HasField("dim_value") for axis in axes):
            item_bytes = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize
            tensors[value.name] = Tensor(tuple(axis.dim_value for axis in axes), item_bytes)
    return tensors


def _tensors_of_a_run(model: Any, names: list[str], path: Path) -> dict[str, Tensor]:
    """What inference could not tell: exporters compute some shapes inside the graph.

    One run on a black frame does tell.
    """
    import onnx

    entry = _input(model.graph, path)
    shape = tuple(axis.dim_value for axis in entry.type.tensor_type.shape.dim)
    hidden = sorted(set(names) - {value.name for value in model.graph.output})
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in hidden)
    try:
        session = ort_session(model.SerializeToString())
        arrays = session.run(names, {entry.name: np.zeros(shape, np.float32)})
    except Exception as error:  # its exceptions have no base class of their own
        reason = " ".join(str(error).split())[:200]
        raise IrstdError(f"{path}: cannot be run at {list(shape)} ({reason})") from error
    found = zip(names, arrays, strict=True)
    return {name: Tensor(tuple(array.shape), array.itemsize) for name, array in found}
