"""Quantization-aware training: the weights learn to live with their rounding.

A short one, on frames hardly changed (crops of 256x256, at which the networks were trained;
smaller frames are filled up at their borders), towards what the float network says of the same
frame, near targets as much as far from them; labels only say where targets are. Steps take turns
between the two roundings that the graphs get: signed steps, as on TensorRT, and half steps of what
is never negative, as on a CPU. The ranges stay as calibrated, so that a few steps on mild frames
cannot cut off the brightest targets.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irstd_edge.calibration.fake_quantize import half_steps
from irstd_edge.calibration.qat_checkpoint import Checkpoint
from irstd_edge.edge.types import IrstdError, ModelSpec, Progress, Sample
from irstd_edge.models.batches import (
    Labelled,
    epoch_crops,
    labelled,
    mask_batch,
    point_batch,
    steps_per_epoch,
)
from irstd_edge.models.recipes import CLOSE

NEAR_CELLS = 4
"""Of the output, around a target: there the float network is followed closely."""

STEPS_KEPT = 10
"""A checkpoint is written after every so many steps: half a minute of a CPU."""


@dataclass(frozen=True)
class QatRecipe:
    """One way to train on."""

    epochs: int = 3
    """Passes over the frames; each gives one crop."""
    batch_size: int = 4
    lr: float = 1e-5
    """Highest learning rate; it falls to 0 along half a cosine."""

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise IrstdError(f"--epochs: {self.epochs} is not positive; give 1 or more")

    def lr_at(self, done: float) -> float:
        """Return the learning rate of the step before which a share `done` of all was taken."""
        return self.lr * (1 + math.cos(math.pi * done)) / 2

    def record(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)


def train_quantized(
    quantized: nn.Module,
    float_net: nn.Module,
    spec: ModelSpec,
    samples: Sequence[Sample],
    recipe: QatRecipe,
    *,
    seed: int = 0,
    checkpoint: Checkpoint | None = None,
    progress: Progress = lambda *_: None,
) -> nn.Module:
    """A trained copy of a quantized network, on the CPU in evaluation mode.

    The same arguments give the same weights on the same machine, also where a `checkpoint` that an
    earlier call left goes on. It runs on a CUDA GPU where torch sees one.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    student = copy.deepcopy(quantized).to(device).requires_grad_(True)
    teacher = copy.deepcopy(float_net).to(device).requires_grad_(False)
    frames = [labelled(sample, spec.input) for sample in samples]
    optimizer = torch.optim.AdamW(student.parameters(), recipe.lr, weight_decay=0.0)
    done = checkpoint.read(student, optimizer) if checkpoint else 0
    steps = steps_per_epoch(len(frames), recipe.batch_size)
    total = recipe.epochs * steps
    batches = partial(epoch_crops, frames, CLOSE, batch_size=recipe.batch_size, seed=seed)
    while done < total:
        epoch, first_step = divmod(done, steps)
        for batch in batches(epoch=epoch, first_step=first_step):
            with half_steps(student) if done % 2 == 0 else nullcontext():
                loss = _loss(student, teacher, spec.decode.kind, batch, device)
            optimizer.param_groups[0]["lr"] = recipe.lr_at(done / total)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            done += 1
            progress("training on", done, total)
            if checkpoint and (done % STEPS_KEPT == 0 or done == total):
                checkpoint.write(done, student, optimizer)
    return student.cpu().requires_grad_(False)


def _loss(
    student: nn.Module,
    teacher: nn.Module,
    kind: str,
    crops: Sequence[Labelled],
    device: torch.device,
) -> Tensor:
    images, target = point_batch(crops) if kind == "heatmap" else _masks(crops)
    images, target = images.to(device), target.to(device)
    with torch.no_grad():
        wanted = teacher(images)
    found = student(images)
    if isinstance(found, Tensor):
        return follow_loss(found, wanted, target)
    near = _near(target[:, :1])
    places = _mean((found[1] - wanted[1]).abs().mean(1, keepdim=True), near)
    return follow_loss(found[0], wanted[0], target[:, :1]) + places


def _masks(crops: Sequence[Labelled]) -> tuple[Tensor, Tensor]:
    """Frames and masks, in which a target that is known by its point alone is a pixel."""
    images, masks = mask_batch(crops)
    for mask, cut in zip(masks, crops, strict=True):
        rows, cols = torch.from_numpy(cut.points).round().long().T
        mask[0, rows, cols] = 1
    return images, masks


def follow_loss(logits: Tensor, wanted: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy to the float network's probabilities, near and far from targets alike.

    All are (N, 1, h, w); `target` is 1 on targets. Near is a hundredth of the cells: in a plain
    mean the background would drown it.
    """
    error = F.binary_cross_entropy_with_logits(logits, wanted.sigmoid(), reduction="none")
    near = _near(target)
    return _mean(error, near) + _mean(error, 1 - near)


def _near(target: Tensor) -> Tensor:
    return F.max_pool2d((target == 1).float(), 2 * NEAR_CELLS + 1, 1, NEAR_CELLS)


def _mean(error: Tensor, where: Tensor) -> Tensor:
    return (error * where).sum() / where.sum().clamp_min(1)
