"""What `quantize` has to say of a bundle beside its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from irstd_edge.benchmarks.plan import REFERENCE
from irstd_edge.calibration.layer_gain import MARGIN, RULE_FORM
from irstd_edge.calibration.range_rules import FEWEST_TARGETS
from irstd_edge.edge.first_step import step_words
from irstd_edge.edge.types import Manifest

METRICS = {"f1_3px": "F1", "iou": "IoU"}


def outcome_words(manifest: Manifest) -> Iterator[str]:
    """Lines on frames left out, what training bought, what is float and why, and what it cost."""
    quantization = manifest.quantization
    recipe = quantization.recipe
    held_out = manifest.accuracy.get(REFERENCE, {}).get("skipped") or ()
    for skip in (*recipe.get("skipped", ()), *held_out):
        yield f"skipped {skip['name']}: {skip['reason']}"
    if "ranges_instead_of" in recipe:
        yield (
            f"ranges by {recipe['ranges']}, not {recipe['ranges_instead_of']}: the calibration "
            f"frames show fewer than {FEWEST_TARGETS} targets; give more --frames"
        )
    if "sensor_step" in recipe:
        yield step_words(recipe["sensor_step"])
    if "qat" in recipe:
        yield _training_words(recipe["qat"])
    if "time_layers" in recipe:
        yield _layers_words(recipe["time_layers"])
    budget = [layer for layer, reason in quantization.float_layers if "--max-drop" in reason]
    if budget:
        yield f"in float to hold --max-drop: {', '.join(budget)}"
    if recipe.get("parity"):
        yield _parity_words(recipe["parity"])
    if REFERENCE in manifest.accuracy:
        yield _cost_words(manifest.accuracy)


def _cost_words(accuracy: Mapping[str, Mapping[str, Any]]) -> str:
    """What FP32 and every INT8 graph make of the held-out frames, in percent."""
    shown = [graph for graph in accuracy if graph == REFERENCE or graph.startswith("int8")]
    metrics = {name: word for name, word in METRICS.items() if _known(accuracy, shown, name)}
    parts = []
    for graph in shown:
        found = (f"{word} {100 * accuracy[graph][name]:.2f}" for name, word in metrics.items())
        parts.append(f"{graph} {', '.join(found)}")
    held_out = accuracy[REFERENCE]
    return (
        f"held-out frames ({held_out['images']} with {held_out['targets']} targets, not the test "
        f"list): {'; '.join(parts)}"
    )


def _known(accuracy: Mapping[str, Mapping[str, Any]], graphs: Sequence[str], metric: str) -> bool:
    return all(accuracy[graph].get(metric) is not None for graph in graphs)


def _training_words(qat: Mapping[str, Any]) -> str:
    before, after = (qat["held_out"][name] for name in ("ptq", "qat"))
    changes = ", ".join(f"{name} {before[name]:.4f} -> {after[name]:.4f}" for name in before)
    kept = "is kept" if qat["kept"] else "bought nothing, so the calibrated network is kept"
    return f"QAT {kept} (held-out frames: {changes})"


def _layers_words(choice: Mapping[str, Any]) -> str:
    times = ", ".join(f"{name} {ms:.1f} ms" for name, ms in choice["p50_ms"].items())
    why = "the fastest on this machine"
    if choice.get("chosen") == RULE_FORM:
        why = f"by rule, for none is over {MARGIN:.0%} faster on this machine"
    return (
        f"int8.cpu.onnx rounds {len(choice['rounded'])} of {len(choice['alone'])} layers, {why} "
        f"({times}; rewarding layers first, and by rule)"
    )


def _parity_words(gaps: Sequence[Mapping[str, Any]]) -> str:
    """How far each way to run it is from the graph as written; the farthest is named last."""
    parts = [
        f"{gap['way']} differs in {gap['flips']} of {gap['targets']} targets ({_change_words(gap)})"
        for gap in gaps
    ]
    farthest = max(gaps, key=_distance)
    return f"int8.onnx on held-out frames: {', '.join(parts)}; farthest: {farthest['way']}"


def _distance(gap: Mapping[str, Any]) -> tuple[float, ...]:
    changes = [abs(gap.get(name) or 0.0) for name in ("f1_3px", "iou")]
    return gap["flips"], max(changes), gap["score_error"]


def _change_words(gap: Mapping[str, Any]) -> str:
    """In points, which a bundle of an earlier version does not say; scores of masks saturate."""
    changes = (("F1", gap.get("f1_3px")), ("IoU", gap.get("iou")))
    known = [f"{name} by {100 * by:+.2f}" for name, by in changes if by is not None]
    scores = [] if gap.get("iou") is not None else [f"scores by {gap['score_error']:.4f}"]
    return ", ".join(scores + known)
