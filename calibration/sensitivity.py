"""What each layer costs when it alone is rounded, and which few to leave in float for a budget.

Measured on graphs, not on modules: whatever trained the scales, a convolution is released by
taking the quantizers away in front of it.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from irstd_edge.benchmarks.accuracy import evaluate
from irstd_edge.benchmarks.comparison import moves
from irstd_edge.benchmarks.cost import cost_of_graph
from irstd_edge.benchmarks.drift import score_error
from irstd_edge.calibration.judge import as_written, mask_error
from irstd_edge.calibration.layouts import layer_of, round_alone, rounded_layers
from irstd_edge.edge.frames import padded_size
from irstd_edge.edge.runners import Runner
from irstd_edge.edge.types import (
    FloatArray,
    Frame,
    IrstdError,
    ModelSpec,
    Prediction,
    Progress,
    Sample,
)

PRUNED = 3
"""Layers that are tried in INT8 again after the choice."""
LOWEST = 0.1
"""Probability under which nothing is looked at when a threshold is moved."""


@dataclass(frozen=True)
class LayerError:
    """What rounding one layer alone does to the network."""

    layer: str
    macs: int
    """Of the layer, at the size of the first frame."""
    sqnr_db: float | None
    """Signal-to-quantization-noise ratio of the logits; None where they did not change."""
    score_error: float
    """Root of the mean squared change of a target's score."""
    mask_error: float | None
    """Of a segmentation net, whose scores saturate: 1 less the soft IoU of its masks with float's,
    sum min(p, q) / sum max(p, q) over all pixels' probabilities; None of a point detector. A layer
    alone turns too few pixels over the threshold to tell layers apart by."""
    targets_lost: int
    targets_gained: int
    pd_at_fa: float | None
    """Change of Pd at as many false alarms as the float network has at its threshold, each with its
    own threshold as low as they allow; None without targets, and where no threshold over which a
    target is found does. Here a target is found if its score is over the threshold."""

    @property
    def moves(self) -> float:
        """How far it moves what the network is for; layers are ranked by it."""
        return moves(self.record())

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def sensitivity(
    fp32: bytes,
    int8: bytes,
    spec: ModelSpec,
    samples: Sequence[Sample],
    *,
    known: Mapping[str, LayerError] = {},  # noqa: B006  (read only)
    keep: Callable[[LayerError], None] = lambda done: None,
    progress: Progress = lambda *_: None,
) -> tuple[LayerError, ...]:
    """The error of every layer that int8.onnx rounds, in the order in which they run.

    `known` layers are not measured again, and each new one is given to `keep` at once: a run that
    was stopped goes on. Raises IrstdError without samples.
    """
    if not samples:
        raise IrstdError("--data: no frame is held out to judge layers by; list more in trainval")
    model = onnx.load_from_string(int8)
    layers = list(rounded_layers(model))
    if not layers:
        raise IrstdError("int8.onnx: rounds no layer: quantize again")
    reference = _seen(as_written(fp32, spec, "fp32"), samples)
    macs = _macs(int8, samples[0], spec)
    errors = []
    for done, layer in enumerate(layers):
        progress("judging layers", done, len(layers))
        error = known.get(layer)
        if error is None:
            alone = _rounded_alone(fp32, model, layer)
            seen = _seen(as_written(alone, spec, layer), samples)
            error = _layer_error(layer, macs[layer], reference, seen, spec.decode.threshold)
            keep(error)
        errors.append(error)
    progress("judging layers", len(layers), len(layers))
    return tuple(errors)


def layer_error_of(record: Any) -> LayerError:
    """The inverse of `record`. Raises IrstdError for anything else."""
    names = {field.name for field in fields(LayerError)}
    if not isinstance(record, dict) or set(record) != names:
        raise IrstdError("not the error of a layer")
    for name, value in record.items():
        kind, optional = _KINDS.get(name, (int, False))
        right = value is None and optional or isinstance(value, kind)
        if not right or isinstance(value, bool):
            raise IrstdError(f"{name} of a layer is {value!r}")
    return LayerError(**record)


_KINDS: dict[str, tuple[Any, bool]] = {
    "layer": (str, False),
    "sqnr_db": (int | float, True),
    "score_error": (int | float, False),
    "mask_error": (int | float, True),
    "pd_at_fa": (int | float, True),
}
"""Field -> its type, and whether it may be None; the others are counts."""


def fewest_layers(
    errors: Sequence[LayerError], holds: Callable[[tuple[str, ...]], bool]
) -> tuple[str, ...] | None:
    """The layers to leave in float, worst first, until `holds`; None where all but one do not.

    As few as the order of their errors allows, then without those that are dearest and turn out
    not to be needed.
    """
    ranked = [error.layer for error in sorted(errors, key=lambda e: (-e.moves, e.macs))]
    low, high = 0, len(ranked) - 1  # with none rounded it would be the float network
    if high < 1 or not holds(tuple(ranked[:high])):
        return None
    while low < high:
        middle = (low + high) // 2
        if holds(tuple(ranked[:middle])):
            high = middle
        else:
            low = middle + 1
    chosen = ranked[:high]
    macs = {error.layer: error.macs for error in errors}
    # The last one was needed with all the others there; of these the dearest are tried.
    for layer in sorted(chosen[:-1], key=lambda name: -macs[name])[:PRUNED]:
        fewer = [name for name in chosen if name != layer]
        if holds(tuple(fewer)):
            chosen = fewer
    return tuple(chosen)


@dataclass(frozen=True)
class _Seen:
    """What a graph says of some frames."""

    logits: tuple[FloatArray, ...]
    targets: npt.NDArray[np.float64]
    """Score of each true target."""
    alarms: npt.NDArray[np.float64]
    """Score of each false alarm over `LOWEST`, highest first."""
    masks: tuple[FloatArray, ...] = ()
    """(H, W) probabilities of a segmentation net, frame by frame; else none."""


def _rounded_alone(fp32: bytes, int8: onnx.ModelProto, layer: str) -> bytes:
    try:
        return bytes(round_alone(onnx.load_from_string(fp32), int8, layer).SerializeToString())
    except (KeyError, ValueError) as error:
        raise IrstdError(
            f"int8.onnx: {layer} is not as quantize writes it, or not in fp32.onnx: quantize again"
        ) from error


def _seen(runner: Runner, samples: Sequence[Sample]) -> _Seen:
    masks: list[FloatArray] = []

    def look(frame: Frame) -> Prediction:
        prediction = runner.predict(frame, LOWEST)
        if prediction.mask is not None:
            masks.append(prediction.probability)
        return prediction

    images = evaluate(samples, look, "native").images
    alarms = sorted((a.score for image in images for a in image.false_alarms), reverse=True)
    return _Seen(
        tuple(runner.infer(runner.batch_of(sample.frame))[0] for sample in samples),
        np.array([target.score for image in images for target in image.targets]),
        np.array(alarms),
        tuple(masks),
    )


def _layer_error(
    layer: str, macs: int, before: _Seen, after: _Seen, threshold: float
) -> LayerError:
    found, found_after = before.targets > threshold, after.targets > threshold
    count = max(1, len(found))
    allowed = int((before.alarms > threshold).sum())
    at_fa, at_fa_after = _found_at(before, allowed), _found_at(after, allowed)
    return LayerError(
        layer=layer,
        macs=macs,
        sqnr_db=_decibels(before.logits, after.logits),
        score_error=score_error(before.targets.tolist(), after.targets.tolist()),
        mask_error=mask_error(before.masks, after.masks) if before.masks else None,
        targets_lost=int((found & ~found_after).sum()),
        targets_gained=int((found_after & ~found).sum()),
        pd_at_fa=(None if at_fa is None or at_fa_after is None else (at_fa_after - at_fa) / count),
    )


def _found_at(seen: _Seen, allowed: int) -> int | None:
    """Targets found with the threshold as low as so many false alarms allow.

    None without targets, and where a false alarm that is one too many scores as high as any target.
    """
    least = max(LOWEST, seen.alarms[allowed]) if len(seen.alarms) > allowed else LOWEST
    found = int((seen.targets > least).sum())
    return found if found or len(seen.targets) and least == LOWEST else None


def _decibels(signal: Sequence[FloatArray], rounded: Sequence[FloatArray]) -> float | None:
    pairs = [(s.astype(np.float64), r) for s, r in zip(signal, rounded, strict=True)]
    power = sum(float(np.square(s).sum()) for s, _ in pairs)
    noise = sum(float(np.square(s - r).sum()) for s, r in pairs)
    return 10 * math.log10(power / noise) if noise and power else None


def _macs(graph: bytes, sample: Sample, spec: ModelSpec) -> dict[str, int]:
    """Layer -> MACs at the size of a frame."""
    stride = spec.input.stride
    shape = (1, 1, *padded_size(sample.frame.shape, stride))
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        file.write(graph)
        file.flush()
        layers = cost_of_graph(Path(file.name), shape).layers
    return {layer_of(layer.name): layer.macs for layer in layers}
