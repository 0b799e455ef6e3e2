"""Graphs that are not in a bundle yet: how well they do, and what a device should see in them."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from irstd_edge.benchmarks.accuracy import Evaluation, evaluate
from irstd_edge.benchmarks.drift import score_error
from irstd_edge.edge.bundle import graph_name
from irstd_edge.edge.detect import OUTPUTS
from irstd_edge.edge.golden import golden_files
from irstd_edge.edge.runners import Runner, open_graph
from irstd_edge.edge.runtimes import INPUT, check_names, ort_session
from irstd_edge.edge.types import (
    BoolArray,
    FloatArray,
    Frame,
    IrstdError,
    ModelSpec,
    Prediction,
    Progress,
    Sample,
    Skip,
)

GOLDEN_FRAMES = 3
OWN_FORMS = tuple(graph_name(variant, "onnxruntime") for variant in ("fp32", "int8"))
"""Of ONNX Runtime."""

SCORE_ERROR, MASK_ERROR = "score_error", "mask_error"

Runners = dict[str, Runner]
"""File name of a graph -> it, open on ONNX Runtime."""


@contextlib.contextmanager
def opened(graphs: Mapping[str, bytes], spec: ModelSpec) -> Iterator[Runners]:
    """Open every graph: ONNX Runtime's own forms as it runs them, the others as they are written.

    Its optimizer would turn what those leave in float into integer kernels: that adds rounding
    error, and fails on a bias of float16.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        runners = {}
        for name, graph in graphs.items():
            variant = name.removesuffix(".onnx")
            if name in OWN_FORMS:
                path = Path(folder, name)
                path.write_bytes(graph)
                runner = open_graph(path, spec, variant)
            else:
                runner = as_written(graph, spec, variant)
            runners[name] = stack.enter_context(runner)
        yield runners


def as_written(graph: bytes, spec: ModelSpec, variant: str) -> Runner:
    """Open a graph on ONNX Runtime and leave every node as it is: exact, and slow."""
    session = ort_session(graph, optimized=False)
    outputs = OUTPUTS[spec.decode.kind]
    check_names(
        Path(f"{variant}.onnx"),
        [i.name for i in session.get_inputs()],
        [o.name for o in session.get_outputs()],
        outputs,
    )

    def infer(batch: FloatArray) -> list[FloatArray]:
        result: list[FloatArray] = session.run(outputs, {INPUT: batch})
        return result

    return Runner(spec, "onnxruntime", variant, infer)


def judge(
    runners: Runners, samples: Sequence[Sample | Skip], progress: Progress
) -> dict[str, Evaluation]:
    """File name -> its results on the samples."""
    return {
        name: _evaluate(runner.predict, samples, f"judging {runner.variant}", progress)
        for name, runner in runners.items()
    }


@dataclass(frozen=True)
class Seen:
    """What a network saw in the held-out frames."""

    result: Evaluation
    masks: tuple[BoolArray, ...]
    """Of a segmentation net, in the order in which the frames were predicted; else none."""


def seen_by(runner: Runner, samples: Sequence[Sample | Skip], progress: Progress) -> Seen:
    """Look at the samples, and keep the masks as well."""
    masks: list[BoolArray] = []

    def look(frame: Frame) -> Prediction:
        prediction = runner.predict(frame)
        if prediction.mask is not None:
            masks.append(prediction.mask)
        return prediction

    result = _evaluate(look, samples, f"judging {runner.variant}", progress)
    return Seen(result, tuple(masks))


def standing_of(seen: Seen, reference: Seen) -> dict[str, float]:
    """What counts, 0..1: F1 at 3 px, IoU where labels are masks, and how far from the reference.

    The last is `score_error`; the scores of a segmentation net saturate, and for it there is
    `mask_error`, 1 less the IoU of both masks.
    """
    metrics = seen.result.metrics()
    f1 = {"f1_3px": metrics["f1_3px"] or 0.0}
    if seen.masks:
        iou = {} if metrics["iou"] is None else {"iou": metrics["iou"]}
        return {
            **f1,
            **iou,
            MASK_ERROR: mask_error(seen.masks, reference.masks),
        }
    scores = [
        [target.score for image in each.result.images for target in image.targets]
        for each in (seen, reference)
    ]
    return {**f1, SCORE_ERROR: score_error(*scores)}


def mask_error(before: Sequence[npt.NDArray[Any]], after: Sequence[npt.NDArray[Any]]) -> float:
    """1 less the IoU of masks, or the soft IoU of their probabilities: sum min / sum max.

    Over all frames; 0 where nothing is in any.
    """
    pairs = list(zip(before, after, strict=True))
    either = sum(float(np.maximum(a, b).sum(dtype=np.float64)) for a, b in pairs)
    both = sum(float(np.minimum(a, b).sum(dtype=np.float64)) for a, b in pairs)
    return (either - both) / either if either else 0.0


def is_better(
    after: Mapping[str, float], before: Mapping[str, float], reference: Mapping[str, float]
) -> bool:
    """Whether no figure fell, and one rose or the network came closer to the reference.

    What is above the reference is so by chance: to lose that is no fall.
    """
    figures = before.keys() - {SCORE_ERROR, MASK_ERROR}
    fell = any(after[name] < min(before[name], reference[name]) for name in figures)
    rose = any(after[name] > before[name] for name in figures)
    closer = any(after[name] < before[name] for name in before.keys() - figures)
    return not fell and (rose or closer)


def _evaluate(
    look: Callable[[Frame], Prediction],
    samples: Sequence[Sample | Skip],
    what: str,
    progress: Progress,
) -> Evaluation:
    def done(count: int) -> None:
        progress(what, count, len(samples))

    return evaluate(samples, look, "native", done=done)


def refuse_drop(
    judged: Mapping[str, Evaluation], reference: str, max_drop: float | None, fix: str
) -> None:
    """Raise IrstdError where a graph loses more points than `max_drop`, see `worst_drop`."""
    if max_drop is None:
        return
    name, drop, metric = worst_drop(judged, reference)
    if drop > max_drop:
        raise IrstdError(
            f"--max-drop: {name} loses {drop:.2f} points of {metric} on "
            f"{len(judged[name].images)} held-out frames, {max_drop:g} are allowed: {fix}"
        )


def worst_drop(judged: Mapping[str, Evaluation], reference: str) -> tuple[str, float, str]:
    """The graph that loses most, its points, and of what: F1 at 3 px or, of masks, IoU as well.

    A mask that shrinks keeps its F1. Raises IrstdError without F1.
    """
    figures = {name: result.metrics() for name, result in judged.items()}
    if any(each["f1_3px"] is None for each in figures.values()):
        raise IrstdError(
            "--max-drop: the held-out frames have no targets to judge by: leave it out"
        )
    drops = [
        (name, 100 * (before - after), words)
        for metric, words in (("f1_3px", "F1"), ("iou", "IoU"))
        for name, each in figures.items()
        if (before := figures[reference][metric]) is not None
        if (after := each[metric]) is not None
    ]
    return max(drops, key=lambda drop: drop[1])


def golden_of(runners: Runners, reference: str, samples: Sequence[Sample]) -> dict[str, Any]:
    """The golden part of the bundle: the frames whose targets are clearest, and what is seen.

    Of equals, as masks are whose scores are all 1, those whose smallest target is largest.
    """
    ranked = sorted(samples, key=lambda s: _clarity(runners[reference], s), reverse=True)
    clearest: dict[str, Frame] = {}
    for sample in ranked:  # frames of two data sets may have one name
        clearest.setdefault(sample.frame.name, sample.frame)
    frames = list(clearest.values())[:GOLDEN_FRAMES]
    seen = {name: [runner.detect(f) for f in frames] for name, runner in runners.items()}
    return golden_files(frames, seen)


def _clarity(runner: Runner, sample: Sample) -> tuple[float, float]:
    """Lowest score and lowest area of what is found.

    Under 0 with a target missed, a false alarm, or no target.
    """
    (image,) = evaluate([sample], runner.predict, "native").images
    clean = image.targets and not image.false_alarms and all(t.matched for t in image.targets)
    if not clean:
        return -1.0, -1.0
    found = runner.detect(sample.frame)
    return min(t.score for t in image.targets), min(each.area_px for each in found)
