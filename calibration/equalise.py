"""The same network with maps that fill the 8 bit that they will be rounded to.

A tensor has one scale. Where one part of it is three times as high as another, or one channel ten
times, the rest is rounded three or ten times as coarsely as it need be.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from irstd_edge.models.free_scales import FreeScale
from irstd_edge.models.mshnet import MSHNet

HOW = "channels of free scale, half-way to the highest (of MSHNet: of a block, a stage)"
"""What the manifest says of a network that was changed."""

FAINTEST = 1e-3
"""Of the highest channel; a lower one, which may be dead, counts as so high."""


def equalise(network: nn.Module, batches: Sequence[Tensor]) -> nn.Module:
    """Return a deployed network that gives the same, up to the rounding of float.

    batches: (1, 1, H, W) in 0..1 each, on the CPU, of any size; the ranges are those on them. A
    network that has no maps of free scale is returned as it is.
    """
    if not isinstance(network, MSHNet):
        return network
    equal = copy.deepcopy(network).cpu().eval()
    scales = equal.free_scales()
    peaks = _peaks(equal, [scale.reader for scale in scales], batches)
    for scale in scales:
        scale.divide(_factors(scale, peaks[scale.reader]))
    return equal


def _peaks(
    network: nn.Module, readers: Sequence[nn.Conv2d], batches: Sequence[Tensor]
) -> dict[nn.Conv2d, Tensor]:
    """Convolution -> (channels,) highest magnitude of each channel that it reads."""
    peaks = {reader: torch.zeros(reader.in_channels) for reader in readers}

    def look(reader: Any, inputs: tuple[Tensor, ...]) -> None:
        peaks[reader] = torch.maximum(peaks[reader], inputs[0].abs().amax((0, 2, 3)))

    with ExitStack() as hooks, torch.no_grad():
        for reader in readers:
            hooks.callback(reader.register_forward_pre_hook(look).remove)
        for batch in batches:
            network(batch)
    return peaks


def _factors(scale: FreeScale, peaks: Tensor) -> Tensor:
    """What to divide a map's channels by, (channels,).

    Then the map is as high as what it is joined with, and each channel half-way, by the root, to
    the highest: one that all frames of calibration show faintly keeps room for a frame that has
    more of it.
    """
    rest, own = peaks[: -scale.channels], _alive(peaks[-scale.channels :])
    highest = own.max()
    return (own / highest).sqrt() * highest / (_alive(rest).max() if len(rest) else highest)


def _alive(heights: Tensor) -> Tensor:
    """(channels,) heights that can be divided by."""
    highest = heights.max()
    return heights.clamp_min(FAINTEST * highest) if highest > 0 else torch.ones_like(heights)
