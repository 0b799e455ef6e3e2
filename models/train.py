"""The one training loop.

It can be killed at any moment: what it needs to go on is written whole after every epoch, and
every random choice depends on the seed and the place in the run alone (see `batches`).
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from irstd_edge.edge.files import write_atomic
from irstd_edge.edge.types import IrstdError, Sample
from irstd_edge.models import create_model, spec_of
from irstd_edge.models.batches import (
    Crop,
    Labelled,
    epoch_crops,
    labelled,
    mask_batch,
    point_batch,
    steps_per_epoch,
)
from irstd_edge.models.losses import multi_scale_loss, point_loss
from irstd_edge.models.mshnet import MSHNet, normalise
from irstd_edge.models.p2p import P2P
from irstd_edge.models.recipes import Recipe
from irstd_edge.models.weights import load_state, save_weights

START_TEMPERATURE = 30.0
"""Of p2p's attentions (Li et al., ICLR 2022); it falls to 1 over the warm epochs."""

Scores = dict[str, float | None]
Validate = Callable[[nn.Module], Scores]
"""Takes the network in evaluation mode; `score` decides which epoch is kept."""


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave: a line of metrics.jsonl."""

    epoch: int
    loss: float
    lr: float
    frames_per_s: float
    scores: Scores


def train(
    model: str,
    samples: Sequence[Sample],
    out: Path,
    recipe: Recipe,
    *,
    seed: int = 0,
    device: str = "auto",
    weights: Path | None = None,
    resume: bool = False,
    validate: Validate | None = None,
    validate_every: int = 5,
    progress: Callable[[Epoch], None] = lambda epoch: None,
) -> Path:
    """Train a network and return the path of the weights that were best on held-out frames.

    Writes OUT/model.safetensors, OUT/metrics.jsonl and OUT/last.ckpt. `weights` is where it
    starts from; `resume` goes on from OUT/last.ckpt. Without `validate` the last epoch is kept.
    Raises IrstdError where OUT holds another run, or nothing to resume.
    """
    fabric = _fabric(device)
    run = _Run(model, samples, out, recipe, seed, fabric, weights)
    if resume:
        run.restore()
    elif run.checkpoint.exists():
        raise IrstdError(f"{out}: holds a run; add --resume to go on with it, or choose another")
    while run.epoch < recipe.epochs:
        due = (run.epoch + 1) % validate_every == 0 or run.epoch + 1 == recipe.epochs
        progress(run.one_epoch(validate if due else None))
    return run.best_path


def _fabric(device: str) -> Fabric:
    """Return a launched Fabric; under torchrun it joins the other processes."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise IrstdError("--device cuda: torch sees no CUDA GPU here; use --device cpu")
    # bfloat16 pays where the processor multiplies it; elsewhere it is emulated.
    native = device == "cuda" or torch.cpu._is_avx512_bf16_supported()
    fabric = Fabric(
        accelerator=device,
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        num_nodes=int(os.environ.get("GROUP_WORLD_SIZE", "1")),
        strategy="ddp" if int(os.environ.get("WORLD_SIZE", "1")) > 1 else "auto",
        precision="bf16-mixed" if native else "32-true",
    )
    fabric.launch()
    return fabric


class _Run:
    """A training run: its networks, and the files that let it go on."""

    def __init__(
        self,
        model: str,
        samples: Sequence[Sample],
        out: Path,
        recipe: Recipe,
        seed: int,
        fabric: Fabric,
        weights: Path | None,
    ) -> None:
        if not samples:
            raise IrstdError("--data: no frame can be trained on; check the lists and the masks")
        self.model, self.out, self.recipe, self.seed, self.fabric = (
            model, out, recipe, seed, fabric,
        )  # fmt: skip
        self.frames: list[Labelled] = [labelled(s, spec_of(model).input) for s in samples]
        self.identity = _identity(model, samples, recipe, seed)
        torch.manual_seed(seed)
        net = create_model(model)
        if weights is not None:
            net.load_state_dict(load_state(weights, model))
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = {key: value.clone() for key, value in net.state_dict().items()}
        self.net, self.optimizer = fabric.setup(net, _optimizer(net, recipe))
        self.net.mark_forward_method("forward_all") if model == "mshnet" else None
        self.average = {key: fabric.to_device(value) for key, value in self.average.items()}
        self.epoch, self.best, self.lines = 0, -math.inf, list[str]()
        self.steps = steps_per_epoch(len(self.frames), recipe.batch_size)

    @property
    def checkpoint(self) -> Path:
        return self.out / "last.ckpt"

    @property
    def best_path(self) -> Path:
        return self.out / "model.safetensors"

    @property
    def inner(self) -> MSHNet | P2P:
        """The network itself, without Fabric's wrapper."""
        module = self.net.module
        module = (
            module.module if isinstance(module, nn.parallel.DistributedDataParallel) else module
        )
        assert isinstance(module, MSHNet | P2P)
        return module

    def one_epoch(self, validate: Validate | None) -> Epoch:
        """Train one epoch, score it, and write all that is needed to go on."""
        start = time.perf_counter()
        self.net.train()
        if isinstance(self.inner, P2P):
            self.inner.set_temperature(self._temperature())
        batches = epoch_crops(
            self.frames,
            self.recipe.crops_in(self.epoch),
            batch_size=self.recipe.batch_size,
            seed=self.seed,
            epoch=self.epoch,
            rank=self.fabric.global_rank,
            world_size=self.fabric.world_size,
        )
        losses = [self._step(crops, step) for step, crops in enumerate(batches)]
        seconds = time.perf_counter() - start
        loss = float(self.fabric.all_reduce(torch.stack(losses).mean()))  # type: ignore[arg-type]
        if not math.isfinite(loss):
            raise IrstdError(f"--lr: the loss is {loss} in epoch {self.epoch}; lower --lr")
        scores = self._scores(validate)
        rate = self.steps * self.recipe.batch_size / seconds
        done = Epoch(self.epoch, loss, self._lr(self.steps - 1), rate, scores)
        self.epoch += 1
        if self.fabric.is_global_zero:
            self._write(done)
        self.fabric.barrier()
        return done

    def _step(self, crops: Sequence[Crop], step: int) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = self._lr(step)
        loss = self._loss(crops)
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        self.fabric.clip_gradients(self.net, self.optimizer, max_norm=5.0)
        self.optimizer.step()
        self._average(self.epoch * self.steps + step)
        return loss.detach()

    def _loss(self, crops: Sequence[Crop]) -> Tensor:
        if self.model == "p2p":
            frames, points = self.fabric.to_device(point_batch(crops))
            return point_loss(*self.net(_channels_last(frames)), points)
        frames, masks = self.fabric.to_device(mask_batch(crops))
        outputs = self.net.forward_all(_channels_last(normalise(frames)))
        warm = self.epoch < self.recipe.warm_epochs
        return multi_scale_loss(outputs, masks, name=self.recipe.loss, warm=warm)

    def _lr(self, step: int) -> float:
        """One cycle: up over a twentieth of the run, then down along a cosine."""
        if self.recipe.optimizer == "adagrad":
            return self.recipe.lr
        done = (self.epoch * self.steps + step + 1) / (self.recipe.epochs * self.steps)
        warm = 0.05
        if done < warm:
            return self.recipe.lr * done / warm
        return self.recipe.lr * (
            0.01 + 0.99 * (1 + math.cos(math.pi * (done - warm) / (1 - warm))) / 2
        )

    def _temperature(self) -> float:
        share = min(1.0, self.epoch / max(1, self.recipe.warm_epochs))
        return START_TEMPERATURE + (1 - START_TEMPERATURE) * share

    @torch.no_grad()
    def _average(self, step: int) -> None:
        """Move the averaged weights; faster in the first steps, when they say little."""
        decay = min(self.recipe.ema, (1 + step) / (10 + step))
        for key, value in self.inner.state_dict().items():
            if value.is_floating_point():
                self.average[key].lerp_(value, 1 - decay)
            else:
                self.average[key].copy_(value)

    def _scores(self, validate: Validate | None) -> Scores:
        if validate is None or not self.fabric.is_global_zero:
            return {}
        return validate(self._averaged())

    def _averaged(self) -> MSHNet | P2P:
        net = create_model(self.model)
        net.load_state_dict({key: value.cpu() for key, value in self.average.items()})
        if isinstance(net, P2P):
            net.set_temperature(self._temperature())
        return net.eval()

    def _write(self, done: Epoch) -> None:
        """Write the weights if they are the best, then the checkpoint, each as a whole."""
        score = done.scores.get("score")
        if score is not None and score >= self.best or not done.scores and self.best == -math.inf:
            self.best = score if score is not None else self.best
            threshold = done.scores.get("threshold")
            card = {"recipe": asdict(self.recipe), "seed": self.seed, "threshold": threshold}
            card |= asdict(done)
            save_weights(self.best_path, self.model, self._averaged(), card)
        self.lines.append(json.dumps(asdict(done)))
        write_atomic(self.out / "metrics.jsonl", "\n".join(self.lines) + "\n")
        state = {
            "identity": self.identity,
            "epoch": self.epoch,
            "best": self.best,
            "lines": self.lines,
            "net": self.inner.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomic(self.checkpoint, buffer.getvalue())

    def restore(self) -> None:
        """Go on from the checkpoint. Raises IrstdError where it belongs to another run."""
        if not self.checkpoint.exists():
            raise IrstdError(f"{self.out}: no last.ckpt to resume; leave --resume out to start")
        state: dict[str, Any] = torch.load(
            self.checkpoint, map_location=self.fabric.device, weights_only=True
        )
        if state["identity"] != self.identity:
            raise IrstdError(
                f"{self.out}: was trained with another model, recipe, seed or list of frames; "
                "give the same options to --resume, or another --out"
            )
        self.inner.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average = state["average"]
        self.epoch, self.best, self.lines = state["epoch"], state["best"], state["lines"]


def _identity(model: str, samples: Sequence[Sample], recipe: Recipe, seed: int) -> str:
    """Name what decides a run, so that another one is not resumed by mistake."""
    digest = hashlib.sha256(json.dumps([model, asdict(recipe), seed]).encode())
    for sample in samples:
        digest.update(sample.frame.name.encode())
        digest.update(sample.points.tobytes())
    return digest.hexdigest()


def _optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimizer == "adagrad":
        return torch.optim.Adagrad(net.parameters(), lr=recipe.lr)
    weights = [p for p in net.parameters() if p.ndim > 1]
    rest = [p for p in net.parameters() if p.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": recipe.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.lr)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
