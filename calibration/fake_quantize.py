"""Rounding to signed 8 bit in float arithmetic, as ONNX's QuantizeLinear, DequantizeLinear do it.

It stands where NNCF placed and calibrated its own quantizers: it needs no compiled extension, and
torch exports it as the standard pair of operators.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

LEVELS = 127
"""Steps from 0 to the end of the range; zero point 0 is what TensorRT takes."""
MIN_SCALE = 1e-8


class FakeQuantize(nn.Module):
    """`round(x / scale)` within -128..127, times `scale`; zero stays zero."""

    scale: Tensor
    zero_point: Tensor

    def __init__(
        self,
        limit: Tensor,
        axis: int | None = None,
        *,
        levels: int = LEVELS,
        never_negative: bool = False,
    ) -> None:
        """`limit`: what `levels` stands for; a scalar, or (C,) along `axis` of the tensor.

        `levels`: of a tensor with an axis, the highest step that is ever taken, also once training
        has moved what is rounded.
        `never_negative`: whether a runtime with unsigned 8 bit may round to 0..255 half scales.
        """
        super().__init__()
        self.axis = axis
        self.levels = levels
        self.never_negative = never_negative
        self.by_half_steps = False
        scale = (limit.detach().float() / levels).clamp_min(MIN_SCALE)
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", torch.zeros_like(scale, dtype=torch.int32))

    def set_limit(self, limit: float) -> None:
        """Let `levels` stand for another value; of a tensor without an axis."""
        self.scale.fill_(max(limit / self.levels, MIN_SCALE))

    def forward(self, x: Tensor) -> Tensor:
        """Round a tensor; gradients pass straight through within the range."""
        if self.by_half_steps and self.never_negative:
            return torch.fake_quantize_per_tensor_affine(
                x, self.scale / 2, self.zero_point, 0, 2 * LEVELS + 1
            )
        if self.axis is None:
            return torch.fake_quantize_per_tensor_affine(
                x, self.scale, self.zero_point, -LEVELS - 1, LEVELS
            )
        # Weights keep to the symmetric range: -128 has no mirror image, and overflows where
        # pairs of products are added up in 16 bit.
        shape = [-1 if i == self.axis else 1 for i in range(x.ndim)]
        limit = (self.levels * self.scale).reshape(shape)
        return torch.fake_quantize_per_channel_affine(
            x.clamp(-limit, limit), self.scale, self.zero_point, self.axis, -LEVELS - 1, LEVELS
        )


@contextmanager
def half_steps(network: nn.Module) -> Iterator[None]:
    """Round as ONNX Runtime's and OpenVINO's graphs do: what is never negative to half steps."""
    roundings = [each for each in network.modules() if isinstance(each, FakeQuantize)]
    for each in roundings:
        each.by_half_steps = True
    try:
        yield
    finally:
        for each in roundings:
            each.by_half_steps = False
