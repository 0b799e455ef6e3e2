"""The checkpoint of a training run: all that it needs to go on as if it had never stopped."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from irstd_edge.edge.dataset import digest_of
from irstd_edge.edge.files import write_atomic
from irstd_edge.edge.types import IrstdError, ModelSpec, Sample
from irstd_edge.models.pickles import unpickled
from irstd_edge.models.recipes import Recipe


@dataclass(frozen=True)
class State:
    """A run after its last whole epoch."""

    epoch: int
    """Epochs done."""
    best: float
    """Score of the weights that are kept; -inf while none was scored."""
    lines: list[str]
    """Those of metrics.jsonl."""
    net: dict[str, Tensor]
    average: dict[str, Tensor]
    """The averaged weights."""
    optimizer: dict[str, Any]
    parent: str | None = None
    """The sha256 of the weights that the run started from; None for a run from scratch."""
    start: dict[str, Tensor] = field(default_factory=dict)
    """These weights, where the recipe keeps a share of them."""
    precision: str | None = None
    """What it computed in; None where that is not told."""


def identity_of(spec: ModelSpec, samples: Sequence[Sample], recipe: Recipe, seed: int) -> str:
    """Name what decides a run, so that another one is not resumed by mistake."""
    settings = [spec.name, spec.input.normalisation, asdict(recipe), seed, digest_of(samples)]
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()


def _check(state: State) -> None:
    """Raise TypeError or ValueError where a field of the file is not what it should be."""
    kinds: dict[str, Any] = {"epoch": int, "best": float | int, "lines": list}
    kinds |= {"net": dict, "average": dict, "optimizer": dict, "start": dict}
    kinds |= {"parent": str | None, "precision": str | None}
    for name, kind in kinds.items():
        if not isinstance(getattr(state, name), kind):
            raise TypeError(name)
    for line in state.lines:
        json.loads(line)  # a TypeError for what is no text
    if state.epoch < 0:
        raise ValueError("epoch")
    shapes = shapes_of(state.net)
    if shapes_of(state.average) != shapes or (state.start and shapes_of(state.start) != shapes):
        raise ValueError("weights")


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """Return name -> shape of weights. Raises what torch raises for others than plain tensors."""
    return {name: value.shape for name, value in state.items()}


def write_state(path: Path, identity: str, state: State) -> None:
    """Write a checkpoint as a whole."""
    buffer = io.BytesIO()
    # Not asdict, which would copy every tensor.
    torch.save({"identity": identity} | vars(state), buffer)
    write_atomic(path, buffer.getvalue())


def read_state(path: Path, identity: str, device: torch.device) -> State:
    """Read a checkpoint. Raises IrstdError where it is absent, damaged or of another run."""
    if not path.exists():
        raise IrstdError(f"{path}: no such file, nothing to resume; leave --resume out to start")
    try:
        saved = unpickled(path, device)
        found = saved.pop("identity")
        state = State(**{f.name: saved[f.name] for f in fields(State) if f.name in saved})
        _check(state)
    except IrstdError:
        raise
    except Exception as error:  # torch raises what the bytes made it raise
        raise IrstdError(
            f"{path}: is no checkpoint of ours; start again in another --out"
        ) from error
    if found != identity:
        raise IrstdError(
            f"{path}: is of another model, recipe (--epochs, --batch-size, --lr, --loss), "
            "normalisation, seed or list of frames; give --resume the options of that run, or "
            "choose another --out"
        )
    return state
