"""Rounding to signed 8 bit in float arithmetic, as ONNX's QuantizeLinear, DequantizeLinear do it.

It stands where NNCF placed and calibrated its own quantizers: it needs no compiled extension, and
torch exports it as the standard pair of operators.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEVELS = 127
"""Steps from 0 to the end of the range; zero point 0 is what TensorRT takes."""
MIN_SCALE = 1e-8


class FakeQuantize(nn.Module):
    """`round(x / scale)` within -128..127, times `scale`; zero stays zero."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, limit: Tensor, axis: int | None = None) -> None:
        """`limit`: what 127 stands for; a scalar, or (C,) along `axis` of the tensor."""
        super().__init__()
        self.axis = axis
        scale = (limit.detach().float() / LEVELS).clamp_min(MIN_SCALE)
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", torch.zeros_like(scale, dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        """Round a tensor; gradients pass straight through within the range."""
        if self.axis is None:
            return torch.fake_quantize_per_tensor_affine(
                x, self.scale, self.zero_point, -LEVELS - 1, LEVELS
            )
        # Weights keep to the symmetric range: -128 has no mirror image, and overflows where
        # pairs of products are added up in 16 bit.
        limit = (LEVELS * self.scale).reshape([-1 if i == self.axis else 1 for i in range(x.ndim)])
        return torch.fake_quantize_per_channel_affine(
            x.clamp(-limit, limit), self.scale, self.zero_point, self.axis, -LEVELS - 1, LEVELS
        )
