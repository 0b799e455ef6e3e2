"""What each part of the quantization buys: a table in Markdown, one part changed at a time.

python tests/experiments/int8_parts.py p2p --data NUDT-SIRST [--split test] [--qat BUNDLE]
    [--part WORDS]

Every row is INT8 against FP32 of the same weights and runtime: targets lost and gained, the change
of F1 at 3 px in points, and the root of the mean squared change of a target's score. The scores of
a segmentation net saturate: for it the change of IoU, in points, is in their place.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from irstd_edge.benchmarks.accuracy import Evaluation, evaluate
from irstd_edge.calibration import float_layers, quantize, subset
from irstd_edge.calibration.activation_ranges import estimate_ranges
from irstd_edge.calibration.equalise import equalise
from irstd_edge.calibration.export import FP32, INT8, INT8_CPU, exports_of, graphs_of
from irstd_edge.calibration.quantize import quantize as quantized
from irstd_edge.calibration.range_rules import RULE_OF
from irstd_edge.calibration.subset import CalibrationFrame
from irstd_edge.edge.bundle import open_bundle
from irstd_edge.edge.dataset import open_dataset
from irstd_edge.edge.runners import installed_runtimes, open_graph, torch_runner
from irstd_edge.edge.types import ModelSpec, Sample
from irstd_edge.models.weights import find_weights, load_model, spec_of_card

FRAMES = 64
FORMS = (("onnxruntime", INT8_CPU), ("onnxruntime", INT8), ("openvino", INT8))
"""Runtime -> graph; the second is what happens without a form of ONNX Runtime's own."""
FIRST_LAYERS = {
    "p2p": ("stem",),
    "mshnet": ("conv_init", "encoder_0.0.conv1", "encoder_0.0.shortcut"),
}
"""Without the policy: only what the lint of every runtime asks for stays in float."""


@contextmanager
def mean_ranges() -> Iterator[None]:
    """NNCF's own rule: the mean over frames of each frame's extremes."""
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet as Rules

    with patch.object(Rules, "MINMAX", Rules.MEAN_MINMAX):
        yield


@contextmanager
def drawn_frames() -> Iterator[None]:
    """Calibration frames drawn at random, none for its targets."""

    def drawn(figures: Mapping[str, Any], count: int, seed: int) -> set[str]:
        return set(np.random.default_rng(seed).choice(list(figures), count, replace=False))

    with patch.object(subset, "_chosen", drawn):
        yield


@contextmanager
def no_policy() -> Iterator[None]:
    """Attention and heads rounded too."""
    first = {
        name: tuple((pattern, "first") for pattern in patterns)
        for name, patterns in FIRST_LAYERS.items()
    }
    with patch.object(float_layers, "FLOAT_LAYERS", first):
        yield


@contextmanager
def all_operators() -> Iterator[None]:
    """Sums, products and resizes rounded too."""
    with patch.object(quantize, "FLOAT_OPERATORS", ()):
        yield


@contextmanager
def unequal_maps() -> Iterator[None]:
    """Parts of joined maps and channels as high as training left them."""
    with patch.object(sys.modules[__name__], "equalise", lambda net, batches: net):
        yield


@contextmanager
def as_shipped() -> Iterator[None]:
    """Nothing changed."""
    yield


@dataclass(frozen=True)
class Part:
    """One thing that is done otherwise than `quantize --method ptq` does it."""

    changed: Callable[[], Any] = as_shipped
    reduced_range: bool = False
    ranges: str | None = None
    spares_targets: bool = True
    """Whether no rule cuts a target of the calibration frames."""


PARTS = {
    "as `quantize --method ptq`": Part(),
    "ranges: mean over frames": Part(mean_ranges, ranges="min-max"),
    "`--ranges min-max`": Part(ranges="min-max"),
    "`--ranges percentile`": Part(ranges="percentile"),
    "`--ranges mse`": Part(ranges="mse"),
    "ranges: percentile, of targets too": Part(ranges="percentile", spares_targets=False),
    "ranges: mse, of targets too": Part(ranges="mse", spares_targets=False),
    "calibration frames drawn at random": Part(drawn_frames),
    "attention and heads in INT8": Part(no_policy),
    "sums, products, resizes in INT8": Part(all_operators),
    "maps not equalised (MSHNet only)": Part(unequal_maps),
    "`--reduced-range`": Part(reduced_range=True),
}


def graphs(weights: str, data: Path, part: Part) -> tuple[dict[str, bytes], ModelSpec]:
    """The graphs that calibration gives with one part changed."""
    net, model, card = load_model(find_weights(weights))
    spec, float_net = spec_of_card(model, card), net.deploy()
    with part.changed():
        samples = subset.calibration_samples([open_dataset(data, "train")], FRAMES, 0)
        runner = torch_runner(float_net, spec)
        shown = [CalibrationFrame.of(runner.batch_of(sample.frame), sample) for sample in samples]
        tensors = [each.batch for each in shown]
        float_net = equalise(float_net, tensors)
        made = quantized(float_net, spec.name, tensors, reduced_range=part.reduced_range)
    if not part.spares_targets:
        shown = [replace(each, near=torch.zeros_like(each.near)) for each in shown]
    rule = part.ranges or RULE_OF[spec.decode.kind]
    if rule != "min-max":
        estimate_ranges(made.module, shown, rule)
    return graphs_of(exports_of(float_net, made.module, spec), spec, shown, rule=rule), spec


def judged(graph: bytes, spec: ModelSpec, runtime: str, samples: list[Sample]) -> Evaluation:
    """Its results on the frames."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "graph.onnx")
        path.write_bytes(graph)
        with open_graph(path, spec, "int8", runtime) as run:
            return evaluate(samples, run.predict, "native")


def row(title: str, form: str, before: Evaluation, after: Evaluation) -> str:
    """A line of the table."""
    pairs = [
        (a, b)
        for one, other in zip(before.images, after.images, strict=True)
        for a, b in zip(one.targets, other.targets, strict=True)
    ]
    lost = sum(a.matched and not b.matched for a, b in pairs)
    gained = sum(b.matched and not a.matched for a, b in pairs)
    error = (sum((a.score - b.score) ** 2 for a, b in pairs) / len(pairs)) ** 0.5
    was, now = before.metrics(), after.metrics()
    f1, iou = (100 * ((now[name] or 0.0) - (was[name] or 0.0)) for name in ("f1_3px", "iou"))
    last = f"{error:.4f}" if was["iou"] is None else f"{iou:+.2f}"
    return f"| {title} | {form} | {lost} | {gained} | {f1:+.2f} | {last} |"


class Table:
    """Rows against FP32, which is judged once on each runtime."""

    def __init__(self, samples: list[Sample]) -> None:
        self.samples = samples
        self.references: dict[str, Evaluation] = {}

    def add(self, title: str, made: Mapping[str, bytes], spec: ModelSpec) -> None:
        """Print a line for each runtime and form."""
        for runtime, name in FORMS:
            if runtime not in installed_runtimes():
                continue
            if runtime not in self.references:
                self.references[runtime] = judged(made[FP32], spec, runtime, self.samples)
            after = judged(made[name], spec, runtime, self.samples)
            form = f"{runtime}, {name}"
            print(row(title, form, self.references[runtime], after), flush=True)


def main() -> None:
    """Print the table, part by part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--qat", type=Path, help="a bundle of `quantize --method qat` to compare")
    parser.add_argument("--part", action="append", help="words of rows; the others are left out")
    options = parser.parse_args()
    samples = [
        s for s in open_dataset(options.data, options.split).samples() if isinstance(s, Sample)
    ]
    _, model, _ = load_model(find_weights(options.weights))
    last = "score error" if model == "p2p" else "IoU, points"
    print(f"| changed | graph | lost | gained | F1, points | {last} |", flush=True)
    print(f"|{'---|' * 6}", flush=True)
    table = Table(samples)
    for title, part in PARTS.items():
        if options.part and not any(words in title for words in options.part):
            continue
        made, spec = graphs(options.weights, options.data, part)
        table.add(title, made, spec)
    if options.qat is not None:
        bundle = open_bundle(options.qat)
        made = {name: (bundle.path / name).read_bytes() for name in (FP32, INT8, INT8_CPU)}
        table.add("`quantize --method qat`", made, bundle.manifest.model)


if __name__ == "__main__":
    main()
