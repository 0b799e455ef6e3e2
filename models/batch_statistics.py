"""Statistics of batch normalisation for weights that were averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch.optim.swa_utils import update_bn

from irstd_edge.models.batches import Labelled, epoch_crops, mask_batch
from irstd_edge.models.mshnet import MSHNet, normalise
from irstd_edge.models.recipes import AS_TAKEN

BATCH = 16

UNCHANGED = replace(AS_TAKEN, aim=0.0, gain=0.0, offset=0.0)
"""Frames as the deployed network sees them, but for those that are mirrored or cut."""


def restate(net: MSHNet, frames: Sequence[Labelled]) -> None:
    """Estimate the running statistics of a network anew, in place, from each of the frames.

    Averaged weights make other activations than those whose statistics were averaged with them:
    Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018,
    section 3.2.
    """
    device = next(net.parameters()).device
    crops = epoch_crops(frames, UNCHANGED, batch_size=BATCH, seed=0, epoch=0)
    update_bn((normalise(mask_batch(batch)[0].to(device)) for batch in crops), net)
