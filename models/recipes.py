"""How each network is trained: every figure of a recipe in one place."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from irstd_edge.edge.types import IrstdError
from irstd_edge.models import spec_of
from irstd_edge.models.batches import Augmentation, PaperAugmentation
from irstd_edge.models.losses import mask_loss

START_TEMPERATURE = 30.0
"""Of p2p's attentions (Li et al., ICLR 2022, section 3.2); it falls to 1, the deployed value."""

RISE = 0.05
"""Share of a run in which the learning rate of the one-cycle schedule rises."""

SLS_WARM_EPOCHS = 6
"""The code of SLS's authors takes the full loss where `epoch > 5`."""

WARM_SHARE = 0.2
"""Of the epochs: warm-up ends there at the latest, however few a user asks for."""


@dataclass(frozen=True)
class Recipe:
    """One way to train one network."""

    loss: str
    """Of MASK_LOSSES; `points` for p2p."""
    epochs: int
    """Passes over the frames; each gives one crop."""
    batch_size: int
    """Over all processes."""
    lr: float
    """Highest learning rate."""
    optimizer: str = "adamw"
    """adamw or muon with a one-cycle schedule, or adagrad at a constant rate."""
    crops: tuple[Augmentation | PaperAugmentation, ...] = (Augmentation(128), Augmentation(256))
    """One after the other: small ones, which are cheap and full of targets, then larger ones; in
    the end whole frames, for both networks pool over all they see."""
    until: tuple[float, ...] = (0.8,)
    """Share of the epochs after which each but the last of `crops` gives way to the next."""
    warm_epochs: int = 0
    """Epochs of the SLS loss's warm-up, and of p2p's falling attention temperature."""
    average_share: float = 0.02
    """Share of a run that the averaged weights, which are what is kept, look back on; 0 keeps the
    last. A window in steps, as is usual, would hold a short run to weights of a high learning rate:
    0.999 doubled the loss that 3,430 steps of p2p reached on held-out frames."""
    weight_decay: float = 1e-4
    """Of adamw and muon, on weights of two dimensions and more."""
    final_share: float = 0.2
    """Of MSHNet's final head in the loss; its four scales share the rest equally."""
    max_norm: float = 5.0
    """Of the gradient; 0 for any."""
    keep: str = "best"
    """Of the validated epochs `best`, by their score on the held-out frames, or `last`."""
    bfloat16: bool = True
    """Whether it computes in it where the device multiplies it."""
    start_share: float = 0.0
    """Of the weights a run started from in those that are kept, so that what is learnt anew does
    not take the place of what was known: Wortsman et al., "Robust fine-tuning of zero-shot
    models", CVPR 2022, section 3. The run itself goes on from its own."""

    def crops_in(self, epoch: int) -> Augmentation | PaperAugmentation:
        """Return the augmentation of an epoch, counted from 0."""
        return self.crops[sum(epoch >= int(self.epochs * share) for share in self.until)]

    @property
    def joins(self) -> bool:
        """Whether some batches are laid side by side as one frame."""
        return any(isinstance(how, Augmentation) and how.joined > 0 for how in self.crops)

    @property
    def warm(self) -> int:
        """Epochs of warm-up in a run of this length."""
        return min(self.warm_epochs, int(self.epochs * WARM_SHARE))

    def decay_at(self, step: int, steps: int) -> float:
        """Return the decay of the averaged weights at step number `step` of `steps`, from 0.

        It is lower in the first steps, when the weights say little.
        """
        window = max(1.0, self.average_share * steps)
        return min(1 - 1 / window, (1 + step) / (10 + step))

    def temperature_in(self, epoch: int) -> float:
        """Return the temperature of p2p's attentions in an epoch, counted from 0."""
        share = min(1.0, epoch / self.warm) if self.warm else 1.0
        return START_TEMPERATURE + (1 - START_TEMPERATURE) * share

    def lr_at(self, done: float) -> float:
        """Return the learning rate where a share `done` of all steps, this one too, is done.

        One cycle: up along a line, then down along half a cosine to a hundredth.
        """
        if self.optimizer == "adagrad":
            return self.lr
        if done < RISE:
            return self.lr * done / RISE
        return self.lr * (0.01 + 0.99 * (1 + math.cos(math.pi * (done - RISE) / (1 - RISE))) / 2)


PAPER = PaperAugmentation()

CLOSE = Augmentation(256, zoom=(0.9, 1.1), gain=0.1, offset=0.05, noise=0.005)
"""Crops that stay close to their frames."""

AS_TAKEN = replace(CLOSE, zoom=(1.0, 1.0), noise=0.0, turn=False)
"""No resampling blurs their noise, nor the edges of targets: no test frame is resampled either."""

WHOLE = Augmentation(256, mosaic=0.2)
"""Whole frames without pasted targets, in part four side by side. Of p2p."""

FINETUNE = Recipe(
    # Whole frames alone. Pasted targets are fainter and more than real ones and leave false alarms:
    # held-out IoU was 69.1 after 25 epochs of them, 72.3 three epochs without them later.
    "soft-iou-bce",
    20,
    4,
    1e-3,
    "muon",
    crops=(AS_TAKEN,),
    until=(),
    final_share=0.6,
)
"""Of MSHNet."""

RECIPES = {
    ("mshnet", "default"): Recipe(
        "soft-iou-bce",
        400,
        16,
        1e-3,
        crops=(Augmentation(64), Augmentation(128), Augmentation(256)),
        until=(0.8, 0.93),
    ),
    ("mshnet", "paper"): Recipe(
        "sls",
        400,
        4,
        0.05,
        "adagrad",
        (PAPER,),
        (),
        warm_epochs=SLS_WARM_EPOCHS,
        average_share=0.0,
        max_norm=0.0,
        bfloat16=False,
    ),
    ("mshnet", "finetune"): FINETUNE,
    # Frames seen from all eight sides and a little off their centre, for as long as a GPU makes
    # cheap: upright frames alone are learnt by heart in such a run. `finetune` goes on from it.
    ("mshnet", "turned"): replace(
        FINETUNE,
        epochs=180,
        batch_size=16,
        crops=(replace(AS_TAKEN, size_px=224, turn=True), replace(AS_TAKEN, turn=True)),
        until=(0.8,),
        keep="last",
    ),
    # In part the frames of a batch as one. On single frames it ends below where it started, on
    # large ones far above; the average of the weights before and after keeps most of both.
    ("mshnet", "large-frames"): replace(
        FINETUNE,
        epochs=6,
        batch_size=8,
        lr=5e-4,
        crops=(replace(AS_TAKEN, joined=0.4),),
        start_share=0.5,
    ),
    # With up to two counts of 8 bits of noise on the frames. Without, two counts cost ten points of
    # held-out IoU; with it three, and a point where there is none.
    ("mshnet", "noisy"): replace(
        FINETUNE,
        epochs=8,
        batch_size=8,
        lr=4e-4,
        crops=(replace(AS_TAKEN, noise=0.008),),
        start_share=0.5,
    ),
    ("p2p", "default"): Recipe("points", 300, 16, 2e-3, warm_epochs=10),
    # Held-out loss rose from 0.052 to 0.060 on crops as close to their frames as MSHNet's. It ends
    # without pasted targets, or it finds too much.
    ("p2p", "finetune"): Recipe(
        "points",
        164,
        16,
        1e-3,
        crops=(
            Augmentation(128, paste=2),
            Augmentation(256, paste=4, mosaic=0.4),
            WHOLE,
        ),
        until=(0.785, 0.915),
    ),
    # What `finetune` ends with, alone.
    ("p2p", "whole-frames"): Recipe("points", 14, 16, 4e-4, crops=(WHOLE,), until=()),
}


def recipe_of(
    model: str,
    name: str = "default",
    *,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    loss: str | None = None,
    keep: str | None = None,
) -> Recipe:
    """Return a recipe with what is given in place of its own. Raises IrstdError.

    A learning rate that is not given goes with the square root of the batch size: Malladi et al.,
    "On the SDEs and Scaling Rules for Adaptive Gradient Algorithms", NeurIPS 2022.
    """
    spec_of(model)
    names = [recipe for of, recipe in RECIPES if of == model]
    if name not in names:
        choice = " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
        raise IrstdError(f"--recipe: {model} has no recipe {name!r}; choose {choice}")
    recipe = RECIPES[model, name]
    if loss is not None and (loss == "points") != (recipe.loss == "points"):
        raise IrstdError(f"--loss: {model} cannot be trained with {loss!r}; leave --loss out")
    if loss is not None and loss != "points":
        mask_loss(loss)
    if keep not in (None, "best", "last"):
        raise IrstdError(f"--keep: there is no {keep!r} epoch; choose best or last")
    given: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "loss": loss}
    given["keep"] = keep
    for option, value in given.items():
        if isinstance(value, int | float) and not 0 < value < math.inf:
            flag = option.replace("_", "-")
            raise IrstdError(f"--{flag}: {value} is not a positive number; give one over 0")
    if batch_size is not None and lr is None:
        given["lr"] = recipe.lr * math.sqrt(batch_size / recipe.batch_size)
    if loss == "sls" and not recipe.warm_epochs:
        given["warm_epochs"] = SLS_WARM_EPOCHS
    return replace(recipe, **{key: value for key, value in given.items() if value is not None})
