"""What an ONNX file holds, looked at before a runtime opens it: a board has no onnx package.

A graph of ours is one file of plain operators on stored numbers. Whatever lets a file reach
another one, run for ever, or take memory that its size does not show is refused: external data,
control flow, functions, tensors that declare more than they store.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import ExitStack
from math import prod
from pathlib import Path
from typing import NamedTuple

from irstd_edge.edge.files import open_to_read
from irstd_edge.edge.policy import MAX_GRAPH_BYTES, MAX_GRAPH_NODES
from irstd_edge.edge.types import IrstdError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types of protobuf."""
# Field numbers of onnx.proto3, by message.
MODEL_GRAPH, MODEL_TRAINING, MODEL_FUNCTIONS = 7, 20, 25
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_SPARSE = 1, 5, 15
NODE_ATTRIBUTE = 5
ATTRIBUTE_TENSOR, ATTRIBUTE_TENSORS, ATTRIBUTE_GRAPHS, ATTRIBUTE_SPARSE = 5, 10, (6, 11), (22, 23)
TENSOR_DIMS, TENSOR_TYPE, TENSOR_RAW, TENSOR_EXTERNAL, TENSOR_LOCATION = 1, 2, 9, 13, 14
TENSOR_DATA = {4: 4, 5: 1, 6: 1, 7: 1, 10: 8, 11: 1}
"""Field -> fewest bytes of a number: floats are fixed, integers are not."""
ITEM_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
"""TensorProto.DataType -> bytes of a number."""


class _Field(NamedTuple):
    number: int
    wire: int
    start: int
    end: int
    """Of its bytes; a varint's value is in `value`."""
    value: int


def refuse_graph(path: Path) -> None:
    """Raise IrstdError for a file that is no ONNX graph of plain operators on stored numbers."""
    with ExitStack() as stack:
        file = stack.enter_context(open_to_read(path, MAX_GRAPH_BYTES))
        try:
            data = stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            wrong = _Check(data).wrong()
        except (ValueError, IndexError) as error:  # ValueError: also of an empty file
            raise IrstdError(f"{path}: is no ONNX graph ({error}): quantize again") from error
    if wrong is not None:
        raise IrstdError(f"{path}: {wrong}, which no graph of ours does: quantize again")


class _Check:
    """One pass over a file; `wrong` is the first thing that is refused, in words."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.nodes = 0

    def wrong(self) -> str | None:
        return next(self._model(0, len(self.data)), None)

    def _model(self, start: int, end: int) -> Iterator[str]:
        graphs = 0
        for field in self._fields(start, end):
            if field.number in (MODEL_TRAINING, MODEL_FUNCTIONS):
                yield "holds functions or a training graph"
            elif field.number == MODEL_GRAPH:
                graphs += 1
                yield from self._graph(*self._message(field))
        if graphs != 1:
            raise ValueError(f"it holds {graphs} graphs")

    def _graph(self, start: int, end: int) -> Iterator[str]:
        for field in self._fields(start, end):
            if field.number == GRAPH_NODE:
                self.nodes += 1
                yield from self._node(*self._message(field))
            elif field.number == GRAPH_INITIALIZER:
                yield from self._tensor(*self._message(field))
            elif field.number == GRAPH_SPARSE:
                yield "holds sparse tensors"
            if self.nodes > MAX_GRAPH_NODES:
                yield f"has more than {MAX_GRAPH_NODES} nodes"

    def _node(self, start: int, end: int) -> Iterator[str]:
        for field in self._fields(start, end):
            if field.number == NODE_ATTRIBUTE:
                yield from self._attribute(*self._message(field))

    def _attribute(self, start: int, end: int) -> Iterator[str]:
        for field in self._fields(start, end):
            if field.number in ATTRIBUTE_GRAPHS:
                yield "has a graph within a node"
            elif field.number in ATTRIBUTE_SPARSE:
                yield "holds sparse tensors"
            elif field.number in (ATTRIBUTE_TENSOR, ATTRIBUTE_TENSORS):
                yield from self._tensor(*self._message(field))

    def _tensor(self, start: int, end: int) -> Iterator[str]:
        dims: list[int] = []
        kind = stored = 0
        raw: int | None = None
        for field in self._fields(start, end):
            if field.number == TENSOR_EXTERNAL or (field.number == TENSOR_LOCATION and field.value):
                yield "keeps numbers in another file"
            elif field.number == TENSOR_DIMS:
                dims += self._integers(field)
            elif field.number == TENSOR_TYPE:
                kind = field.value
            elif field.number == TENSOR_RAW:
                raw = field.end - field.start
            elif field.number in TENSOR_DATA:
                stored += max(1, (field.end - field.start) // TENSOR_DATA[field.number])
        yield from _lies(dims, kind, raw, stored)

    def _integers(self, field: _Field) -> list[int]:
        """Of a repeated field, one by one or packed."""
        if field.wire == VARINT:
            return [field.value]
        start, end = self._message(field)
        found = []
        while start < end:
            value, start = self._varint(start, end)
            found.append(value)
        return found

    def _message(self, field: _Field) -> tuple[int, int]:
        if field.wire != BYTES:
            raise ValueError(f"field {field.number} is of wire type {field.wire}")
        return field.start, field.end

    def _fields(self, at: int, end: int) -> Iterator[_Field]:
        while at < end:
            key, at = self._varint(at, end)
            number, wire, value, start = key >> 3, key & 7, 0, at
            if wire == VARINT:
                value, at = self._varint(at, end)
            elif wire == BYTES:
                length, start = self._varint(at, end)
                at = start + length
            elif wire in (FIXED64, FIXED32):
                at += 8 if wire == FIXED64 else 4
            else:
                raise ValueError(f"wire type {wire}")
            if at > end or not number:
                raise ValueError(f"field {number} does not end within its message")
            yield _Field(number, wire, start, at, value)

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if at >= end:
                break
            byte = self.data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & (2**64 - 1), at
        raise ValueError("a number does not end")


def _lies(dims: list[int], kind: int, raw: int | None, stored: int) -> Iterator[str]:
    """What is declared against what is there."""
    count = prod(dims)  # a negative one is huge here
    if raw is not None and (stored or ITEM_BYTES.get(kind, 0) * count != raw):
        yield f"declares {count} numbers of type {kind} in {raw} bytes"
    elif raw is None and count > stored:
        yield f"declares {count} numbers and stores {stored} at most"
