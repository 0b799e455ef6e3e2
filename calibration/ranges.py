"""What values a graph's tensors take on the calibration frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx
import torch

from irstd_edge.calibration.range_rules import RangeObserver
from irstd_edge.calibration.subset import CalibrationFrame
from irstd_edge.edge.runtimes import INPUT, ort_session

AT_ONCE = 16
"""Tensors that are held in memory together."""


def ranges_of(
    model: onnx.ModelProto, tensors: Sequence[str], frames: Sequence[CalibrationFrame], rule: str
) -> dict[str, tuple[float, float]]:
    """Tensor -> (lowest, highest) by a rule of `RangeObserver.limit`, as ONNX Runtime computes it.

    A rule that cuts does so at the same distance from 0 on either side.
    """
    ranges = {}
    for first in range(0, len(tensors), AT_ONCE):
        for tensor, seen in _seen(model, tensors[first : first + AT_ONCE], frames):
            limit = seen.limit(rule)
            ranges[tensor] = max(seen.low, -limit), min(seen.high, limit)
    return ranges


def _seen(
    model: onnx.ModelProto, tensors: Sequence[str], frames: Sequence[CalibrationFrame]
) -> Iterator[tuple[str, RangeObserver]]:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in tensors)
    session = ort_session(copy.SerializeToString())
    values = {tensor: RangeObserver() for tensor in tensors}
    for shown in frames:
        found = session.run(list(tensors), {INPUT: shown.batch.numpy()})
        for tensor, array in zip(tensors, found, strict=True):
            values[tensor].add(torch.from_numpy(array), shown)
    yield from values.items()
