"""The optimizers of the recipes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adagrad, AdamW, Optimizer

from irstd_edge.models.launch import multiplies_bfloat16
from irstd_edge.models.recipes import Recipe

MOMENTUM = 0.95
"""Of Muon."""

SMALLEST_SIDE = 8
"""Of a kernel as a matrix that Muon takes; heads and attentions have smaller ones."""


def optimizer_of(net: nn.Module, recipe: Recipe) -> Optimizer:
    """Return the optimizer of a recipe."""
    if recipe.optimizer == "adagrad":
        return Adagrad(net.parameters(), lr=recipe.lr)
    if recipe.optimizer == "muon":
        return KernelMuon(net, recipe.lr, recipe.weight_decay)
    return AdamW(_decayed_apart(list(net.parameters()), recipe.weight_decay), lr=recipe.lr)


def _decayed_apart(parameters: list[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Return groups for AdamW: weights of two dimensions and more decay, the others do not."""
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


class KernelMuon(Optimizer):
    """Muon on the kernels of convolutions, as (outputs, taps * inputs) matrices; AdamW on the rest.

    Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024: a step goes as
    far in every direction of a kernel's gradient. Steps are as long as AdamW's (Liu et al., "Muon
    is scalable for LLM training", 2025, section 2.2), so one learning rate serves both.

    `torch.optim.Muon` multiplies in bfloat16 whatever the processor: 6 s a step of MSHNet where
    that is emulated, against 0.2 s in float32.
    """

    def __init__(self, net: nn.Module, lr: float, weight_decay: float) -> None:
        self.kernels = [p for p in net.parameters() if _is_kernel(p)]
        taken = {id(p) for p in self.kernels}
        self.rest = [p for p in net.parameters() if id(p) not in taken]
        self.weight_decay = weight_decay
        super().__init__([{"params": self.kernels + self.rest}], {"lr": lr})
        self.adamw = AdamW(_decayed_apart(self.rest, weight_decay), lr=lr)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step."""
        assert closure is None
        lr = self.param_groups[0]["lr"]
        for kernel in self.kernels:
            if kernel.grad is not None:
                update = self._with_momentum(kernel, kernel.grad).flatten(1)
                length = 0.2 * math.sqrt(max(update.shape))
                kernel.mul_(1 - lr * self.weight_decay)
                kernel.sub_(orthogonal(update).view_as(kernel), alpha=lr * length)
        for group in self.adamw.param_groups:
            group["lr"] = lr
        self.adamw.step()

    def _with_momentum(self, kernel: Tensor, grad: Tensor) -> Tensor:
        """Return Nesterov's momentum of a kernel, its gradient counted in."""
        state = self.state[kernel]
        if not state:
            state["momentum"] = torch.zeros_like(kernel)
        momentum: Tensor = state["momentum"]
        momentum.lerp_(grad, 1 - MOMENTUM)
        return grad.lerp(momentum, MOMENTUM)

    def state_dict(self) -> dict[str, Any]:
        """Return the states of both."""
        return {"muon": super().state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the states of both."""
        super().load_state_dict(state_dict["muon"])
        self.adamw.load_state_dict(state_dict["adamw"])


def orthogonal(matrix: Tensor) -> Tensor:
    """Return an (M, N) matrix with all its singular values near 1 (0.7 to 1.2), those of 0 apart.

    Five Newton-Schulz steps of the fifth order, with the coefficients of Jordan et al., 2024.
    """
    fast = torch.bfloat16 if multiplies_bfloat16(matrix.device.type) else torch.float32
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).to(fast)
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = torch.addmm(
            x, torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445
        )
    return (x.T if tall else x).to(matrix)


def _is_kernel(parameter: Tensor) -> bool:
    if parameter.ndim != 4 or parameter.shape[1] == 1:  # a depthwise one mixes no channels
        return False
    return min(parameter.shape[0], parameter[0].numel()) >= SMALLEST_SIDE
