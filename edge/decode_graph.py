"""The decode of `detect` as a part of the graph: what leaves it are targets, not maps.

mask     -> probability (N, 1, H, W) float32 and mask (N, 1, H, W) uint8, 1 above the threshold
heatmap  -> targets (N, K, 4) float32: row, col, score, area in pixels, best first, then zeros

The frame is what the graph takes: where a smaller one was padded to fit, what lies beyond it is
left to the reader.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from irstd_edge.edge.detect import HEATMAP_STRIDE, LOG_SIGMA_RANGE, MAX_OFFSET_CELLS, OUTPUTS
from irstd_edge.edge.types import DecodeSpec, IrstdError

if TYPE_CHECKING:
    import onnx

DECODED = {"mask": ("probability", "mask"), "heatmap": ("targets",)}
"""Decode kind -> names of the outputs, in order."""
FIELDS = ("row", "col", "score", "area_px")
"""Of a row of `targets`."""
DEFAULT_TARGETS, MAX_TARGETS = 64, 1024
ROUNDS = 8
"""Of suppression: exact unless more than so many targets, each silenced by the one before if that
still stood, follow each other."""
LOWEST = float(np.finfo(np.float32).min)
FIRST_OPSET = 17


def with_decode(
    model: onnx.ModelProto, decode: DecodeSpec, targets: int = DEFAULT_TARGETS
) -> onnx.ModelProto:
    """Add the decode to a graph of a bundle, in place, at the threshold of `decode`.

    targets: K, the most that a frame can have; more are dropped, the weakest first.
    Raises IrstdError for a graph without the outputs of its kind, or a K out of range.
    """
    import onnx

    if not 1 <= targets <= MAX_TARGETS:
        raise IrstdError(f"--targets: {targets} is not in 1..{MAX_TARGETS}")
    names = tuple(output.name for output in model.graph.output)
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    if names != OUTPUTS[decode.kind] or opset < FIRST_OPSET:
        raise IrstdError(
            f"graph: has outputs {list(names)} in opset {opset}, not {list(OUTPUTS[decode.kind])} "
            f"in {FIRST_OPSET} or newer: quantize again"
        )
    writer = _Writer(model)
    del model.graph.output[:]
    limit = writer.constant("limit", math.log(decode.threshold / (1 - decode.threshold)))
    if decode.kind == "mask":
        _mask(writer, limit)
    else:
        _heatmap(writer, limit, targets)
    onnx.checker.check_model(model, full_check=True)
    return model


class _Writer:
    """Appends nodes under names that no network has."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph, self.count = model.graph, 0

    def constant(self, name: str, value: Any, kind: Any = np.float32) -> str:
        from onnx import numpy_helper

        full = f"decode/{name}"
        if all(item.name != full for item in self.graph.initializer):
            array = np.asarray(value, kind)
            self.graph.initializer.append(numpy_helper.from_array(array, full))
        return full

    def integers(self, *values: int) -> str:
        return self.constant("i" + "_".join(map(str, values)), values, np.int64)

    def number(self, value: float) -> str:
        return self.constant(f"f{value:.9g}", value)

    def add(
        self,
        operator: str,
        *inputs: str,
        to: str | None = None,
        attributes: dict[str, Any] | None = None,
        outputs: int = 1,
    ) -> str:
        """The name of the first output; of others it is the same with another number."""
        from onnx import helper

        self.count += 1
        name = f"decode/{self.count}/{operator}"
        made = [to] if to else [f"{name}.{index}" for index in range(outputs)]
        node = helper.make_node(operator, inputs, made, name, **(attributes or {}))
        self.graph.node.append(node)
        return made[0]

    def cut(self, tensor: str, axis: int, start: int, end: int) -> str:
        bounds = (self.integers(value) for value in (start, end, axis))
        return self.add("Slice", tensor, *bounds)

    def cast(self, tensor: str, kind: int, to: str | None = None) -> str:
        return self.add("Cast", tensor, to=to, attributes={"to": kind})

    def is_output(self, name: str, kind: int, shape: Sequence[Any]) -> None:
        from onnx import helper

        self.graph.output.append(helper.make_tensor_value_info(name, kind, shape))


def _mask(w: _Writer, limit: str) -> None:
    from onnx import TensorProto

    (logits,) = OUTPUTS["mask"]
    probability, mask = DECODED["mask"]
    w.add("Sigmoid", logits, to=probability)
    # TensorRT makes no uint8 of a bool.
    above = w.cast(w.add("Greater", logits, limit), TensorProto.FLOAT)
    w.cast(above, TensorProto.UINT8, to=mask)
    w.is_output(probability, TensorProto.FLOAT, ["N", 1, "H_logits", "W_logits"])
    w.is_output(mask, TensorProto.UINT8, ["N", 1, "H_logits", "W_logits"])


def _heatmap(w: _Writer, limit: str, targets: int) -> None:
    """Of each tensor the shape stands beside it; K are the targets."""
    from onnx import TensorProto

    heat, geometry = OUTPUTS["heatmap"]
    score, cells = _peaks(w, heat, limit, targets)  # (N, K) log-odds, int64 cells
    values = _geometry(w, geometry, cells, targets)  # dx, dy, log sigma, each (N, K)
    rows, cols, height, width = _places(w, heat, cells)
    row = _position(w, rows, values[1], height)
    col = _position(w, cols, values[0], width)
    spread = w.add("Exp", _clipped(w, values[2], *LOG_SIGMA_RANGE))
    sigma = w.add("Mul", spread, w.number(HEATMAP_STRIDE))
    area = w.add("Mul", w.add("Mul", sigma, sigma), w.number(math.pi))
    real = w.cast(w.add("Greater", score, limit), TensorProto.FLOAT)
    kept = _suppressed(w, row, col, sigma, real, targets)
    probability = w.add("Sigmoid", score)
    last = w.integers(-1)
    fields = [w.add("Unsqueeze", f, last) for f in (row, col, probability, area, kept)]
    table = w.add("Concat", *fields, attributes={"axis": 2})  # (N, K, 5)
    (name,) = DECODED["heatmap"]
    w.add("Mul", *_in_front(w, table, probability, kept, targets), to=name)
    w.is_output(name, TensorProto.FLOAT, ["N", targets, len(FIELDS)])


def _peaks(w: _Writer, heat: str, limit: str, targets: int) -> tuple[str, str]:
    """Log-odds and cells of the highest 3x3 maxima; of equal neighbours the first one counts."""
    around = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [1, 1]}
    highest = w.add("MaxPool", heat, attributes=around)
    border = w.add("Pad", heat, w.integers(0, 0, 1, 1, 0, 0, 0, 1), w.number(LOWEST))
    row_above = {"kernel_shape": [1, 3], "strides": [1, 1]}
    above = w.add("MaxPool", w.cut(border, 2, 0, -1), attributes=row_above)
    left = w.cut(w.cut(border, 2, 1, 2**31 - 1), 3, 0, -2)
    first = w.add("Greater", heat, w.add("Max", above, left))
    top = w.add("Not", w.add("Less", heat, highest))
    peak = w.add("And", w.add("And", first, top), w.add("Greater", heat, limit))
    flat = w.add("Reshape", w.add("Where", peak, heat, w.number(LOWEST)), w.integers(0, -1))
    room = w.integers(0, 0, 0, targets)  # TopK takes K of a frame of fewer cells too
    enough = w.add("Pad", flat, room, w.number(LOWEST))
    best = w.add("TopK", enough, w.integers(targets), attributes={"axis": 1}, outputs=2)
    return best, best.removesuffix(".0") + ".1"


def _geometry(w: _Writer, geometry: str, cells: str, targets: int) -> list[str]:
    flat = w.add("Reshape", geometry, w.integers(0, 3, -1))  # (N, 3, h w)
    flat = w.add("Pad", flat, w.integers(0, 0, 0, 0, 0, targets), w.number(0.0))  # as the cells
    one = w.add("Unsqueeze", cells, w.integers(1))
    thrice = w.add("Concat", one, one, one, attributes={"axis": 1})
    chosen = w.add("GatherElements", flat, thrice, attributes={"axis": 2})  # (N, 3, K)
    return [w.add("Squeeze", w.cut(chosen, 1, c, c + 1), w.integers(1)) for c in range(3)]


def _places(w: _Writer, heat: str, cells: str) -> tuple[str, str, str, str]:
    """Rows and columns (N, K) of cells, and the grid's height and width (1,), as float32."""
    from onnx import TensorProto

    size = w.add("Shape", heat)
    height, width = (w.cut(size, 0, axis, axis + 1) for axis in (2, 3))
    rows = w.add("Div", cells, width)
    cols = w.add("Sub", cells, w.add("Mul", rows, width))
    row, col, high, wide = (w.cast(n, TensorProto.FLOAT) for n in (rows, cols, height, width))
    return row, col, high, wide


def _position(w: _Writer, cells: str, offset: str, extent: str) -> str:
    """As `detect`: pixels of the frame, inside of it."""
    moved = w.add("Add", cells, _clipped(w, offset, -MAX_OFFSET_CELLS, MAX_OFFSET_CELLS))
    place = w.add("Add", w.add("Mul", moved, w.number(HEATMAP_STRIDE)), w.number(0.5))
    last = w.add("Sub", w.add("Mul", extent, w.number(HEATMAP_STRIDE)), w.number(1.0))
    return w.add("Min", w.add("Max", place, w.number(0.0)), last)


def _suppressed(w: _Writer, row: str, col: str, sigma: str, real: str, targets: int) -> str:
    """1 for what stays, 0 for what a stronger target that stays silences; (N, K)."""
    from onnx import TensorProto

    gaps = [
        w.add("Sub", w.add("Unsqueeze", t, w.integers(2)), w.add("Unsqueeze", t, w.integers(1)))
        for t in (row, col)
    ]
    squares = [w.add("Mul", gap, gap) for gap in gaps]
    distance = w.add("Sqrt", w.add("Add", *squares))  # (N, K, K): of weaker k to stronger j
    radius = w.add("Max", sigma, w.number(HEATMAP_STRIDE))
    near = w.add("Less", distance, w.add("Unsqueeze", radius, w.integers(1)))
    stronger = w.constant("stronger", np.tri(targets, k=-1)[None])
    silences = w.add("Mul", w.cast(near, TensorProto.FLOAT), stronger)
    last = w.integers(2)
    alive = kept = w.add("Unsqueeze", real, last)  # (N, K, 1)
    for _ in range(ROUNDS):
        free = w.add("Less", w.add("MatMul", silences, kept), w.number(0.5))
        kept = w.add("Mul", alive, w.cast(free, TensorProto.FLOAT))
    return w.add("Squeeze", kept, last)


def _in_front(w: _Writer, table: str, score: str, kept: str, targets: int) -> tuple[str, str]:
    """(N, K, 4) with what stays first, and (N, K, 1) that is 0 for the others."""
    ranked = w.add("Sub", w.add("Mul", score, kept), w.add("Sub", w.number(1.0), kept))
    top = w.add("TopK", ranked, w.integers(targets), attributes={"axis": 1}, outputs=2)
    order = w.add("Unsqueeze", top.removesuffix(".0") + ".1", w.integers(2))
    width = len(FIELDS) + 1
    wide = w.add("Concat", *[order] * width, attributes={"axis": 2})
    sorted_table = w.add("GatherElements", table, wide, attributes={"axis": 1})
    return w.cut(sorted_table, 2, 0, width - 1), w.cut(sorted_table, 2, width - 1, width)


def _clipped(w: _Writer, tensor: str, low: float, high: float) -> str:
    return w.add("Min", w.add("Max", tensor, w.number(low)), w.number(high))
