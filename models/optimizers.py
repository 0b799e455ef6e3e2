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


def is_replayable(recipe: Recipe) -> bool:
    """Say whether a CUDA graph can replay the optimizer's steps: Adagrad counts outside of it."""
    return recipe.optimizer != "adagrad"


def optimizer_of(net: nn.Module, recipe: Recipe, *, replayed: bool = False) -> Optimizer:
    """Return the optimizer of a recipe; `replayed` says that a CUDA graph takes its steps."""
    if recipe.optimizer == "adagrad":
        return Adagrad(net.parameters(), lr=recipe.lr)
    if recipe.optimizer == "muon":
        return KernelMuon(net, recipe.lr, recipe.weight_decay, replayed=replayed)
    return _adamw(list(net.parameters()), recipe.lr, recipe.weight_decay, replayed)


def _adamw(parameters: list[nn.Parameter], lr: float, weight_decay: float, replayed: bool) -> AdamW:
    groups = _decayed_apart(parameters, weight_decay)
    if replayed:
        rate = torch.tensor(lr, device=parameters[0].device)
        return AdamW(groups, lr=rate, capturable=True)
    return AdamW(groups, lr=lr)


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

    def __init__(
        self, net: nn.Module, lr: float, weight_decay: float, *, replayed: bool = False
    ) -> None:
        self.kernels = [p for p in net.parameters() if _is_kernel(p)]
        taken = {id(p) for p in self.kernels}
        self.rest = [p for p in net.parameters() if id(p) not in taken]
        self.weight_decay = weight_decay
        self.adamw = _adamw(self.rest, lr, weight_decay, replayed)
        rate = self.adamw.param_groups[0]["lr"]
        super().__init__([{"params": self.kernels + self.rest}], {"lr": rate})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step."""
        assert closure is None
        lr = self.param_groups[0]["lr"]
        for kernels in self._alike():
            updates = [self._with_momentum(kernel).flatten(1) for kernel in kernels]
            length = 0.2 * math.sqrt(max(updates[0].shape))
            for kernel, update in zip(kernels, orthogonal(torch.stack(updates)), strict=True):
                kernel.mul_(1 - lr * self.weight_decay)
                kernel.sub_(update.view_as(kernel) * (lr * length))
        for group in self.adamw.param_groups:
            group["lr"] = lr
        self.adamw.step()

    def _alike(self) -> list[list[Tensor]]:
        """The kernels that have a gradient, those of one shape together."""
        shapes: dict[torch.Size, list[Tensor]] = {}
        for kernel in self.kernels:
            if kernel.grad is not None:
                shapes.setdefault(kernel.flatten(1).shape, []).append(kernel)
        return list(shapes.values())

    def _with_momentum(self, kernel: Tensor) -> Tensor:
        """Return Nesterov's momentum of a kernel, its gradient counted in."""
        grad = kernel.grad
        assert grad is not None
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


def orthogonal(matrices: Tensor) -> Tensor:
    """Return (K, M, N) matrices with all singular values near 1 (0.7 to 1.2), those of 0 apart.

    Five Newton-Schulz steps of the fifth order, with the coefficients of Jordan et al., 2024.
    """
    fast = torch.bfloat16 if multiplies_bfloat16(matrices.device.type) else torch.float32
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).to(fast)
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.mT
        factor = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, factor, x, beta=3.4445)
    return (x.mT if tall else x).to(matrices)


def set_rate(optimizer: Optimizer, lr: float) -> None:
    """Set the learning rate of every group: in place, where a CUDA graph reads it."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def portable(state: dict[str, Any]) -> dict[str, Any]:
    """Return the state of an optimizer without what depends on its device."""
    if "param_groups" not in state:
        return {name: portable(part) for name, part in state.items()}
    groups = [group | {"lr": float(group["lr"])} for group in state["param_groups"]]
    return state | {"param_groups": [_with_capturable(group, False) for group in groups]}


def on_device(state: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """Return a `portable` state as an optimizer takes it on the device where it is."""
    rate = optimizer.param_groups[0]["lr"]
    if not isinstance(rate, Tensor):
        return state
    if "param_groups" not in state:
        return {name: on_device(part, optimizer) for name, part in state.items()}
    groups = [group | {"lr": rate.clone().fill_(group["lr"])} for group in state["param_groups"]]
    return state | {"param_groups": [_with_capturable(group, True) for group in groups]}


def is_whole(optimizer: Optimizer) -> bool:
    """Say whether all it keeps of each parameter is a number or of its shape."""
    kept = [*optimizer.state.items()]
    kept += [*optimizer.adamw.state.items()] if isinstance(optimizer, KernelMuon) else []
    return all(
        value.ndim == 0 or value.shape == parameter.shape
        for parameter, values in kept
        for value in values.values()
        if isinstance(value, Tensor)
    )


def _with_capturable(group: dict[str, Any], value: bool) -> dict[str, Any]:
    return group | {"capturable": value} if "capturable" in group else group


def _is_kernel(parameter: Tensor) -> bool:
    if parameter.ndim != 4 or parameter.shape[1] == 1:  # a depthwise one mixes no channels
        return False
    return min(parameter.shape[0], parameter[0].numel()) >= SMALLEST_SIDE
