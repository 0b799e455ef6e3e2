"""The one training loop.

It can be killed at any moment: what it needs to go on is written whole after every epoch, and
every random choice depends on the seed and the place in the run alone (see `batches`).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from irstd_edge.edge.files import sha256_of, sole_writer, write_atomic
from irstd_edge.edge.types import IrstdError, ModelSpec, Sample
from irstd_edge.models import create_model, spec_of
from irstd_edge.models.batches import Labelled, labelled, steps_per_epoch
from irstd_edge.models.launch import launch, precision_on
from irstd_edge.models.learner import Learner
from irstd_edge.models.loader import lost_workers_told
from irstd_edge.models.mshnet import MSHNet
from irstd_edge.models.p2p import P2P
from irstd_edge.models.recipes import Recipe
from irstd_edge.models.run_files import State, identity_of, read_state, write_state
from irstd_edge.models.weights import load_state, model_from_state, save_weights, spec_to_train

CHECKPOINT, WEIGHTS, METRICS = "last.ckpt", "model.safetensors", "metrics.jsonl"

Scores = dict[str, Any]
Validate = Callable[[nn.Module], Scores]
"""Takes the network in evaluation mode; `score` decides which epoch is kept.

`threshold` and `operating_points` go into the card of the weights; None is an undefined figure.
"""


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
    normalisation: str | None = None,
    resume: bool = False,
    validate: Validate | None = None,
    validate_every: int | None = None,
    progress: Callable[[Epoch], None] = lambda epoch: None,
    tell: Callable[[str], None] = lambda words: None,
) -> Path:
    """Train a network and return the path of the weights that the recipe keeps.

    Writes OUT/model.safetensors, OUT/metrics.jsonl and OUT/last.ckpt. `weights` is where it
    starts from; `normalisation`, if not that of `weights` or the network's own, how counts become
    its input; `resume` goes on from OUT/last.ckpt. Without `validate` the last epoch is kept.
    It validates after the last epoch, and every `validate_every`: by default every twelfth part of
    the run, but at most every fifth epoch.
    Of several processes the first alone validates, writes and reports progress. On a GPU it spawns
    workers that make batches, so a script that calls it needs an `if __name__ == "__main__":`.
    `tell` is given what it computes in, and whether that has changed since the run began.
    Raises IrstdError where OUT holds another run, or nothing to resume, and where the loss is
    not finite.
    """
    _check(model, samples, out, seed, resume)
    _check_labels(samples, recipe)
    if recipe.start_share and weights is None and not resume:
        raise IrstdError(f"--weights: this recipe goes on from weights; add --weights {model}")
    warms = recipe.loss == "sls" and recipe.warm > 0
    fabric = launch(device, partial=warms, bfloat16=recipe.bfloat16)
    precision = precision_on(fabric.device.type, recipe.bfloat16)
    _check_batch(model, recipe, fabric.world_size)
    spec = spec_to_train(model, weights, normalisation)
    identity = identity_of(spec, samples, recipe, seed)
    with sole_writer(out) if fabric.is_global_zero else nullcontext():
        _check_out(out, resume)
        state = read_state(out / CHECKPOINT, identity, fabric.device) if resume else None
        tell(_precision_words(precision, state))
        parent = _parent(weights, state)
        learner = _learner(model, recipe, seed, fabric, weights, state)
        frames = [labelled(sample, spec.input) for sample in samples]
        run = _Run(spec, out, identity, learner, state, parent, precision)
        every = validate_every or max(5, recipe.epochs // 12)
        with lost_workers_told(), closing(learner):
            for epoch in range(run.epoch, recipe.epochs):
                loss, frames_per_s = _timed(learner, frames, epoch)
                if fabric.is_global_zero:
                    due = (epoch + 1) % every == 0 or epoch + 1 == recipe.epochs
                    scores = run.scores(validate) if validate and due else {}
                    lr = recipe.lr_at((epoch + 1) / recipe.epochs)
                    done = Epoch(epoch, loss, lr, frames_per_s, scores)
                    run.keep(done)
                    progress(done)
                fabric.barrier()
    return out / WEIGHTS


def _check(model: str, samples: Sequence[Sample], out: Path, seed: int, resume: bool) -> None:
    spec_of(model)
    if not samples:
        raise IrstdError("--data: no frame can be trained on; check the lists and the masks")
    if seed < 0:
        raise IrstdError(f"--seed: {seed} is negative; give 0 or more")
    _check_out(out, resume)


def _check_labels(samples: Sequence[Sample], recipe: Recipe) -> None:
    """Without a mask every target would be taught as background."""
    bare = [sample.frame.name for sample in samples if sample.mask is None]
    if bare and recipe.loss != "points":
        raise IrstdError(
            f"--data: {bare[0]} has no mask, and this network learns from masks; give masks, or "
            "train p2p, which learns from points"
        )


def _check_out(out: Path, resume: bool) -> None:
    if resume:
        return
    if (out / CHECKPOINT).exists():
        raise IrstdError(f"{out}: holds a run; add --resume to go on with it, or choose another")
    for name in (WEIGHTS, METRICS):
        if (out / name).exists():
            raise IrstdError(f"{out}: holds {name} already; choose another place, or remove it")


def _check_batch(model: str, recipe: Recipe, processes: int) -> None:
    batch_size = recipe.batch_size
    if batch_size % processes:
        raise IrstdError(
            f"--batch-size: {batch_size} crops cannot be shared evenly by {processes} processes; "
            f"give a multiple of {processes}"
        )
    if model == "p2p" and batch_size == 1:
        raise IrstdError(
            "--batch-size: p2p normalises over the crops of a batch, and one is too few; give at "
            "least 2"
        )
    if recipe.joins and processes > 1:
        raise IrstdError(
            "--recipe: this one lays the crops of a batch side by side as one frame, and several "
            "processes would make smaller frames; train without torchrun"
        )
    if recipe.joins and batch_size == 1:
        raise IrstdError(
            "--batch-size: this recipe lays the crops of a batch side by side, and one is too few; "
            "give at least 2"
        )


def _precision_words(precision: str, state: State | None) -> str:
    before = state.precision if state else None
    if before in (None, precision):
        return f"computing in {precision}"
    return (
        f"computing in {precision}, and in {before} before: the result is another than on one "
        "machine"
    )


def _parent(weights: Path | None, state: State | None) -> str | None:
    """Return the sha256 of the weights that the run started from. Raises IrstdError for others."""
    given = None if weights is None else sha256_of(weights)
    if state is None:
        return given
    if given not in (None, state.parent):
        raise IrstdError(
            "--weights: this run did not start from them, and goes on from its own; leave "
            "--weights out, or start anew in another --out"
        )
    return state.parent


def _learner(
    model: str, recipe: Recipe, seed: int, fabric: Fabric, weights: Path | None, state: State | None
) -> Learner:
    """Return the learner as its run left it, or at the start, with the given or fresh weights."""
    if state is not None:
        net = model_from_state(model, state.net, Path(CHECKPOINT))
        learner = Learner(net, recipe, seed, fabric, fine_tunes=state.parent is not None)
        try:
            learner.go_on_from(state)
        except Exception as error:  # torch raises what the numbers made it raise
            raise IrstdError(f"{CHECKPOINT}: is damaged; start again in another --out") from error
        return learner
    if weights is not None:
        net = model_from_state(model, load_state(weights, model), weights)
        return Learner(net, recipe, seed, fabric, fine_tunes=True)
    torch.manual_seed(seed)
    return Learner(create_model(model), recipe, seed, fabric, fine_tunes=False)


def _timed(learner: Learner, frames: Sequence[Labelled], epoch: int) -> tuple[float, float]:
    """Learn for one epoch; return its loss and the frames per second."""
    start = time.perf_counter()
    loss = learner.learn(frames, epoch)
    seconds = time.perf_counter() - start
    batch_size = learner.recipe.batch_size
    return loss, steps_per_epoch(len(frames), batch_size) * batch_size / seconds


class _Run:
    """What a run has to show so far, and the files that hold it."""

    def __init__(
        self,
        spec: ModelSpec,
        out: Path,
        identity: str,
        learner: Learner,
        state: State | None,
        parent: str | None,
        precision: str,
    ) -> None:
        self.spec, self.out, self.identity, self.learner = spec, out, identity, learner
        self.parent, self.precision = parent, precision
        self.epoch = state.epoch if state else 0
        self.best = state.best if state else -math.inf
        self.lines = list(state.lines) if state else []

    def kept(self) -> MSHNet | P2P:
        """Return a network of the weights to keep, in the state in which it is deployed."""
        state = {key: value.cpu() for key, value in self.learner.kept().items()}
        return model_from_state(self.spec.name, state, self.out / WEIGHTS).eval()

    def scores(self, validate: Validate) -> Scores:
        """Return the scores of the weights to keep."""
        net = self.learner.fabric.to_device(self.kept())
        # Of the same digits as on the devices: no TF32.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            try:
                scores = validate(net)
            except MemoryError:  # of a GPU; the frames fit in this machine's own
                scores = validate(net.cpu())
        # A ratio that is not a number is an undefined one: JSON has null for it.
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in scores.items()
        }

    def keep(self, done: Epoch) -> None:
        """Write the weights if they are to be kept so far, the metrics, and the checkpoint.

        In this order: a kill in between makes the resumed run redo the epoch, and it writes the
        same again.
        """
        score = done.scores.get("score")
        if self.learner.recipe.keep == "last" and done.scores:
            kept = True
        else:
            kept = self.best == -math.inf if score is None else score >= self.best
        if kept:
            self.best = self.best if score is None else score
            save_weights(self.out / WEIGHTS, self.spec.name, self.kept(), self._card(done))
        self.epoch = done.epoch + 1
        self.lines.append(json.dumps(asdict(done), allow_nan=False))
        write_atomic(self.out / METRICS, "\n".join(self.lines) + "\n")
        write_state(self.out / CHECKPOINT, self.identity, self._state())

    def _card(self, done: Epoch) -> dict[str, object]:
        card = {"recipe": asdict(self.learner.recipe), "seed": self.learner.seed} | asdict(done)
        # How busy the machine was is no matter of the weights: a run done twice gives equal bytes.
        del card["frames_per_s"]
        return card | {
            "precision": self.precision,
            "normalisation": self.spec.input.normalisation,
            "threshold": done.scores.get("threshold"),
            "operating_points": done.scores.get("operating_points", []),
        }

    def _state(self) -> State:
        return State(
            epoch=self.epoch,
            best=self.best,
            lines=self.lines,
            net=self.learner.inner.state_dict(),
            average=self.learner.average,
            optimizer=self.learner.optimizer_state(),
            parent=self.parent,
            start=self.learner.start,
            precision=self.precision,
        )
