"""Rounding lowers most targets a little. One number gives that back: the bias of the float head.

Bias correction, as of Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
Correction", ICCV 2019, section 4.2, but measured where the decision falls: on targets, not on the
background that makes up nearly all of a frame.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from irstd_edge.edge.types import FloatArray

HEADS = {"p2p": "head.heatmap", "mshnet": "final"}
"""Network -> the convolution, left in float, that gives its logits."""

NEAR_CELLS = 1
"""Of the output: a target's peak is the highest logit within so many rows and columns."""


def correct_head_bias(
    quantized: nn.Module,
    float_net: nn.Module,
    model: str,
    batches: Sequence[Tensor],
    points: Sequence[FloatArray],
) -> tuple[nn.Module, float]:
    """Return a copy whose targets' peaks have the float network's median, and the shift of logits.

    batches: (1, 1, H, W) each; points: (M, 2) row, col of their targets. Without a target, and in
    networks that `HEADS` does not know, the shift is 0.
    """
    shifts = [
        shift
        for batch, places in zip(batches, points, strict=True)
        for shift in _shifts(quantized, float_net, batch, places)
    ]
    corrected = copy.deepcopy(quantized)
    if not shifts or model not in HEADS:
        return corrected, 0.0
    shift = float(np.median(shifts))
    head = corrected.get_submodule(HEADS[model])
    assert isinstance(head, nn.Conv2d) and head.bias is not None
    with torch.no_grad():
        head.bias += shift
    return corrected, shift


@torch.inference_mode()
def _shifts(
    quantized: nn.Module, float_net: nn.Module, batch: Tensor, points: FloatArray
) -> list[float]:
    """What each target's peak lost."""
    before, after = (_logits(net(batch)) for net in (float_net, quantized))
    stride = batch.shape[2] // before.shape[0]
    shifts = []
    for row, col in (points / stride).astype(int):
        top, left = max(row - NEAR_CELLS, 0), max(col - NEAR_CELLS, 0)
        near = np.s_[top : row + NEAR_CELLS + 1, left : col + NEAR_CELLS + 1]
        shifts.append(float(before[near].max() - after[near].max()))
    return shifts


def _logits(outputs: Tensor | tuple[Tensor, ...]) -> Tensor:  # -> (h, w)
    return (outputs if isinstance(outputs, Tensor) else outputs[0])[0, 0]
