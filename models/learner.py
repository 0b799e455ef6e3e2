"""A network that learns: its optimizer, and the running average of its weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from irstd_edge.edge.types import IrstdError
from irstd_edge.models.batches import Labelled
from irstd_edge.models.graphed import GraphedSteps
from irstd_edge.models.launch import processes_here
from irstd_edge.models.loader import Batch, BatchLoader, workers_for
from irstd_edge.models.losses import multi_scale_loss, point_loss
from irstd_edge.models.mshnet import MSHNet, normalise
from irstd_edge.models.optimizers import (
    is_replayable,
    is_whole,
    on_device,
    optimizer_of,
    portable,
    set_rate,
)
from irstd_edge.models.p2p import P2P
from irstd_edge.models.recipes import Recipe
from irstd_edge.models.run_files import State
from irstd_edge.models.shared_norm import share_statistics


class Learner:
    """A network on its way through a recipe. `fine_tunes` says that its weights were given."""

    def __init__(
        self, net: MSHNet | P2P, recipe: Recipe, seed: int, fabric: Fabric, *, fine_tunes: bool
    ) -> None:
        self.recipe, self.seed, self.fabric = recipe, seed, fabric
        self.fine_tunes = fine_tunes
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        fabric.to_device(net)  # in place, before the optimizer asks where its weights are
        average = {key: value.clone() for key, value in net.state_dict().items()}
        self.average = {key: fabric.to_device(value) for key, value in average.items()}
        kept = self.average if recipe.start_share else {}
        self.start = {key: value.clone() for key, value in kept.items()}
        if fabric.world_size > 1:
            share_statistics(net)
        alone_on_gpu = fabric.device.type == "cuda" and fabric.world_size == 1
        replayed = alone_on_gpu and is_replayable(recipe)
        self.net, self.optimizer = fabric.setup(net, optimizer_of(net, recipe, replayed=replayed))
        if isinstance(net, MSHNet):
            self.net.mark_forward_method("forward_all")
        self.loader: BatchLoader | None = None
        self.ema_weight = torch.zeros((), device=fabric.device)  # 1 less the decay
        self.graphed = GraphedSteps(self._step, self.optimizer) if replayed else None

    def close(self) -> None:
        """Let go of the processes that make batches, and of the memory of recorded steps."""
        if self.loader is not None:
            self.loader.close()
        self.graphed = None

    @property
    def inner(self) -> MSHNet | P2P:
        """The network itself, without Fabric's wrapper."""
        module = self.net.module
        if isinstance(module, nn.parallel.DistributedDataParallel):
            module = module.module
        assert isinstance(module, MSHNet | P2P)
        return module

    def go_on_from(self, state: State) -> None:
        """Take what a run that was left kept, apart from its network, which was given."""
        self.average = {key: self.fabric.to_device(v) for key, v in state.average.items()}
        if state.start.keys() != self.start.keys():
            raise ValueError("start")
        self.start = {key: self.fabric.to_device(v) for key, v in state.start.items()}
        self.optimizer.load_state_dict(on_device(state.optimizer, self.optimizer))
        if not is_whole(self.optimizer.optimizer):
            raise ValueError("optimizer")

    def optimizer_state(self) -> dict[str, Any]:
        """Return what the optimizer knows, for any device to go on with."""
        return portable(self.optimizer.state_dict())

    def kept(self) -> dict[str, Tensor]:
        """Return the averaged weights, mixed with those of the start as the recipe says."""
        share = self.recipe.start_share
        return {
            key: value.lerp(self.start[key], share)
            if share and value.is_floating_point()
            else value
            for key, value in self.average.items()
        }

    def learn(self, frames: Sequence[Labelled], epoch: int) -> float:
        """Go through one epoch, counted from 0, and return its loss. Raises IrstdError."""
        self.net.train()
        if isinstance(self.inner, P2P) and not self.fine_tunes:
            self.inner.set_temperature(self.recipe.temperature_in(epoch))
        loader = self._loader_of(frames)
        steps = self.recipe.epochs * loader.per_epoch
        first = epoch * loader.per_epoch
        warm = epoch < self.recipe.warm
        results = [
            self._take(batch, first + at, steps, warm)
            for at, batch in enumerate(loader.epoch(epoch))
        ]
        return self._checked(results, epoch)

    def _loader_of(self, frames: Sequence[Labelled]) -> BatchLoader:
        if self.loader is None or self.loader.frames is not frames:
            self.loader = BatchLoader(
                frames,
                self.recipe,
                self.seed,
                workers=workers_for(self.fabric.device, processes_here()),
                rank=self.fabric.global_rank,
                world_size=self.fabric.world_size,
            )
        return self.loader

    def _take(self, batch: Batch, step: int, steps: int, warm: bool) -> tuple[Tensor, Tensor]:
        """Take step number `step` of `steps`; return its loss and the norm of its gradient."""
        set_rate(self.optimizer, self.recipe.lr_at((step + 1) / steps))
        self.ema_weight.fill_(1 - self.recipe.decay_at(step, steps))
        return (self.graphed or self._step)(batch, warm)

    def _step(self, batch: Batch, warm: bool) -> tuple[Tensor, Tensor]:
        loss = self._loss(batch, warm)
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        norm = self.fabric.clip_gradients(
            self.net,
            self.optimizer,
            max_norm=self.recipe.max_norm or math.inf,
            error_if_nonfinite=False,
        )
        assert norm is not None
        self.optimizer.step()
        self._move_average()
        return loss.detach(), norm

    def _loss(self, batch: Batch, warm: bool) -> Tensor:
        frames, targets = self.fabric.to_device(batch)
        if isinstance(self.inner, P2P):
            heatmap, geometry = self.net(_channels_last(frames))
            return point_loss(heatmap, geometry, targets, self._mean_count)
        # Fabric lowers the precision of `forward` alone, and of other methods only under DDP.
        with self.fabric.autocast():
            outputs = self.net.forward_all(_channels_last(normalise(frames)))
        name, share = self.recipe.loss, self.recipe.final_share
        return multi_scale_loss(outputs, targets, name=name, warm=warm, final_share=share)

    @torch.no_grad()
    def _mean_count(self, count: Tensor) -> Tensor:
        mean = self.fabric.all_reduce(count)
        assert isinstance(mean, Tensor)
        return mean

    @torch.no_grad()
    def _move_average(self) -> None:
        for key, value in self.inner.state_dict().items():
            if value.is_floating_point():
                self.average[key].lerp_(value, self.ema_weight)
            else:
                self.average[key].copy_(value)

    def _checked(self, results: Sequence[tuple[Tensor, Tensor]], epoch: int) -> float:
        """Return the mean loss over steps and processes; it and every gradient are finite."""
        means = torch.stack([torch.stack(pair) for pair in results]).mean(0)
        loss, norm = self.fabric.all_reduce(means).tolist()  # type: ignore[union-attr]
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise IrstdError(
                f"--lr: in epoch {epoch + 1} the loss is {loss:.4g}, its gradient {norm:.4g}; "
                "give a lower --lr and another --out"
            )
        # Those of its last step show in no loss.
        if not all(bool(value.isfinite().all()) for value in self.inner.state_dict().values()):
            raise IrstdError(
                f"--lr: in epoch {epoch + 1} the weights became infinite or no numbers; "
                "give a lower --lr and another --out"
            )
        return float(loss)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
