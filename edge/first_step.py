"""What INT8 rounds first, told in counts of the sensor.

The graphs of a bundle take the frame in float and leave the first convolution so: no count is
rounded away at the entrance. The first QuantizeLinear behind it does round. A step of it is told
as the rise of a single pixel, on an even frame, that moves the cell that answers most by one step:
lower is finer, and a target of several pixels that rises by less may still move it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from irstd_edge.edge.frames import padded_size
from irstd_edge.edge.normalisation import MIDDLE, counts_per_unit
from irstd_edge.edge.onnx_graph import QUANTIZE, constants_of, makers_of
from irstd_edge.edge.runtimes import ort_session
from irstd_edge.edge.signs import made_in_onnx, never_negative
from irstd_edge.edge.types import Frame, InputSpec, IrstdError, MachineError

INPUT_STEPS = 127
"""Of a frame in 0..1 as signed 8 bits with zero point 0."""
RISE = 0.01
"""Of the pixel: small enough to be a slope, large enough for float32."""
SIDE_PX = 64


@dataclass(frozen=True)
class FirstStep:
    """The first rounded activation of a graph."""

    tensor: str
    scale: float
    """One step, in its own units."""
    response: float
    """Its largest change in any cell, over the change of one pixel of the input in 0..1."""
    never_negative: bool = False
    """Then OpenVINO rounds it to steps of half the size."""

    @property
    def of_input(self) -> float:
        """Rise of a pixel in 0..1 that moves it by one step."""
        return self.scale / self.response


def first_step(graph: Path, stride: int) -> FirstStep:
    """Find it in an INT8 graph, and run what is in front of it.

    Raises MachineError without onnx, IrstdError for a graph that rounds nothing.
    """
    if find_spec("onnx") is None:
        raise MachineError("onnx: not installed: pip install onnx")
    import onnx

    model = onnx.load(str(graph))
    node = _first_quantizer(model)
    if node is None:
        raise IrstdError(f"{graph}: has no QuantizeLinear behind its input: give an INT8 graph")
    response = _response(_cut(model, node.input[0]), stride)
    if response == 0:
        raise IrstdError(
            f"{graph}: no pixel moves {node.input[0]}: its weights are zero, or nearly: train again"
        )
    constants, makers = constants_of(model.graph), makers_of(model.graph.node)
    scale = constants.get(node.input[1])
    if scale is None or scale.size != 1:
        raise IrstdError(f"{graph}: {node.input[0]} has no scale of its own: quantize again")
    is_positive = never_negative(node.input[0], made_in_onnx(makers.get, constants.get))
    return FirstStep(node.input[0], float(scale.item()), response, is_positive)


def sensor_step(
    graph: Path, spec: InputSpec, frames: Iterable[Frame], runtime: str | None = None
) -> dict[str, Any]:
    """`sensor_step` of bench.json and of a manifest's recipe. Raises as `first_step` does.

    {"bit_depth", "normalisation", "counts_per_unit", "int8_input", "first_activation", "tensor"}:
    counts that 0..1 stands for (median over the frames), then counts per step of an INT8 input,
    which our graphs do not have, and of the first activation that is rounded: by the graph as it is
    written, or as a runtime runs it.
    """
    seen = list(frames)
    found = first_step(graph, spec.stride)
    unit = median(counts_per_unit(frame, spec) for frame in seen)
    share = 0.5 if runtime == "openvino" and found.never_negative else 1.0
    return {
        "bit_depth": seen[0].bit_depth,
        "normalisation": spec.normalisation,
        "counts_per_unit": unit,
        "int8_input": unit / INPUT_STEPS,
        "first_activation": share * unit * found.of_input,
        "tensor": found.tensor,
    }


def step_words(record: Mapping[str, Any]) -> str:
    """The record in one sentence."""
    return (
        f"counts per INT8 step: {record['first_activation']:.3g} of {record['bit_depth']} bits, "
        "one pixel's rise, at the first rounded activation; an INT8 input would have "
        f"{record['int8_input']:.3g} ({record['normalisation']}; the input stays float)"
    )


def _first_quantizer(model: Any) -> Any:
    """The first QuantizeLinear that the frame reaches; nodes are in the order of their run."""
    reached = {model.graph.input[0].name}
    for node in model.graph.node:
        if not reached & set(node.input):
            continue
        if node.op_type == QUANTIZE:
            return node
        reached |= set(node.output)
    return None


def _cut(model: Any, tensor: str) -> bytes:
    """The graph up to a tensor, which becomes its output in float32."""
    from onnx import TensorProto, helper

    needed, nodes = {tensor}, []
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            nodes.append(node)
    single = helper.make_node("Cast", [tensor], ["front"], "front", to=TensorProto.FLOAT)
    graph = helper.make_graph(
        [*nodes[::-1], single],
        "front",
        [model.graph.input[0]],
        [helper.make_tensor_value_info("front", TensorProto.FLOAT, None)],
        [each for each in model.graph.initializer if each.name in needed],
    )
    front = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    return bytes(front.SerializeToString())


def _response(front: bytes, stride: int) -> float:
    """Largest change of a cell per change of one pixel, in all four phases of a halved grid."""
    side, _ = padded_size((SIDE_PX, SIDE_PX), stride)
    batch = np.full((5, 1, side, side), MIDDLE, np.float32)
    for index, (row, col) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1)), start=1):
        batch[index, 0, side // 2 + row, side // 2 + col] += RISE
    session = ort_session(front)
    (values,) = session.run(None, {session.get_inputs()[0].name: batch})
    return float(np.abs(values[1:] - values[:1]).max() / RISE)
