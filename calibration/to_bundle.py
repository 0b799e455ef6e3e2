"""Weights and frames -> a bundle: calibrate, train on, judge, write."""

from __future__ import annotations

import json
import platform
import tempfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import nn

from irstd_edge.benchmarks.accuracy import Evaluation
from irstd_edge.calibration.activation_ranges import estimate_ranges
from irstd_edge.calibration.equalise import HOW, equalise
from irstd_edge.calibration.export import (
    FP16,
    FP32,
    INT8,
    Exports,
    bytes_of,
    exports_of,
    graphs_of,
    rounded_graph,
)
from irstd_edge.calibration.fake_quantize import half_steps
from irstd_edge.calibration.float_layers import FLOAT_OPERATORS
from irstd_edge.calibration.judge import (
    Seen,
    golden_of,
    is_better,
    judge,
    opened,
    refuse_drop,
    seen_by,
    standing_of,
    worst_drop,
)
from irstd_edge.calibration.layer_gain import fastest_layers
from irstd_edge.calibration.parity import openvino_runner, parity
from irstd_edge.calibration.qat import QatRecipe, train_quantized
from irstd_edge.calibration.qat_checkpoint import Checkpoint, kept_beside
from irstd_edge.calibration.quantize import RECIPE, Quantized, quantize
from irstd_edge.calibration.range_rules import RULE_OF, check_rule, rule_for
from irstd_edge.calibration.refusals import (
    check_held_out,
    check_options,
    refuse_large,
    refuse_two_kinds,
    refuse_wide,
)
from irstd_edge.calibration.sensitivity import fewest_layers, sensitivity
from irstd_edge.calibration.subset import CalibrationFrame, calibration_samples
from irstd_edge.edge.bundle import Bundle, write_bundle
from irstd_edge.edge.dataset import DataSet, digest_of, fingerprint, open_datasets, samples_of
from irstd_edge.edge.files import sha256_of
from irstd_edge.edge.first_step import sensor_step
from irstd_edge.edge.frames import batch_of
from irstd_edge.edge.golden import expected_of
from irstd_edge.edge.normalisation import with_normalisation
from irstd_edge.edge.runners import torch_runner
from irstd_edge.edge.types import (
    IrstdError,
    Manifest,
    ModelSpec,
    Progress,
    Quantization,
    Sample,
    Skip,
)
from irstd_edge.models.weights import find_weights, load_model, spec_of_card

PACKAGES = ("irstd-edge", "torch", "nncf", "onnx", "onnxruntime", "numpy")
REMEDY = "try --method qat, or --keep-float PATTERN"

Judged = tuple[dict[str, bytes], dict[str, Evaluation]]
"""The graphs by file name, and what they make of the held-out frames."""


@dataclass(frozen=True)
class _Case:
    """What is quantized, and the frames for it."""

    weights_sha256: str
    """Of the file, as it was read."""
    float_net: nn.Module
    """As the weights have it, its maps equalised."""
    equalised: bool
    """Whether it had any to equalise."""
    spec: ModelSpec
    fit: tuple[DataSet, ...]
    """Their train parts."""
    held_out: tuple[Sample | Skip, ...]
    samples: tuple[Sample, ...]
    """To calibrate on."""
    shown: tuple[CalibrationFrame, ...]
    """The same as the network takes them."""
    ranges: str
    """The rule of activations' ranges."""
    skipped: tuple[Skip, ...]
    """Frames of the train parts that cannot be used."""


def quantize_to_bundle(
    weights: str | Path,
    data: Sequence[Path],
    out: Path,
    *,
    method: str = "qat",
    epochs: int | None = None,
    max_drop: float | None = None,
    keep_float: Sequence[str] = (),
    reduced_range: bool = False,
    ranges: str | None = None,
    frames: int = 64,
    seed: int = 0,
    normalise: str | None = None,
    resume: bool = False,
    time_layers: bool = False,
    progress: Progress = lambda *_: None,
) -> Bundle:
    """Quantize weights (a file, or the name of shipped ones) and write the bundle `out`.

    Calibrates, and for `qat` trains, on the train parts of the data sets `data` together; judges
    FP32 and INT8 on their val parts; never opens a test list. Where training gains nothing the
    calibrated network is kept, and the manifest's method is `ptq`.
    max_drop: points of F1 (0.1 is 0.001), and of masks' IoU, that INT8 may lose; where it loses
    more, few layers that hold it stay in float, and the manifest lists them.
    reduced_range: weights of 7 bits, for processors without VNNI. ranges: of activations, by a rule
    of `range_rules`, None for that of the network's kind; min-max where the calibration frames show
    too few targets. normalise: the policy that the bundle freezes; None for that of the weights.
    Training is kept in OUT.qat until the bundle is there; `resume` goes on with it. time_layers:
    let this machine's clock choose what ONNX Runtime's form rounds.
    Raises IrstdError where no layers hold the drop, and writes no bundle then.
    """
    check_options(method, epochs, max_drop, out, resume)
    if ranges is not None:
        check_rule(ranges)
    how = QatRecipe() if epochs is None else QatRecipe(epochs=epochs)
    with kept_beside(out, resume=resume) if method == "qat" else nullcontext() as kept:
        case = _case(weights, data, frames, seed, normalise, ranges, progress)
        check_held_out(case.held_out, method, max_drop)
        recipe = _recipe(case, seed, reduced_range, ranges)
        calibration = tuple(fingerprint(sample.frame) for sample in case.samples)
        quantized = _calibrated(case, keep_float, reduced_range)
        refuse_wide(quantized.module)
        progress("calibrating", 1, 1)
        made_by = "ptq"
        if kept is not None:
            decides = [asdict(case.spec), case.weights_sha256, recipe, calibration, keep_float]
            quantized, recipe["qat"] = _trained(case, quantized, how, seed, kept, decides, progress)
            made_by = "qat" if recipe["qat"]["kept"] else "ptq"
        exports = exports_of(case.float_net, quantized.module, case.spec, trained=made_by == "qat")
        nodes = None
        if time_layers:
            nodes, recipe["time_layers"] = _fastest(case, exports, progress)
        graphs, judged = _judged(case, exports, (), nodes, {}, progress)
        if max_drop is not None and worst_drop(judged, FP32)[1] > max_drop:
            released, recipe["sensitivity"], trial = _released(
                case, exports, (graphs, judged), nodes, max_drop, progress
            )
            graphs, judged = trial or (graphs, judged)
            quantized = replace(quantized, float_layers=(*quantized.float_layers, *released))
            _forget(recipe, [layer for layer, _ in released])
        refuse_drop(judged, FP32, max_drop, REMEDY if kept is None else _remedy(kept))
        exported = None if "sensitivity" in recipe else quantized.module
        gaps = parity(judged, exported, graphs, case.spec, case.held_out, progress)
        recipe["parity"] = [gap.record() for gap in gaps]
        recipe["sensor_step"] = _sensor_step(graphs[INT8], case)
        golden = _golden(case, graphs)
        manifest = Manifest(
            model=case.spec,
            parent_sha256=case.weights_sha256,
            files={},
            quantization=Quantization(made_by, recipe, calibration, quantized.float_layers),
            versions=_versions(),
            accuracy={name.removesuffix(".onnx"): seen.accuracy() for name, seen in judged.items()},
        )
        return write_bundle(out, manifest, {**graphs, **golden})


def _recipe(case: _Case, seed: int, reduced_range: bool, ranges: str | None) -> dict[str, Any]:
    """What the manifest says of how it was quantized, before anything is."""
    recipe: dict[str, Any] = RECIPE | ({"equalised": HOW} if case.equalised else {})
    recipe |= {"float_operators": list(FLOAT_OPERATORS), "seed": seed}
    recipe |= {"reduced_range": reduced_range, "ranges": case.ranges}
    asked = ranges or RULE_OF[case.spec.decode.kind]
    recipe |= {"ranges_instead_of": asked} if case.ranges != asked else {}
    return recipe | ({"skipped": [asdict(skip) for skip in case.skipped]} if case.skipped else {})


def _remedy(kept: Path) -> str:
    """What to do where the drop is too high after training."""
    return (
        f"try --resume with a higher --max-drop, or remove {kept}, which holds what was trained, "
        "and give --keep-float PATTERN or more --epochs"
    )


def _forget(recipe: dict[str, Any], layers: Collection[str]) -> None:
    """Take layers that are float in the end out of what the clock chose."""
    if "time_layers" in recipe:
        chosen = recipe["time_layers"]
        chosen["rounded"] = [layer for layer in chosen["rounded"] if layer not in layers]


def _golden(case: _Case, graphs: dict[str, bytes]) -> dict[str, Any]:
    with opened(graphs, case.spec) as runners, openvino_runner(graphs[INT8], case.spec) as finer:
        ways = runners if finer is None else {**runners, expected_of(INT8, "openvino"): finer}
        return golden_of(ways, FP32, case.samples)


def _case(
    weights: str | Path,
    data: Sequence[Path],
    frames: int,
    seed: int,
    normalisation: str | None,
    ranges: str | None,
    progress: Progress,
) -> _Case:
    path = find_weights(weights)
    digest = sha256_of(path)
    net, model, card = load_model(path)
    fit, held_out = open_datasets(data, "train"), open_datasets(data, "val")
    spec = with_normalisation(spec_of_card(model, card), normalisation)
    refuse_two_kinds(fit, spec.decode.kind)
    skipped: list[Skip] = []
    samples = calibration_samples(fit, frames, seed, progress, spec.input, skipped.append)
    entry = replace(spec.input, bit_depth=samples[0].frame.bit_depth)
    spec = replace(spec, input=entry)
    shown = tuple(CalibrationFrame.of(batch_of(s.frame, spec.input), s) for s in samples)
    progress("calibrating", 0, 1)
    deployed = net.deploy()
    equal = equalise(deployed, [each.batch for each in shown])
    refuse_large(path, equal)
    return _Case(
        weights_sha256=digest,
        float_net=equal,
        equalised=equal is not deployed,
        spec=spec,
        fit=tuple(fit),
        held_out=tuple(sample for _, sample in samples_of(held_out)),
        samples=samples,
        shown=shown,
        ranges=rule_for(
            ranges or RULE_OF[spec.decode.kind], sum(len(sample.points) for sample in samples)
        ),
        skipped=tuple(skipped),
    )


def _calibrated(case: _Case, keep_float: Sequence[str], reduced_range: bool) -> Quantized:
    batches = [each.batch for each in case.shown]
    quantized = quantize(case.float_net, case.spec.name, batches, keep_float, reduced_range)
    if case.ranges != "min-max":  # which NNCF has taken
        estimate_ranges(quantized.module, case.shown, case.ranges)
    return quantized


def _trained(
    case: _Case,
    quantized: Quantized,
    how: QatRecipe,
    seed: int,
    kept: Path,
    decides: Sequence[Any],
    progress: Progress,
) -> tuple[Quantized, dict[str, Any]]:
    """The better of both on the held-out frames, and what the manifest says of it.

    kept: where the training can be stopped; `decides`, beside the frames, what makes it what it is.
    """
    fit = [sample for _, sample in samples_of(case.fit) if isinstance(sample, Sample)]
    settings = json.dumps([*decides, how.record(), digest_of(fit)])
    module = train_quantized(
        quantized.module,
        case.float_net,
        case.spec,
        fit,
        how,
        seed=seed,
        checkpoint=Checkpoint(kept, sha256(settings.encode()).hexdigest()),
        progress=progress,
    )
    fp32 = seen_by(torch_runner(case.float_net, case.spec, "fp32"), case.held_out, progress)
    before, after = (
        _standing(case, net, name, fp32, progress)
        for name, net in (("ptq", quantized.module), ("qat", module))
    )
    floats = standing_of(fp32, fp32)
    better = is_better(after, before, floats)
    held_out = {"fp32": floats, "ptq": before, "qat": after}
    record = {**how.record(), "kept": better, "held_out": held_out}
    return (replace(quantized, module=module) if better else quantized), record


def _standing(
    case: _Case, net: nn.Module, name: str, reference: Seen, progress: Progress
) -> dict[str, float]:
    """The mean of a quantized network's standings in both roundings that graphs get."""
    runner = torch_runner(net, case.spec, name)
    signed = standing_of(seen_by(runner, case.held_out, progress), reference)
    with half_steps(net):
        halves = standing_of(seen_by(runner, case.held_out, progress), reference)
    return {name: (signed[name] + halves[name]) / 2 for name in signed}


def _fastest(
    case: _Case, exports: Exports, progress: Progress
) -> tuple[Collection[str], dict[str, Any]]:
    """Names of the convolutions that ONNX Runtime's form rounds, and what says so."""
    rounded = bytes_of(rounded_graph(exports.rounded))
    frame = case.samples[0].frame
    choice = fastest_layers(rounded, case.shown, case.ranges, case.spec, frame, progress)
    return choice.nodes, choice.record


def _judged(
    case: _Case,
    exports: Exports,
    released: Sequence[str],
    nodes: Collection[str] | None,
    known: Mapping[str, Evaluation],
    progress: Progress,
) -> Judged:
    """The graphs with these layers in float, and their results on the held-out frames.

    known: results that stay what they are, by file name.
    """
    graphs = graphs_of(exports, case.spec, case.shown, released, rule=case.ranges, cpu_nodes=nodes)
    others = {name: graph for name, graph in graphs.items() if name not in known}
    with opened(others, case.spec) as runners:
        judged = {**known, **judge(runners, case.held_out, progress)}
    return graphs, {name: judged[name] for name in graphs}


def _released(
    case: _Case,
    exports: Exports,
    whole: Judged,
    nodes: Collection[str] | None,
    max_drop: float,
    progress: Progress,
) -> tuple[list[tuple[str, str]], list[dict[str, Any]], Judged | None]:
    """(layer, reason) of the fewest layers in float that hold `max_drop`; what each layer costs.

    And the graphs with these in float. No layers and no graphs where not even all of them hold it.
    whole: with no layer in float.
    """
    graphs, judged = whole
    floats = {name: judged[name] for name in (FP32, FP16)}
    samples = [sample for sample in case.held_out if isinstance(sample, Sample)]
    errors = sensitivity(graphs[FP32], graphs[INT8], case.spec, samples, progress=progress)

    held: Judged | None = None  # of the last layers that held it, which are those chosen

    def holds(layers: Sequence[str]) -> bool:
        nonlocal held
        trial = _judged(case, exports, layers, nodes, floats, progress)
        if worst_drop(trial[1], FP32)[1] > max_drop:
            return False
        held = trial
        return True

    alone = {error.layer: error.moves for error in errors}
    moved = "targets' scores" if case.spec.decode.kind == "heatmap" else "masks"
    why = f"--max-drop {max_drop:g}: rounded alone, it moves {moved} by"
    reasons = [(layer, f"{why} {alone[layer]:.4f}") for layer in fewest_layers(errors, holds) or ()]
    return reasons, [error.record() for error in errors], held


def _sensor_step(graph: bytes, case: _Case) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, INT8)
        path.write_bytes(graph)
        try:
            return sensor_step(path, case.spec.input, [sample.frame for sample in case.samples])
        except IrstdError as error:
            raise IrstdError(str(error).removeprefix(f"{folder}/")) from error


def _versions() -> dict[str, str]:
    installed = {name: metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **installed}
