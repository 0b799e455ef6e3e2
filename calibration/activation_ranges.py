"""The ranges of a network's quantizers of activations, by what the calibration frames show."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from irstd_edge.calibration.fake_quantize import FakeQuantize
from irstd_edge.calibration.range_rules import RangeObserver
from irstd_edge.calibration.subset import CalibrationFrame


def estimate_ranges(network: nn.Module, frames: Sequence[CalibrationFrame], rule: str) -> None:
    """Set the range of every quantizer of activations by a rule of `RangeObserver.limit`.

    Values are those that the rounded network gives it, in evaluation mode. A quantizer that is
    given nothing but zeros stays as it is. Raises IrstdError for a name that is no rule, and for
    values that are not finite.
    """
    roundings = [
        each
        for each in network.modules()
        if isinstance(each, FakeQuantize) and each.axis is None  # weights have one
    ]
    values = {each: RangeObserver() for each in roundings}
    shown = frames[0]

    def look(quantizer: Any, inputs: tuple[Tensor, ...]) -> None:
        values[quantizer].add(inputs[0], shown)

    with ExitStack() as hooks, torch.no_grad():
        for each in roundings:
            hooks.callback(each.register_forward_pre_hook(look).remove)
        for shown in frames:
            network(shown.batch)
    for each, seen in values.items():
        if seen.highest:
            each.set_limit(seen.limit(rule))
