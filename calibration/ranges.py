"""What values a graph's tensors take on the calibration frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from irstd_edge.edge.quiet import silence_telemetry
from irstd_edge.edge.runtimes import INPUT
from irstd_edge.edge.types import FloatArray


def ranges_of(
    model: onnx.ModelProto, tensors: Sequence[str], batches: Iterable[FloatArray]
) -> dict[str, tuple[float, float]]:
    """Tensor -> (lowest, highest) over all batches (1, 1, H, W), as ONNX Runtime computes them."""
    if not tensors:
        return {}
    silence_telemetry()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        _measuring(model, tensors).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [name for tensor in tensors for name in _names(tensor)]
    runs = np.array([session.run(names, {INPUT: batch}) for batch in batches], np.float64)
    lowest, highest = runs[:, ::2].min(0), runs[:, 1::2].max(0)
    return dict(zip(tensors, zip(lowest.tolist(), highest.tolist(), strict=True), strict=True))


def _names(tensor: str) -> tuple[str, str]:
    return f"{tensor}.lowest", f"{tensor}.highest"


def _measuring(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    """A copy whose outputs are the extremes of the tensors."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    for tensor in tensors:
        for operator, name in zip(("ReduceMin", "ReduceMax"), _names(tensor), strict=True):
            copy.graph.node.append(helper.make_node(operator, [tensor], [name], name, keepdims=0))
            copy.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, []))
    return copy
