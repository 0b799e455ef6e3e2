"""What `quantize` refuses before minutes of calibration and hours of training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from irstd_edge.calibration.fake_quantize import LEVELS, FakeQuantize
from irstd_edge.calibration.half_layout import LARGEST
from irstd_edge.edge.bundle import refuse_foreign
from irstd_edge.edge.dataset import DataSet
from irstd_edge.edge.files import refuse_unwritable
from irstd_edge.edge.manifest import METHODS
from irstd_edge.edge.types import IrstdError, Sample, Skip


def check_options(
    method: str, epochs: int | None, max_drop: float | None, out: Path, resume: bool
) -> None:
    """Raise IrstdError for options that mean nothing, and for an `out` that cannot be."""
    if method not in METHODS:
        raise IrstdError(f"--method: {method!r} is not one of {', '.join(METHODS)}")
    if method == "ptq" and epochs is not None:
        raise IrstdError("--epochs: ptq trains nothing; leave it out, or take --method qat")
    if method == "ptq" and resume:
        raise IrstdError("--resume: ptq trains nothing; leave it out, or take --method qat")
    if max_drop is not None and not 0 <= max_drop < math.inf:
        raise IrstdError(f"--max-drop: {max_drop:g} is no drop; give points of F1, 0 or more")
    # write_bundle refuses what follows too, but only after minutes of work.
    refuse_foreign(out)
    out = out.resolve()
    refuse_unwritable(out.with_name(out.name + ".trial"))


def check_held_out(held_out: Sequence[Sample | Skip], method: str, max_drop: float | None) -> None:
    """Raise IrstdError, before hours of training, where nothing can judge it."""
    usable = [sample for sample in held_out if isinstance(sample, Sample)]
    if not usable:
        raise IrstdError(
            f"--data: none of the {len(held_out)} held-out frames can be used; "
            "list more in trainval"
        )
    if not any(len(sample.points) for sample in usable):
        flag, fix = "--max-drop", "leave it out"
        if max_drop is None:
            flag, fix = "--method", "take --method ptq"
        if method == "qat" or max_drop is not None:
            raise IrstdError(f"{flag}: the held-out frames have no targets to judge by: {fix}")


def refuse_two_kinds(sets: Sequence[DataSet], kind: str) -> None:
    """Raise IrstdError where some sets have masks and some points.

    Masks are scored by pixels, points by alarms: together by neither.
    """
    if kind == "mask" and len({bool(each.masks) for each in sets}) > 1:
        bare = next(each.root for each in sets if not each.masks)
        raise IrstdError(
            f"--data: {bare} has points alone, another set has masks: this network is judged by "
            "its masks: leave one kind out"
        )


def refuse_large(path: Path, net: nn.Module) -> None:
    """Raise IrstdError for weights of which no graph of float16 can be made."""
    for name, value in net.state_dict().items():
        if (largest := float(value.abs().max())) > LARGEST:
            raise IrstdError(
                f"{path}: {name} reaches {largest:g}, and float16 ends at {LARGEST:g}: train with "
                "more weight decay, or give others"
            )


def refuse_wide(quantized: nn.Module) -> None:
    """Raise IrstdError for activations that float16 cannot hold."""
    for part in quantized.modules():
        if isinstance(part, FakeQuantize) and part.axis is None:
            if (end := float(part.scale) * (LEVELS + 1)) > LARGEST:
                raise IrstdError(
                    f"these weights give values up to {end:g} on the calibration frames, and "
                    f"float16 ends at {LARGEST:g}: train with more weight decay, or give others"
                )
