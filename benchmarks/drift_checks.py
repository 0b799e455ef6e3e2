"""The gate's checks of a candidate against the reference of its bundle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from irstd_edge.benchmarks.asked_checks import pd_check, range_checks, unanswered
from irstd_edge.benchmarks.bench_file import Drift, Result, Variant
from irstd_edge.benchmarks.figures import flip_figures, is_within, metric_figures
from irstd_edge.benchmarks.limits import Limits
from irstd_edge.benchmarks.plan import REFERENCE
from irstd_edge.benchmarks.subject import Subject, subject_of
from irstd_edge.benchmarks.verdict import Check
from irstd_edge.edge.tensorrt_runtime import TENSORRT_RUNTIMES


def drift_checks(result: Result, limits: Limits) -> Iterator[Check]:
    """Of every candidate that was measured; one that was judged by no entry fails by name.

    If no variant was scored (no --data), that check is skipped, because a gate of speed alone needs
    no frames. Limits that only gate.toml sets are still judged, and fail if they cannot be.
    """
    judged = set()
    for entry in result.drifts:
        candidate = result.find(entry.candidate, entry.runtime)
        reference = result.find(entry.reference, entry.reference_runtime)
        if candidate is None:
            continue
        judged.add((entry.candidate, entry.runtime))
        subject = subject_of("drift", result, entry.candidate, entry.runtime)
        against = f" (against {entry.reference} on {entry.reference_runtime})"
        for check in _accuracy_checks(subject, entry, (reference, candidate), limits):
            yield replace(check, why=check.why + against) if entry.is_across else check
        if "fps_ratio" in limits.drift:
            beside = (result.find(entry.reference, entry.runtime), candidate)
            yield _speed_check(subject, entry.reference, beside, limits.drift["fps_ratio"])
    others = [v for v in result.measured if (v.name, v.runtime) not in judged]
    candidates = [variant for variant in others if variant.name != REFERENCE]
    for variant in candidates:
        yield from _without_entry(result, variant, limits)
    if others and not judged and not candidates:
        yield from _asked_of_the_reference(result, limits)


def _without_entry(result: Result, variant: Variant, limits: Limits) -> Iterator[Check]:
    """Of a candidate without a drift entry: its speed is judged, what frames would tell is not."""
    subject = subject_of("drift", result, variant.name, variant.runtime)
    why = why_unjudged(result, variant)
    shown = any(each.accuracy for each in result.measured)
    yield subject.check("entry", False, why) if shown else subject.skip("entry", why)
    yield from unanswered(subject, why, limits.drift, limits.lost)
    if "fps_ratio" in limits.drift:
        beside = (result.find(REFERENCE, variant.runtime), variant)
        yield _speed_check(subject, REFERENCE, beside, limits.drift["fps_ratio"])


def _asked_of_the_reference(result: Result, limits: Limits) -> Iterator[Check]:
    """Nothing was measured that what a gate.toml alone asks for could be held against."""
    subject = subject_of("drift", result)
    why = f"{REFERENCE} alone was measured; bench a cheaper variant beside it"
    yield from unanswered(subject, why, limits.drift, limits.lost)
    if "fps_ratio" in limits.drift:
        yield subject.check("fps_ratio", False, why, limit=limits.drift["fps_ratio"])


def why_unjudged(result: Result, variant: Variant) -> str:
    """Why a measured variant has no drift entry, and what brings one."""
    if variant.accuracy is None:
        return "no drift was measured: bench with --data"
    if any(each.name == REFERENCE and each.accuracy for each in result.measured):
        return f"the bench does not compare it with {REFERENCE}: bench again with --data"
    return f"no {REFERENCE} was measured to compare it with: {_reference_beside(variant)}"


def _reference_beside(variant: Variant) -> str:
    """What brings a reference on the runtime of a variant."""
    if variant.runtime in TENSORRT_RUNTIMES:
        return f"compile BUNDLE --variant {REFERENCE}, then bench again"
    return f"bench a bundle that holds {REFERENCE}.onnx"


def is_reference_alone(result: Result) -> bool:
    """Whether nothing but the reference was shown frames: there is no candidate to judge."""
    measured = result.measured
    return bool(measured) and all(each.name == REFERENCE and each.accuracy for each in measured)


def _accuracy_checks(
    subject: Subject, entry: Drift, sides: tuple[Variant | None, Variant], limits: Limits
) -> Iterator[Check]:
    """What a gate.toml alone asks for fails where the bench cannot answer."""
    before, after = (side.accuracy if side else None for side in sides)
    flips = (entry.targets_lost, entry.targets_gained)
    targets = after.targets if after else len(entry.targets)
    figures = flip_figures(before, after, targets, flips)
    figures |= metric_figures(before, after, entry.changes)
    yield from subject.changes(figures, limits.drift)
    if "pd_at_fa" in limits.drift:
        why = (
            "the bench does not compare Pd at equal false alarms; bench anew with --data, or limit "
            "fa_per_mpx where no threshold brings a mask's down to FP32's"
        )
        yield pd_check(subject, entry.at_own_fa, limits.drift["pd_at_fa"], why)
    yield from range_checks(subject, entry.lost, limits.lost)


def _speed_check(
    subject: Subject, name: str, sides: tuple[Variant | None, Variant], limit: float
) -> Check:
    slow, fast = (side.fps if side else None for side in sides)
    if sides[0] is None:
        why = f"{name} was not measured on {sides[1].runtime}: {_reference_beside(sides[1])}"
        return subject.check("fps_ratio", False, why, limit=limit)
    if not slow or fast is None:
        why = f"the speed of both sides was not measured; bench {name} beside it"
        return subject.check("fps_ratio", False, why, limit=limit)
    ratio = fast / slow
    why = f"{slow:.4g} -> {fast:.4g} fps: {ratio:.3g} of {name}, lowest allowed {limit:.3g}"
    values = {"reference": slow, "candidate": fast, "limit": limit}
    return subject.check("fps_ratio", is_within(ratio, limit, "fps_ratio"), why, **values)
