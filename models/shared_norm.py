"""Batch normalisation over the crops of all processes, as if one had them.

torch's SyncBatchNorm refuses the CPU. This one takes any device, and keeps every parameter, buffer
and name of the layer in whose place it stands.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F


class SharedBatchNorm(nn.BatchNorm2d):
    """Normalises by the mean and variance of the whole batch; every process has as much of it."""

    def forward(self, input: Tensor) -> Tensor:  # (N, C, H, W)
        """Apply it; the running statistics move as those of `nn.BatchNorm2d`."""
        if not self.training:
            return super().forward(input)
        y, mean, variance = _Normalise.apply(input, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        count = distributed.get_world_size() * input.numel() / input.shape[1]
        self._move(mean, variance * count / (count - 1))
        output: Tensor = y
        return output

    @torch.no_grad()
    def _move(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked.add_(1)


class _Normalise(torch.autograd.Function):
    """Ioffe and Szegedy, "Batch Normalization", ICML 2015, algorithm 1, and its gradient."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return (N, C, H, W) and (C,) mean and variance."""
        wide = x.float()
        mean = _over_processes(wide.mean((0, 2, 3)))
        variance = _over_processes((wide - _along(mean)).square().mean((0, 2, 3)))
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt())
        y = F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *of_statistics: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, weight and bias."""
        x, weight, mean, scale = ctx.saved_tensors
        wide = grad.float()
        normal = (x.float() - _along(mean)) * _along(scale)
        sums = torch.stack((wide.sum((0, 2, 3)), (wide * normal).sum((0, 2, 3))))
        shift, slope = _over_processes(sums * (x.shape[1] / x.numel()))
        moved = wide - _along(shift) - normal * _along(slope)
        return (moved * _along(weight * scale)).to(x.dtype), sums[1], sums[0], None


def _along(values: Tensor) -> Tensor:  # (C,) -> (C, 1, 1)
    return values[:, None, None]


def _over_processes(values: Tensor) -> Tensor:
    """The mean over all processes."""
    distributed.all_reduce(values)
    return values.div_(distributed.get_world_size())


def share_statistics(net: nn.Module) -> None:
    """Have every batch normalisation of a network, in place, see the crops of all processes."""
    for module in net.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm
