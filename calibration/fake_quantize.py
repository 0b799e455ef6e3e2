"""Rounding to signed 8 bit in float arithmetic, as ONNX's QuantizeLinear, DequantizeLinear do it.

It stands where NNCF placed and calibrated its own quantizers. It needs no compiled extension, its
scale can be trained, and torch exports it as the standard pair of operators.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEVELS = 127
"""Steps from 0 to the end of the range; zero point 0 is what TensorRT takes."""
MIN_SCALE = 1e-8


class FakeQuantize(nn.Module):
    """`round(x / scale)` within -128..127, times `scale`; zero stays zero."""

    zero_point: Tensor

    def __init__(self, limit: Tensor, axis: int | None = None) -> None:
        """`limit`: what 127 stands for; a scalar, or (C,) along `axis` of the tensor."""
        super().__init__()
        self.axis = axis
        self.scale = nn.Parameter((limit.detach().float() / LEVELS).clamp_min(MIN_SCALE))
        zeros = torch.zeros_like(self.scale, dtype=torch.int32)
        self.register_buffer("zero_point", zeros, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Round a tensor; gradients pass straight through within the range."""
        if self.axis is not None:
            return torch.fake_quantize_per_channel_affine(
                x, self.scale, self.zero_point, self.axis, -LEVELS - 1, LEVELS
            )
        return torch.fake_quantize_per_tensor_affine(
            x, self.scale, self.zero_point, -LEVELS - 1, LEVELS
        )
