"""The optimizers of the recipes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adagrad, AdamW, Muon, Optimizer

from irstd_edge.models.recipes import Recipe

SMALLEST_SIDE = 8
"""Of a kernel as a matrix that Muon takes; heads and attentions have smaller ones."""


def optimizer_of(net: nn.Module, recipe: Recipe) -> Optimizer:
    """Return the optimizer of a recipe; the kernels of `net` are laid out channels-last."""
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
    """

    def __init__(self, net: nn.Module, lr: float, weight_decay: float) -> None:
        self.kernels = [p for p in net.parameters() if _is_kernel(p)]
        taken = {id(p) for p in self.kernels}
        self.rest = [p for p in net.parameters() if id(p) not in taken]
        self.weight_decay = weight_decay
        super().__init__([{"params": self.kernels + self.rest}], {"lr": lr})
        self.parts: tuple[Optimizer, Optimizer] | None = None

    def _parts(self) -> tuple[Optimizer, Optimizer]:
        """Return both, made once the network is on its device: Muon's matrices are views of it."""
        if self.parts is None:
            # A view: that of a kernel which is not laid out channels-last is refused.
            views = [p.detach().permute(0, 2, 3, 1).view(len(p), -1) for p in self.kernels]
            matrices = [nn.Parameter(view) for view in views]
            self.parts = (
                Muon(matrices, weight_decay=self.weight_decay, adjust_lr_fn="match_rms_adamw"),
                AdamW(_decayed_apart(self.rest, self.weight_decay)),
            )
        return self.parts

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step."""
        assert closure is None
        muon, adamw = self._parts()
        for matrix, kernel in zip(muon.param_groups[0]["params"], self.kernels, strict=True):
            grad = kernel.grad
            matrix.grad = None if grad is None else grad.permute(0, 2, 3, 1).flatten(1)
        for part in (muon, adamw):
            for group in part.param_groups:
                group["lr"] = self.param_groups[0]["lr"]
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the states of both."""
        muon, adamw = self._parts()
        return {"muon": muon.state_dict(), "adamw": adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the states of both."""
        muon, adamw = self._parts()
        muon.load_state_dict(state_dict["muon"])
        adamw.load_state_dict(state_dict["adamw"])


def _is_kernel(parameter: Tensor) -> bool:
    if parameter.ndim != 4 or parameter.shape[1] == 1:  # a depthwise one mixes no channels
        return False
    return min(parameter.shape[0], parameter[0].numel()) >= SMALLEST_SIDE
