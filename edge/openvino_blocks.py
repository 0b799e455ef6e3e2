"""A convolution to one channel in OpenVINO, by blocks of pixels that are computed as channels."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import numpy as np

from irstd_edge.edge.blocks import BLOCK, MOST_KERNEL_PX, by_place
from irstd_edge.edge.types import FloatArray

LEAST_APART_PX = 128 * 128
"""Area from which joining maps for one convolution takes longer than one for each and a sum:
with it, MSHNet took 0.95 of the time in INT8, without a limit 0.97."""


def by_blocks(conv: Any) -> tuple[Any, list[Any]] | None:
    """What takes the place of a convolution, and the nodes within; None for other convolutions.

    Maps that were joined for it may be read apart: it is the sum of what each adds.
    """
    from openvino import opset8 as ops

    how, kernel = conv.get_attributes(), conv.input_value(1).get_node()
    if kernel.get_type_name() != "Constant" or conv.output(0).get_partial_shape().is_dynamic:
        return None
    weights, shape = kernel.data, conv.output(0).shape
    if len(shape) != 4:
        return None
    (outputs, _, rows, cols), (height, width) = weights.shape, shape[2:]
    if outputs > 1 or not 1 < max(rows, cols) <= MOST_KERNEL_PX:
        return None
    if {*how["strides"], *how["dilations"]} != {1} or height % BLOCK or width % BLOCK:
        return None
    pads = list(how["pads_begin"]), list(how["pads_end"])
    inputs = _apart(conv.input_value(0)) if height * width >= LEAST_APART_PX else None
    if inputs is None:
        inner = [_convolved(conv.input_value(0), by_place(weights), BLOCK, *pads)]
    else:
        kernels = np.split(weights, np.cumsum([part.shape[1] for part in inputs])[:-1], axis=1)
        parts = [_added(*each, *pads) for each in zip(inputs, kernels, strict=True)]
        inner = [node for made in parts for node in made]
        inner += accumulate((made[-1] for made in parts), ops.add)
    return ops.depth_to_space(inner[-1], "blocks_first", BLOCK), inner


def _apart(maps: Any) -> list[Any] | None:
    """The maps that are joined along their channels to make these, None where none are."""
    node = maps.get_node()
    if node.get_type_name() != "Concat" or node.get_attributes()["axis"] != 1:
        return None
    return list(node.input_values())


def _added(part: Any, weights: FloatArray, before: list[int], after: list[int]) -> list[Any]:
    """Nodes, of which the last is what some of the input channels add to each block.

    The mean over channels of a map is one channel as well: it is taken by blocks, and stays so.
    """
    source = _averaged(part)
    sides = weights.shape[2:]
    same = all(b + a == side - 1 for b, a, side in zip(before, after, sides, strict=True))
    if source is None or not same or max(*before, *after) > BLOCK:
        return [_convolved(part, by_place(weights), BLOCK, before, after)]
    kernel = _means(source.shape[1]).astype(weights.dtype)
    means = _convolved(source, kernel, BLOCK, [0, 0], [0, 0])
    return [means, _convolved(means, _between_blocks(weights, before), 1, [1, 1], [1, 1])]


def _averaged(part: Any) -> Any | None:
    """What a map is the mean over channels of."""
    node = part.get_node()
    if node.get_type_name() != "ReduceMean":
        return None
    axes = node.input_value(1).get_node()
    over_channels = axes.get_type_name() == "Constant" and axes.data.ravel().tolist() == [1]
    source = node.input_value(0)
    is_map = source.get_partial_shape().is_static and len(source.shape) == 4
    return source if over_channels and is_map else None


def _convolved(
    maps: Any, kernel: FloatArray, step: int, before: list[int], after: list[int]
) -> Any:
    from openvino import opset8 as ops

    return ops.convolution(maps, ops.constant(kernel), [step] * 2, before, after, [1, 1])


def _means(channels: int) -> FloatArray:
    """(BLOCK**2, C, BLOCK, BLOCK): of each place, the mean over channels."""
    places = np.eye(BLOCK**2, dtype=np.float32).reshape(BLOCK**2, 1, BLOCK, BLOCK)
    return np.repeat(places / channels, channels, axis=1)


def _between_blocks(weights: FloatArray, before: list[int]) -> FloatArray:
    """(1, 1, h, w) -> (BLOCK**2, BLOCK**2, 3, 3): the kernel on blocks and their neighbours."""
    rows, cols = weights.shape[2:]
    kernels = np.zeros((BLOCK**2, BLOCK**2, 3, 3), weights.dtype)
    for place, row, col in np.ndindex(BLOCK**2, rows, cols):
        top, left = divmod(place, BLOCK)
        block_row, inner_row = divmod(top + row - before[0], BLOCK)
        block_col, inner_col = divmod(left + col - before[1], BLOCK)
        seen = inner_row * BLOCK + inner_col
        kernels[place, seen, 1 + block_row, 1 + block_col] = weights[0, 0, row, col]
    return kernels
