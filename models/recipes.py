"""How each network is trained: every figure of a recipe in one place."""

from __future__ import annotations

from dataclasses import dataclass, replace

from irstd_edge.edge.types import IrstdError
from irstd_edge.models.batches import Augmentation


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
    """adamw with a one-cycle schedule, or adagrad at a constant rate."""
    crops: Augmentation = Augmentation(128)
    """In the first epochs."""
    last_crops: Augmentation = Augmentation(256)
    """In the last epochs: whole frames, for both networks pool over all they see."""
    last_share: float = 0.2
    """Share of the epochs with `last_crops`."""
    warm_epochs: int = 0
    """Epochs of the SLS loss's warm-up, and of p2p's falling attention temperature."""
    ema: float = 0.999
    """Decay of the averaged weights, which are what is kept; 0 keeps the last."""
    weight_decay: float = 1e-4

    def crops_in(self, epoch: int) -> Augmentation:
        """Return the augmentation of an epoch, counted from 0."""
        last = epoch >= round(self.epochs * (1 - self.last_share))
        return self.last_crops if last else self.crops


PAPER_CROPS = Augmentation(
    256, aim=0.0, zoom=(0.5, 2.0), gain=0.0, offset=0.0, noise=0.0, blur_px=1.0
)
"""Long side to 128..512, a random 256 crop, flips, blur: the authors' augmentation."""

RECIPES = {
    ("mshnet", "default"): Recipe("soft-iou-bce", 200, 16, 1e-3),
    ("mshnet", "paper"): Recipe(
        "sls", 400, 4, 0.05, "adagrad", PAPER_CROPS, PAPER_CROPS, warm_epochs=5, ema=0.0
    ),
    ("p2p", "default"): Recipe("points", 300, 16, 2e-3, warm_epochs=10),
}


def recipe_of(
    model: str,
    name: str = "default",
    *,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    loss: str | None = None,
) -> Recipe:
    """Return a recipe with the given figures in place of its own. Raises IrstdError."""
    names = [recipe for of, recipe in RECIPES if of == model]
    if name not in names:
        raise IrstdError(f"--recipe: {model} has no recipe {name!r}; choose {' or '.join(names)}")
    recipe = RECIPES[model, name]
    if loss is not None and (loss == "points") != (recipe.loss == "points"):
        raise IrstdError(f"--loss: {model} cannot be trained with {loss!r}; leave --loss out")
    given = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "loss": loss}
    for option, value in given.items():
        if isinstance(value, int | float) and value <= 0:
            flag = option.replace("_", "-")
            raise IrstdError(f"--{flag}: {value} is not positive; give a number over 0")
    return replace(recipe, **{key: value for key, value in given.items() if value is not None})
