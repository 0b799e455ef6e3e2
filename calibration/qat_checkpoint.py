"""Quantization-aware training that was stopped, kept beside the bundle that it is for."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from irstd_edge.edge.files import sole_writer, write_atomic
from irstd_edge.edge.types import IrstdError
from irstd_edge.models.pickles import unpickled

ENDING, CHECKPOINT = ".qat", "last.ckpt"


@dataclass(frozen=True)
class Stage:
    """A training after some of its steps."""

    steps: int
    """Done."""
    net: dict[str, Any]
    """State of the network that learns, ranges too."""
    optimizer: dict[str, Any]


@contextmanager
def kept_beside(bundle: Path, *, resume: bool) -> Iterator[Path]:
    """Yield where the training for a bundle is kept, `BUNDLE.qat/last.ckpt`; no one else may write.

    When the block ends without an error the bundle is there, and what was kept is removed.
    Raises IrstdError where a training stands in the way, or none is there to resume.
    """
    bundle = bundle.resolve()
    folder = bundle.with_name(bundle.name + ENDING)
    path = folder / CHECKPOINT
    if resume and not path.exists():
        raise IrstdError(f"{path}: no such file, nothing to resume; leave --resume out")
    with sole_writer(folder):
        if path.exists() and not resume:
            raise IrstdError(
                f"{path}: holds a training for this bundle: add --resume to go on with it, or "
                "remove it"
            )
        yield path
        path.unlink(missing_ok=True)
    with suppress(OSError):  # it holds something of others
        folder.rmdir()


@dataclass(frozen=True)
class Checkpoint:
    """The file of one training."""

    path: Path
    identity: str
    """Of all that decides its result."""

    def read(self, student: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Let both go on from the file where there is one, and return the steps done.

        Raises IrstdError where it is damaged or of another training.
        """
        if not self.path.exists():
            return 0
        try:
            saved = unpickled(self.path)
            found = saved.pop("identity")
            stage = Stage(**saved)
            if found == self.identity:
                student.load_state_dict(stage.net)
                optimizer.load_state_dict(stage.optimizer)
                return int(stage.steps)
        except IrstdError:
            raise
        except Exception as error:  # torch raises what the bytes made it raise
            raise IrstdError(f"{self.path}: is damaged; remove it to start again") from error
        raise IrstdError(
            f"{self.path}: is of other weights, frames or options; give --resume those of that "
            "training, or remove it to start again"
        )

    def write(self, steps: int, student: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Write the file as a whole."""
        stage = Stage(steps, student.state_dict(), optimizer.state_dict())
        buffer = io.BytesIO()
        torch.save({"identity": self.identity} | vars(stage), buffer)
        write_atomic(self.path, buffer.getvalue())
