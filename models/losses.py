"""Losses of both detectors. Sums and logarithms run in float32 whatever the network ran in."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from irstd_edge.edge.types import IrstdError
from irstd_edge.models.mshnet import MultiScale

EPS = 1e-8
SMOOTH_PX = 1.0
"""Gives a sample without targets a value and a gradient."""


def _per_sample(x: Tensor) -> Tensor:  # (N, 1, H, W) -> (N,)
    return x.sum((1, 2, 3))


def soft_iou_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return 1 - soft intersection over union, averaged over (N, 1, H, W) samples.

    Rahman and Wang, "Optimizing Intersection-Over-Union in Deep Neural Networks", ISVC 2016.
    """
    p = logits.float().sigmoid()
    both = _per_sample(p * target)
    either = _per_sample(p) + _per_sample(target) - both
    return 1 - ((both + SMOOTH_PX) / (either + SMOOTH_PX)).mean()


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return 1 - the Dice coefficient, averaged over (N, 1, H, W) samples.

    Milletari et al., "V-Net", 3DV 2016, section 3.
    """
    p = logits.float().sigmoid()
    both = _per_sample(p * target)
    return 1 - ((2 * both + SMOOTH_PX) / (_per_sample(p) + _per_sample(target) + SMOOTH_PX)).mean()


def bce_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return the binary cross-entropy, averaged over pixels of (N, 1, H, W)."""
    return F.binary_cross_entropy_with_logits(logits.float(), target)


def sls_loss(logits: Tensor, target: Tensor, *, warm: bool, location: bool = True) -> Tensor:
    """Return the scale- and location-sensitive loss of (N, 1, H, W) logits and a 0/1 target.

    Liu et al., CVPR 2024, sections 3.1 and 3.2, as its authors compute it: the location term
    takes the first moment over the whole frame. While `warm`, it is 1 - IoU alone.
    Where the formulas are undefined (a sample without target), its limit is taken: the scale
    term pulls the predicted mass to zero, and the location term is left out.
    """
    p = logits.float().sigmoid()
    both, predicted, true = _per_sample(p * target), _per_sample(p), _per_sample(target)
    empty = true == 0
    union = (predicted + true - both).clamp_min(EPS)
    # With no target the IoU is 0 for any prediction and teaches nothing; 1 / (1 + mass) does.
    iou = torch.where(empty, 1 / (1 + predicted), both / union)
    if warm:
        return 1 - iou.mean()
    difference = ((predicted - true) / 2) ** 2
    smaller, larger = torch.minimum(predicted, true), torch.maximum(predicted, true)
    scale = (smaller + difference) / (larger + difference).clamp_min(EPS)
    weight = torch.where(empty, torch.ones_like(scale), scale)
    loss = 1 - (weight * iou).mean()
    if location:
        term = torch.where(empty, torch.zeros_like(iou), _location_term(p, target))
        loss = loss + term.mean()
    return loss


def _location_term(p: Tensor, target: Tensor) -> Tensor:  # (N, 1, H, W) -> (N,)
    """Compare the polar coordinates of both first moments (section 3.2, equation 6)."""
    height, width = p.shape[-2:]
    x = torch.arange(width, device=p.device) / width
    y = torch.arange(height, device=p.device)[:, None] / height
    cx, cy = (x * p).mean((1, 2, 3)), (y * p).mean((1, 2, 3))
    tx, ty = (x * target).mean((1, 2, 3)), (y * target).mean((1, 2, 3))
    angle = (cy / (cx + EPS)).atan() - (ty / (tx + EPS)).atan()
    r, rt = (cx**2 + cy**2 + EPS).sqrt(), (tx**2 + ty**2 + EPS).sqrt()
    return 1 - torch.minimum(r, rt) / (torch.maximum(r, rt) + EPS) + 4 / math.pi**2 * angle**2


def soft_iou_bce_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return soft IoU plus cross-entropy: the one shapes targets, the other clears frames."""
    return soft_iou_loss(logits, target) + bce_loss(logits, target)


MASK_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "soft-iou-bce": soft_iou_bce_loss,
    "soft-iou": soft_iou_loss,
    "dice": dice_loss,
    "bce": bce_loss,
    "sls": lambda logits, target: sls_loss(logits, target, warm=False),
}


def mask_loss(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss of that name, or an IrstdError that lists the names."""
    try:
        return MASK_LOSSES[name]
    except KeyError:
        names = ", ".join(MASK_LOSSES)
        raise IrstdError(f"--loss: no loss is called {name!r}; choose one of {names}") from None


def multi_scale_loss(
    outputs: MultiScale, target: Tensor, *, name: str, warm: bool, final_share: float = 0.2
) -> Tensor:
    """Return the loss of MSHNet: `final_share` of its final head, the rest of every scale alike.

    Liu et al., CVPR 2024, section 3.3: all five weigh the same; the label of a coarser head is
    max-pooled. While `warm`, the finest head learns alone, as in the authors' code.
    """
    if warm and name == "sls":
        return sls_loss(outputs.heads[0], target, warm=True)
    loss = mask_loss(name)
    final, scales = loss(outputs.final, target), []
    for logits in outputs.heads:
        scales.append(loss(logits, target))
        target = F.max_pool2d(target, 2)
    return final_share * final + (1 - final_share) * torch.stack(scales).mean()


def of_one_process(count: Tensor) -> Tensor:
    """Return a count of a batch that no other process has a part of."""
    return count


def focal_heatmap_loss(
    logits: Tensor, target: Tensor, mean_count: Callable[[Tensor], Tensor] = of_one_process
) -> Tensor:
    """Return the penalty-reduced focal loss of (N, 1, h, w), per target of the batch.

    Zhou et al., "Objects as Points", 2019, equation 1, with alpha 2 and beta 4.
    Targets are the cells where `target` is 1.
    """
    logits = logits.float()
    p = logits.sigmoid()
    positive = (target == 1).float()
    hit = (1 - p) ** 2 * F.logsigmoid(logits) * positive
    miss = (1 - target) ** 4 * p**2 * F.logsigmoid(-logits) * (1 - positive)
    return -(hit + miss).sum() / _at_least_one(mean_count(positive.sum()))


def _at_least_one(count: Tensor) -> Tensor:
    """Return a count to divide by; between processes a mean of less than one is no zero."""
    return torch.where(count > 0, count, torch.ones_like(count))


def point_loss(
    heatmap: Tensor,
    geometry: Tensor,
    target: Tensor,
    mean_count: Callable[[Tensor], Tensor] = of_one_process,
) -> Tensor:
    """Return the loss of p2p: heatmap, offsets and log sigma.

    `target` is (N, 5, h, w): heatmap, dx, dy, log sigma, and 1 where those three apply. Sums are
    divided by counts of the whole batch: `mean_count` gives the mean of a count over the processes
    that share it, and their gradients' mean is then that of one process.
    """
    where = target[:, 4:]
    count = _at_least_one(mean_count(where.sum()))
    error = F.smooth_l1_loss(geometry.float(), target[:, 1:4], beta=0.25, reduction="none") * where
    place, scale = error[:, :2].sum() / count, error[:, 2:].sum() / count
    return focal_heatmap_loss(heatmap, target[:, :1], mean_count) + place + 0.2 * scale
